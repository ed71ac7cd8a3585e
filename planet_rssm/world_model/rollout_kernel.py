"""All steps of imagined sequences as one Triton kernel: the loop over time runs inside it.

Each program of the kernel follows ROWS sequences from their first step to their last, by the parts
of a `Program`. What it knows of a sequence stands in a row of `scratch`, which its processor keeps
in cache; weights are read from where the model has them. Each part ends at a barrier, because the
next one reads what other threads have written. Numbers are float32, but what a product reads takes
the weights' precision.

Not every build of PyTorch brings Triton along: import this module only where it is asked for. With
TRITON_INTERPRET=1 in the environment before that, Triton runs the kernel on a CPU, by NumPy.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from planet_rssm.world_model.networks import RMS_EPS

ROWS = tl.constexpr(16)  # sequences of a program, the fewest that a product of Triton takes
TILE = tl.constexpr(64)  # columns, and inputs, of a weight that a product reads at once
PAIRS = tl.constexpr(64)  # of a sequence and a categorical variable, that are drawn at once
WARPS = 8
# Triton's interpreter calculates with the bits of bfloat16 numbers (3.7.1).
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
ROOT_EPS = tl.constexpr(RMS_EPS)
LAYER_EPS = tl.constexpr(1e-3)  # as `normalised` and `NormGRUCell` have it


class Part(NamedTuple):
    """A part of a step: what it reads and writes, as columns of a sequence's row.

    `layer` reads `size` columns at `one` joined with `other` at `two`, and writes `outputs` at
    `to`. Each of several `blocks` reads and writes as many, its own at `one` and `to`, but all read
    `two`. The gates at `one` advance deter: `gru` has PyTorch's of x and of deter, `gated`
    DreamerV2's and V3's. `gaussian` and `categorical` draw the sample from the prior's output at
    `one`.
    """

    kind: str
    one: int
    size: int = 0
    two: int = 0
    other: int = 0
    to: int = 0
    outputs: int = 0
    blocks: int = 1
    act: str = "none"  # or relu, elu, silu
    norm: str = "none"  # or rms, layer
    scale: Tensor | None = None  # of the norm
    shift: Tensor | None = None  # of a layer norm
    weight: Tensor | None = None  # [outputs, inputs]
    bias: Tensor | None = None
    by_inputs: bool = False  # the weight is [blocks, inputs, outputs]


class Program(NamedTuple):
    """What a step does, and where in a row of `numbers` columns the actions are read to.

    A row begins with deter and stoch.
    """

    parts: tuple[Part, ...]
    deter: int  # sizes
    stoch: int
    noise: int
    numbers: int
    actions: int  # their first column
    bounded: bool  # actions beyond [-1, 1] are scaled into it
    reward: int | None  # its column, if it is predicted
    classes: int = 0  # of a categorical variable
    unimix: float = 0.0
    min_std: float = 0.0  # of a Gaussian
    std: str = "softplus"  # or sigmoid2
    mean: str = "none"  # or tanh5


def follow(
    program: Program, deter: Tensor, stoch: Tensor, actions: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Follow M sequences in one launch, M / B from each state.

    Args:
        program: the model's, on the device of everything else.
        deter: float32 [B, D].
        stoch: float32 [B, S].
        actions: float32 [M, H, A].
        noise: standard normal, float32 [M, H, noise]; None takes modes.

    Returns:
        The states reached, float32 [M, H, D + S], and their rewards [M, H]; None where the program
        predicts none.
    """
    many, horizon, size = actions.shape
    groups = triton.cdiv(many, ROWS.value)
    reached = actions.new_empty(many, horizon, program.deter + program.stoch)
    rewards = None if program.reward is None else actions.new_empty(many, horizon)
    _rollout[(groups,)](
        deter.contiguous(), stoch.contiguous(), actions.contiguous(),
        None if noise is None else noise.contiguous(), reached, rewards,
        actions.new_empty(groups * ROWS.value, program.numbers),
        tuple(map(_argument, program.parts)), many, many // len(deter), horizon, program.min_std,
        program.unimix, program.deter, program.stoch, size, program.noise, program.numbers,
        program.actions, program.bounded, program.reward, program.classes,
        triton.next_power_of_2(max(program.classes, 1)), program.std, program.mean,
        num_warps=WARPS,
    )  # fmt: skip
    return reached, rewards


def _argument(part: Part) -> Part:
    """Return a part as the kernel takes it: all but tensors are known when it is compiled."""
    fixed = (isinstance(value, Tensor) or value is None for value in part)
    values = zip(part, fixed, strict=True)
    return Part._make(value if runs else tl.constexpr(value) for value, runs in values)


@triton.jit
def _rollout(
    deter_start: tl.tensor,
    stoch_start: tl.tensor,
    actions: tl.tensor,
    noise: tl.tensor,
    reached: tl.tensor,
    rewards: tl.tensor,
    scratch: tl.tensor,
    parts: tl.tensor,
    many: tl.tensor,
    candidates: tl.tensor,
    horizon: tl.tensor,
    min_std: tl.tensor,
    unimix: tl.tensor,
    deter: tl.constexpr,
    stoch: tl.constexpr,
    action: tl.constexpr,
    drawn: tl.constexpr,
    numbers: tl.constexpr,
    taken: tl.constexpr,
    bounded: tl.constexpr,
    reward: tl.constexpr,
    classes: tl.constexpr,
    lanes: tl.constexpr,
    std: tl.constexpr,
    mean: tl.constexpr,
) -> None:
    first = tl.program_id(0).to(tl.int64) * ROWS
    place = first + tl.arange(0, ROWS)[:, None]
    # Those beyond the last repeat it: they write what it writes.
    sequence = tl.minimum(place, many - 1)
    row = scratch + place * numbers
    start = sequence // candidates
    _copy(deter_start + start * deter, row, deter, False)
    _copy(stoch_start + start * stoch, row + deter, stoch, False)
    for step in range(horizon):
        at = sequence * horizon + step
        _copy(actions + at * action, row + taken, action, bounded)
        tl.debug_barrier()
        for i in tl.static_range(len(parts)):
            if parts[i].kind == "layer":
                _layer(row, parts[i])
            elif parts[i].kind == "gru":
                _gru(row, row + parts[i].one, deter)
            elif parts[i].kind == "gated":
                _gated(row, row + parts[i].one, deter // parts[i].blocks, parts[i].blocks)
            elif parts[i].kind == "gaussian":
                raw = row + parts[i].one
                _gaussian(row + deter, raw, noise, at * drawn, stoch, min_std, std, mean)
            else:
                rows = scratch + first * numbers
                _categorical(
                    rows + deter, rows + parts[i].one, noise, first, many, horizon, step, unimix,
                    numbers, drawn, classes, lanes,
                )  # fmt: skip
            tl.debug_barrier()
        _copy(row, reached + at * (deter + stoch), deter + stoch, False)
        if reward is not None:
            tl.store(rewards + at, tl.load(row + reward))


@triton.jit
def _copy(source: tl.tensor, to: tl.tensor, size: tl.constexpr, bounded: tl.constexpr) -> None:
    for begin in range(0, size, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        x = tl.load(source + columns, mask=columns < size, other=0.0)
        if bounded:
            x = x / tl.where(tl.abs(x) > 1, tl.abs(x), 1.0)
        tl.store(to + columns, x, mask=columns < size)


@triton.jit
def _layer(row: tl.tensor, part: tl.tensor) -> None:
    """Write act(norm(weight [one, two] + bias))."""
    inputs: tl.constexpr = part.size + part.other
    outputs: tl.constexpr = part.outputs
    stride: tl.constexpr = part.outputs if part.by_inputs else 1  # from input to input
    step: tl.constexpr = 1 if part.by_inputs else part.size + part.other  # from output to output
    to = row + part.to
    for block in range(part.blocks):
        for begin in range(0, outputs, TILE):
            columns = begin + tl.arange(0, TILE)[None, :]
            inside = columns < outputs
            weight = part.weight + block * (inputs * outputs) + columns * step
            total = tl.zeros([ROWS, TILE], tl.float32)
            one = row + part.one + block * part.size
            total = _product(total, one, part.size, weight, stride, inside)
            if part.other:
                two = row + part.two
                total = _product(
                    total, two, part.other, weight + part.size * stride, stride, inside
                )
            place = block * outputs + columns
            if part.bias is not None:
                total += tl.load(part.bias + place, mask=inside, other=0.0)
            if part.norm == "none":
                total = _activated(total, part.act)
            tl.store(to + place, total, mask=inside)
    if part.norm != "none":
        tl.debug_barrier()
        _normalise(to, part, outputs * part.blocks, part.norm, part.act)


@triton.jit
def _product(
    total: tl.tensor,
    x: tl.tensor,
    size: tl.constexpr,
    weight: tl.tensor,
    stride: tl.constexpr,
    wanted: tl.tensor,
) -> tl.tensor:
    """Add x [ROWS, size] times the weight's columns [size, TILE], which begin at `weight`."""
    for begin in range(0, size, TILE):
        places = begin + tl.arange(0, TILE)
        left = tl.load(x + places[None, :], mask=(places < size)[None, :], other=0.0)
        inside = (places < size)[:, None] & wanted
        right = tl.load(weight + places[:, None] * stride, mask=inside, other=0.0)
        left = left.to(right.dtype)
        if INTERPRETED:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


@triton.jit
def _normalise(
    x: tl.tensor, part: tl.tensor, size: tl.constexpr, norm: tl.constexpr, act: tl.constexpr
) -> None:
    """Normalise x [ROWS, size] in place, and activate it."""
    mean = tl.zeros([ROWS, 1], tl.float32)
    if norm == "layer":
        for begin in range(0, size, TILE):
            columns = begin + tl.arange(0, TILE)[None, :]
            value = tl.load(x + columns, mask=columns < size, other=0.0)
            mean += tl.sum(value, 1, keep_dims=True) / size
    square = tl.zeros([ROWS, 1], tl.float32)
    for begin in range(0, size, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        value = tl.load(x + columns, mask=columns < size, other=0.0) - mean
        value = tl.where(columns < size, value, 0.0)
        square += tl.sum(value * value, 1, keep_dims=True) / size
    scale = 1 / tl.sqrt(square + (LAYER_EPS if norm == "layer" else ROOT_EPS))
    tl.debug_barrier()
    for begin in range(0, size, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        inside = columns < size
        value = (tl.load(x + columns, mask=inside, other=0.0) - mean) * scale
        value *= tl.load(part.scale + columns, mask=inside, other=0.0)
        if part.shift is not None:
            value += tl.load(part.shift + columns, mask=inside, other=0.0)
        tl.store(x + columns, _activated(value, act), mask=inside)


@triton.jit
def _gru(deter: tl.tensor, gates: tl.tensor, size: tl.constexpr) -> None:
    """Advance deter by PyTorch's gates [ROWS, 6 size]: those of x, then those of deter."""
    for begin in range(0, size, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        inside = columns < size
        x, h = gates + columns, gates + 3 * size + columns
        reset = tl.sigmoid(tl.load(x, mask=inside, other=0.0) + tl.load(h, mask=inside, other=0.0))
        update = tl.load(x + size, mask=inside, other=0.0)
        update = tl.sigmoid(update + tl.load(h + size, mask=inside, other=0.0))
        candidate = reset * tl.load(h + 2 * size, mask=inside, other=0.0)
        candidate = _tanh(tl.load(x + 2 * size, mask=inside, other=0.0) + candidate)
        before = tl.load(deter + columns, mask=inside, other=0.0)
        tl.store(deter + columns, candidate + update * (before - candidate), mask=inside)


@triton.jit
def _gated(deter: tl.tensor, gates: tl.tensor, size: tl.constexpr, blocks: tl.constexpr) -> None:
    """Advance deter by the gates of `cells.gated`, [ROWS, 3 size] of each block."""
    for begin in range(0, size * blocks, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        inside = columns < size * blocks
        gate = gates + columns // size * (3 * size) + columns % size
        candidate = tl.load(gate + size, mask=inside, other=0.0)
        candidate = _tanh(tl.sigmoid(tl.load(gate, mask=inside, other=0.0)) * candidate)
        update = tl.sigmoid(tl.load(gate + 2 * size, mask=inside, other=0.0) - 1)
        before = tl.load(deter + columns, mask=inside, other=0.0)
        tl.store(deter + columns, update * candidate + (1 - update) * before, mask=inside)


@triton.jit
def _gaussian(
    stoch: tl.tensor,
    raw: tl.tensor,
    noise: tl.tensor,
    at: tl.tensor,
    size: tl.constexpr,
    min_std: tl.tensor,
    std: tl.constexpr,
    mean: tl.constexpr,
) -> None:
    """Draw as `GaussianLatent` does, from means and spreads [ROWS, 2 size]."""
    for begin in range(0, size, TILE):
        columns = begin + tl.arange(0, TILE)[None, :]
        inside = columns < size
        value = tl.load(raw + columns, mask=inside, other=0.0)
        if mean == "tanh5":
            value = 5 * _tanh(value / 5)
        if noise is not None:
            spread = tl.load(raw + size + columns, mask=inside, other=0.0)
            if std == "sigmoid2":
                spread = 2 * tl.sigmoid(spread / 2)
            else:
                spread = _softplus(spread)
            value += (spread + min_std) * tl.load(noise + at + columns, mask=inside, other=0.0)
        tl.store(stoch + columns, value, mask=inside)


@triton.jit
def _categorical(
    stoch: tl.tensor,
    raw: tl.tensor,
    noise: tl.tensor,
    first: tl.tensor,
    many: tl.tensor,
    horizon: tl.tensor,
    step: tl.tensor,
    unimix: tl.tensor,
    numbers: tl.constexpr,
    groups: tl.constexpr,
    classes: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Draw as `CategoricalLatent.pick` does, for each sequence and variable, a pair, by itself."""
    kinds = tl.arange(0, lanes)[None, :]
    for begin in range(0, ROWS * groups, PAIRS):
        pair = begin + tl.arange(0, PAIRS)[:, None]
        wanted = pair < ROWS * groups
        own, group = pair // groups, pair % groups
        place = own * numbers + group * classes + kinds
        inside = wanted & (kinds < classes)
        logits = tl.load(raw + place, mask=inside, other=float("-inf"))
        logits = tl.where(wanted, logits, 0.0)  # no infinity less another
        probs = tl.exp(logits - tl.max(logits, 1, keep_dims=True))
        probs = probs / tl.sum(probs, 1, keep_dims=True)
        if noise is None:
            chosen = tl.argmax(tl.where(kinds < classes, probs, -1.0), 1, keep_dims=True)
        else:
            at = tl.minimum(first + own, many - 1) * horizon + step
            draw = tl.load(noise + at * groups + group, mask=wanted, other=0.0)
            draw = 0.5 + 0.5 * tl.erf(draw * 0.7071067811865476)
            below = tl.cumsum(probs, 1) * (1 - unimix) + (kinds + 1) * (unimix / classes)
            passed = (below < draw) & (kinds < classes - 1)
            chosen = tl.sum(passed.to(tl.int32), 1, keep_dims=True)
        one_hot = (kinds == chosen).to(tl.float32)
        broken = probs != probs  # where one class is NaN all are
        tl.store(stoch + place, tl.where(broken, probs, one_hot), mask=inside)


@triton.jit
def _activated(x: tl.tensor, act: tl.constexpr) -> tl.tensor:
    if act == "relu":
        x = tl.where(x < 0, 0.0, x)  # a maximum would lose a NaN
    elif act == "elu":
        x = tl.where(x > 0, x, tl.exp(tl.where(x > 0, 0.0, x)) - 1)
    elif act == "silu":
        x = x * tl.sigmoid(x)
    return x


@triton.jit
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _softplus(x: tl.tensor) -> tl.tensor:
    return tl.where(x < 0, 0.0, x) + tl.log(1 + tl.exp(-tl.abs(x)))
