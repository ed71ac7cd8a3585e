"""Every recurrent core beside the formulas of its paper, written in plain NumPy, in float64.

The references know the weights' names and nothing else of the code; `W x + b` throughout, blocks
one by one in a loop.
"""

import numpy as np
import pytest
import torch
from torch import nn

from planet_rssm.config import RSSMSettings
from planet_rssm.world_model.cells import core_from_settings

B, S, A, D, H = 3, 6, 2, 16, 5
Weights = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ACTS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "silu": lambda x: x * sigmoid(x),
}


def rms(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4)


def layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return scale * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) + shift


def made(settings: RSSMSettings) -> tuple[nn.Module, Weights, list[np.ndarray]]:
    """A core of random parameters, its weights, and random deter, stoch and (beyond 1) action."""
    rng = torch.Generator().manual_seed(0)
    core = core_from_settings(settings, S, A).double()
    for parameter in core.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng, dtype=torch.float64) * 0.7
    inputs = [torch.randn(B, n, generator=rng, dtype=torch.float64) for n in (D, S, A)]
    inputs[2] *= 3
    weights = {name: parameter.detach().numpy() for name, parameter in core.named_parameters()}
    return core, weights, [x.numpy() for x in inputs]


def check(core: nn.Module, inputs: list[np.ndarray], expected: np.ndarray) -> None:
    with torch.no_grad():
        result = core(*(torch.from_numpy(x) for x in inputs)).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2])
def test_plain_gru_after_a_dense_layer(depth: int) -> None:
    """PlaNet: x = relu(W [z, a]); r, z = sig, n = tanh(W x + r (U h)), h' = (1 - z) n + z h.

    The gates are in torch's order.
    """
    core, w, inputs = made(RSSMSettings(deter=D, hidden=H, recurrent_depth=depth))
    h, z, a = inputs
    x = ACTS["relu"](np.concatenate([z, a], -1) @ w["inputs.0.weight"].T + w["inputs.0.bias"])
    for _ in range(depth):
        of_x = np.split(x @ w["cell.weight_ih"].T + w["cell.bias_ih"], 3, -1)
        of_h = np.split(h @ w["cell.weight_hh"].T + w["cell.bias_hh"], 3, -1)
        reset, update = sigmoid(of_x[0] + of_h[0]), sigmoid(of_x[1] + of_h[1])
        h = (1 - update) * np.tanh(of_x[2] + reset * of_h[2]) + update * h
    check(core, inputs, h)


@pytest.mark.parametrize("depth", [1, 2])
def test_layer_norm_gru(depth: int) -> None:
    """DreamerV2: parts = LN(W [x, h]); c = tanh(sig(reset) cand); u = sig(update - 1).

    h' = u c + (1 - u) h.
    """
    core, w, inputs = made(
        RSSMSettings(
            deter=D, hidden=H, cell="norm_gru", act="elu", norm="layer", recurrent_depth=depth
        )
    )
    h, z, a = inputs
    x = np.concatenate([z, a], -1) @ w["inputs.0.weight"].T + w["inputs.0.bias"]
    x = ACTS["elu"](layer_norm(x, w["inputs.1.weight"], w["inputs.1.bias"]))
    for _ in range(depth):
        parts = layer_norm(
            np.concatenate([x, h], -1) @ w["cell.linear.weight"].T,
            w["cell.norm.weight"],
            w["cell.norm.bias"],
        )
        reset, candidate, update = np.split(parts, 3, -1)
        u = sigmoid(update - 1)
        h = u * np.tanh(sigmoid(reset) * candidate) + (1 - u) * h
    check(core, inputs, h)


@pytest.mark.parametrize("depth", [1, 2])
def test_tensorflows_gru(depth: int) -> None:
    """GRUBlockCell: r, u = split(sig(W [x, h] + b + 1)); c = tanh(V [x, r h] + d).

    h' = u h + (1 - u) c.
    """
    core, w, inputs = made(RSSMSettings(deter=D, hidden=H, cell="tf_gru", recurrent_depth=depth))
    h, z, a = inputs
    x = ACTS["relu"](np.concatenate([z, a], -1) @ w["inputs.0.weight"].T + w["inputs.0.bias"])
    for _ in range(depth):
        gates = np.concatenate([x, h], -1) @ w["cell.gates.weight"].T + w["cell.gates.bias"] + 1
        r, u = np.split(sigmoid(gates), 2, -1)
        c = np.tanh(
            np.concatenate([x, r * h], -1) @ w["cell.candidate.weight"].T + w["cell.candidate.bias"]
        )
        h = u * h + (1 - u) * c
    check(core, inputs, h)


def test_tensorflows_gru_begins_with_the_bias_of_its_gates_beside_a_one() -> None:
    core = core_from_settings(RSSMSettings(deter=D, hidden=H, cell="tf_gru"), S, A)
    assert not core.cell.gates.bias.any() and not core.cell.candidate.bias.any()


def block_gru_step(
    w: Weights, h: np.ndarray, z: np.ndarray, a: np.ndarray, blocks: int, layers: int
) -> np.ndarray:
    """DreamerV3: one step, a block at a time; block weights are [blocks, in, out]."""
    a = a / np.maximum(1, np.abs(a))
    projected = [
        ACTS["silu"](
            rms(part @ w[f"projections.{i}.0.weight"].T + w[f"projections.{i}.0.bias"], scale)
        )
        for i, part in enumerate((h, z, a))
        for scale in [w[f"projections.{i}.1.scale"]]
    ]
    size = D // blocks
    ins = [np.concatenate([h[:, g * size : (g + 1) * size], *projected], -1) for g in range(blocks)]
    for layer in range(layers):
        weight, bias = w[f"mixed.{3 * layer}.weight"], w[f"mixed.{3 * layer}.bias"]
        mixed = np.concatenate([x @ weight[g] for g, x in enumerate(ins)], -1) + bias
        ins = np.split(ACTS["silu"](rms(mixed, w[f"mixed.{3 * layer + 1}.scale"])), blocks, -1)
    out = np.zeros_like(h)
    for g in range(blocks):
        gates = ins[g] @ w["gates.weight"][g] + w["gates.bias"][3 * size * g : 3 * size * (g + 1)]
        reset, candidate, update = np.split(gates, 3, -1)
        u = sigmoid(update - 1)
        own = h[:, g * size : (g + 1) * size]
        out[:, g * size : (g + 1) * size] = u * np.tanh(sigmoid(reset) * candidate) + (1 - u) * own
    return out


@pytest.mark.parametrize("blocks", [8, 2, 1])
@pytest.mark.parametrize(("depth", "layers"), [(1, 1), (2, 1), (2, 2), (1, 0)])
def test_block_diagonal_gru(blocks: int, depth: int, layers: int) -> None:
    settings = RSSMSettings(
        deter=D,
        hidden=H,
        blocks=blocks,
        act="silu",
        norm="rms",
        recurrent_depth=depth,
        input_layers=layers,
    )
    core, w, inputs = made(settings)
    h = inputs[0]
    for _ in range(depth):
        h = block_gru_step(w, h, inputs[1], inputs[2], blocks, layers)
    check(core, inputs, h)


def test_block_gru_bounds_actions_without_bounding_their_gradient() -> None:
    """a / stop_gradient(max(1, |a|)): 4 counts as 1, with a quarter of the gradient at 1."""
    core, _, (h, z, _) = made(RSSMSettings(deter=D, hidden=H, blocks=2, act="silu", norm="rms"))
    reached, slopes = [], []
    for size in (1.0, 4.0):
        action = torch.full((B, A), size, dtype=torch.float64, requires_grad=True)
        after = core(torch.from_numpy(h), torch.from_numpy(z), action)
        reached.append(after)
        slopes.append(torch.autograd.grad(after.sum(), action)[0] * size)
    torch.testing.assert_close(reached[0], reached[1])
    torch.testing.assert_close(slopes[0], slopes[1])
    assert slopes[0].abs().min() > 0


@pytest.mark.parametrize("layers", [1, 2])
def test_a_memoryless_core_sees_sample_and_action_alone(layers: int) -> None:
    """PlaNet's stochastic model: dense layers on [z, a], whatever the deterministic state."""
    core, w, inputs = made(RSSMSettings(kind="ssm", deter=D, hidden=H, input_layers=layers))
    x = np.concatenate(inputs[1:], -1)
    for layer in range(layers):
        x = ACTS["relu"](x @ w[f"inputs.{2 * layer}.weight"].T + w[f"inputs.{2 * layer}.bias"])
    check(core, inputs, x)
    check(core, [inputs[0] + 1, *inputs[1:]], x)


@pytest.mark.parametrize("layers", [0, 2])
def test_any_number_of_dense_layers_leads_to_the_cell(layers: int) -> None:
    core, w, inputs = made(RSSMSettings(deter=D, hidden=H, input_layers=layers, act="elu"))
    x = np.concatenate(inputs[1:], -1)
    for layer in range(layers):
        x = ACTS["elu"](x @ w[f"inputs.{2 * layer}.weight"].T + w[f"inputs.{2 * layer}.bias"])
    assert core.cell.input_size == x.shape[-1]
    with torch.no_grad():
        expected = core.cell(torch.from_numpy(x), torch.from_numpy(inputs[0])).numpy()
    check(core, inputs, expected)


@pytest.mark.gpu(numbers=True)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_under_an_autocast_of_cuda_only_the_products_lose_digits():
    core = core_from_settings(RSSMSettings(deter=D, hidden=H), S, A)
    parts = [torch.randn(B, width) for width in (D, S, A)]
    expected = core(*parts)
    with torch.autocast("cuda", torch.bfloat16):
        result = core.cuda()(*(part.cuda() for part in parts))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.cpu(), expected, atol=0.03, rtol=0.03)
    (-result.sum()).backward()
    assert all(parameter.grad is not None for parameter in core.parameters())
