"""One imagined step on packed weights: a recurrent core, and the prior that reads its deter.

A step is made of two calls: `first` or `forward` advance deter, `raw` gives the prior's output.
What both read of a new deter is `shared`: it is computed once and passed from one to the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from planet_rssm.types import State
from planet_rssm.world_model.cells import GRUCore, TFGRUCell
from planet_rssm.world_model.latents import Sample
from planet_rssm.world_model.packed_layers import PackedJoint, PackedLinear, pack, pack_joint
from planet_rssm.world_model.tanh import tanh_

if TYPE_CHECKING:
    from planet_rssm.world_model.rssm import RSSM


class PackedStep(nn.Module, ABC):
    """A core and its prior, in the form that is fastest for the core."""

    def read(self, actions: Tensor) -> Tensor:
        """Return what a step reads of actions [M, A], which may be those of all steps. Here all."""
        return actions

    @abstractmethod
    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Return the next deter [M, D] and `shared`, for M / B rows of `action` a row of `state`.

        `action` is what `read` returned.

        After the `last` step only the prior reads `shared`.
        """

    @abstractmethod
    def forward(
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the same for M rows of everything, after a step that returned these."""

    @abstractmethod
    def raw(self, shared: Tensor) -> Tensor:
        """Return the prior's raw parameters [M, raw_size]."""


PLAIN = nn.GRUCell | TFGRUCell  # cells whose gates have no norm, which `FusedStep` takes apart


class FusedStep(PackedStep):
    """A `GRUCore` with one of the PLAIN cells, and the prior, whose first layer reads its deter.

    One product of a new deter makes that layer and the hidden gates of the next step, and one
    product of x makes all its gates: with few rows a product takes little longer than one of half
    its size. The first of these is `shared`, with the prior's layer as its last columns. A call
    takes B rows of deter and of `shared` and M of actions: in the first step M / B rows have a
    deter in common, later M is B.

    A CUDA device has a kernel for a GRU's gates. There the actions' part of x is made for all steps
    at once, and the sample's is added to it by the product.
    """

    def __init__(self, core: GRUCore, prior: nn.Sequential, stoch: int, dtype: torch.dtype) -> None:
        """Take a core with a layer before its cell; `stoch` is the size of a latent sample."""
        super().__init__()
        self.depth = core.depth
        self.dtype = dtype
        cell = core.cell
        assert isinstance(cell, PLAIN)
        joint, *rest = pack_joint(core.inputs, slice(0, stoch), dtype)
        assert isinstance(joint, PackedJoint)
        self.joint = joint
        self.inputs = nn.Sequential(*rest) if rest else None
        first, *after = prior
        assert isinstance(first, nn.Linear)
        self.prior_size = first.out_features
        self.of_last = PackedLinear(first.weight, first.bias, dtype)
        of_x, of_deter, of_reset = _parts(cell)
        self.of_x = PackedLinear(of_x[0], of_x[1], dtype)
        weight = torch.cat([of_deter[0], first.weight])
        bias = torch.cat([of_deter[1], first.bias])
        self.of_deter = PackedLinear(weight, bias, dtype)
        self.of_reset = None if of_reset is None else PackedLinear(of_reset, None, dtype)
        self.tanh = Tensor.tanh_ if first.weight.is_cuda else tanh_
        self.reads_ahead = first.weight.is_cuda
        self.has_kernel = first.weight.is_cuda and of_reset is None
        self.prior = pack(nn.Sequential(*after), dtype)

    def read(self, actions: Tensor) -> Tensor:  # noqa: D102
        return self.joint.of_rest(actions) if self.reads_ahead else actions

    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        deter = state.deter.to(self.dtype)
        part = action if self.reads_ahead else self.joint.of_rest(action)
        return self._repeat(self.joint.first(part, state.stoch), deter, self.of_deter(deter), last)

    def forward(  # noqa: D102
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        joint = self.joint
        x = joint.onto(action, sample) if self.reads_ahead else joint((action, sample))
        return self._repeat(x, deter, shared, last)

    def raw(self, shared: Tensor) -> Tensor:  # noqa: D102
        return self.prior(shared[:, -self.prior_size :])

    def _repeat(
        self, x: Tensor, deter: Tensor, shared: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        x = x if self.inputs is None else self.inputs(x)
        inputs = self.of_x(x)
        for left in reversed(range(self.depth)):
            if self.has_kernel:
                deter = _gru_by_kernel(inputs, shared, deter)
            else:
                deter = gru(inputs, shared, deter, self.tanh, self.of_reset)
            shared = self.of_last(deter) if last and not left else self.of_deter(deter)
        return deter, shared


def _parts(cell: PLAIN) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor | None]:
    """Return weight and bias of all gates: for x, for deter, and the weight after the reset.

    The last multiplies what the reset leaves of deter; None where nothing does.
    """
    if isinstance(cell, nn.GRUCell):
        return (cell.weight_ih, cell.bias_ih), (cell.weight_hh, cell.bias_hh), None
    inputs, biases = cell.input_size, torch.cat([cell.gates.bias + 1, cell.candidate.bias])
    of_x = torch.cat([cell.gates.weight[:, :inputs], cell.candidate.weight[:, :inputs]])
    return (
        (of_x, biases),
        (cell.gates.weight[:, inputs:], torch.zeros_like(cell.gates.bias)),
        (cell.candidate.weight[:, inputs:]),
    )


def gru(
    inputs: Tensor,
    hidden: Tensor,
    deter: Tensor,
    tanh: Callable[[Tensor], Tensor] = Tensor.tanh_,
    of_reset: nn.Module | None = None,
) -> Tensor:
    """Return n + z (h - n) [M, D], the next h of a GRU whose products are computed already.

    Args:
        inputs: [M, 3 D], the gates' part of x, in nn.GRUCell's order: reset, update z, candidate n.
        hidden: [B, 3 D..], the gates' part of h; columns after these are not read.
        deter: h [B, D]; M / B rows have one in common.
        tanh: may work in place.
        of_reset: multiplies what the reset leaves of h; then `hidden` [B, 2 D..] has no candidate.
    """
    size = deter.shape[1]
    rows, width = hidden.shape
    if rows != inputs.shape[0]:
        inputs, hidden, deter = inputs.view(rows, -1, 3 * size), hidden[:, None], deter[:, None]
    both, of_x = torch.split_with_sizes(inputs, [2 * size, size], -1)
    if of_reset is not None:
        reset, update = (both + hidden[..., : 2 * size]).sigmoid_().chunk(2, -1)
        left = of_reset((reset * deter).view(-1, size)).view_as(of_x)
        return torch.lerp(tanh(left.add_(of_x)), deter, update).view(-1, size)
    other, of_deter, _ = torch.split_with_sizes(hidden, [2 * size, size, width - 3 * size], -1)
    reset, update = (both + other).sigmoid_().chunk(2, -1)
    return torch.lerp(tanh(torch.addcmul(of_x, reset, of_deter)), deter, update).view(-1, size)


def _gru_by_kernel(inputs: Tensor, hidden: Tensor, deter: Tensor) -> Tensor:
    """Return what `gru` does, in one launch of a CUDA device but for the first step's."""
    many = len(inputs) // len(deter)
    if len(deter) == 1:  # no copies
        hidden, deter = hidden.expand(many, -1), deter.expand(many, -1)
    elif many > 1:
        hidden, deter = hidden.repeat_interleave(many, 0), deter.repeat_interleave(many, 0)
    gates = hidden[:, : 3 * deter.shape[1]]
    return torch.ops.aten._thnn_fused_gru_cell(inputs, gates, deter)[0]


class PlainStep(PackedStep):
    """Any other core, as it is: all that is shared is deter itself."""

    def __init__(self, core: nn.Module, prior: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.core = pack(core, dtype)
        self.prior = pack(prior, dtype)

    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        many = len(action) // len(state.deter)
        deter, stoch = (part.repeat_interleave(many, 0) for part in state)
        return self._advance(deter, stoch, action)

    def forward(  # noqa: D102
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        return self._advance(deter, sample.vector(), action)

    def raw(self, shared: Tensor) -> Tensor:  # noqa: D102
        return self.prior(shared)

    def _advance(self, deter: Tensor, stoch: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        deter = self.core(deter.to(self.dtype), stoch.to(self.dtype), action)
        return deter, deter


def packed_step(rssm: "RSSM", dtype: torch.dtype) -> PackedStep:
    """Return the fastest step of this model's core."""
    core = rssm.core
    if isinstance(core, GRUCore) and isinstance(core.cell, PLAIN) and len(core.inputs) > 0:
        return FusedStep(core, rssm.prior_net, rssm.stoch_size, dtype)
    return PlainStep(core, rssm.prior_net, dtype)
