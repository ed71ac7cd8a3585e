"""A recurrence whose weights each get their gradient from one product over all steps.

Autograd makes the gradient of a weight anew at every step, from the few rows of that step, and adds
these up: of T steps T small products and T - 1 sums as large as the weight. Here a product inside
the recurrence keeps its inputs [M, I] and the gradients [M, O] of its outputs instead, and the
weight's gradient is one product of all T * M rows. The numbers are autograd's up to the order of
summation.

    with gathered(self.core, self.posterior_net):
        for t in range(steps):
            ...                      # every linear layer and GRU cell inside the modules takes part
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from planet_rssm.world_model.plain import is_plain
from planet_rssm.world_model.products import linear, product
from planet_rssm.world_model.tanh import tanh_

Product = Callable[[Tensor], Tensor]  # x [M, I] to [M, O]


@dataclass
class _Rows:
    """What the steps of one backward pass leave for a weight's gradient."""

    _task: int = -1
    _pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Keep the rows of a step."""
        task = torch._C._current_graph_task_id()
        if task != self._task:  # an earlier pass asked for no gradient of the weight
            self._task, self._pairs = task, []
        self._pairs.append((x, gradient))

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Return inputs [T * M, I] and gradients [T * M, O] of this pass, and forget them."""
        pairs, self._pairs = self._pairs, []
        if not pairs or self._task != torch._C._current_graph_task_id():
            return None
        inputs, gradients = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return inputs, gradients


class _Gate(torch.autograd.Function):
    """The weight as the steps use it; its gradient is made when every step has left its rows."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        weight: Tensor,
        bias: Tensor | None,
        rows: _Rows,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.rows = rows
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), None if bias is None else bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        rows = ctx.rows.take()
        if rows is None:
            return None, None, None
        inputs, outputs = rows
        of_bias = outputs.sum(0) if ctx.needs_input_grad[1] else None
        return product(outputs.t(), inputs.t()), of_bias, None


class _Product(torch.autograd.Function):
    """x [M, I] times the weight, plus the bias. Only x gets its gradient at once."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        weight: Tensor,
        bias: Tensor | None,
        rows: _Rows,
        x: Tensor,
    ) -> Tensor:
        ctx.rows = rows
        ctx.dtype = x.dtype
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, Tensor | None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        ctx.rows.add(x, gradient)
        of_x = product(gradient, weight.t()).to(ctx.dtype) if ctx.needs_input_grad[3] else None
        return None, None, None, of_x


def gathered_linear(weight: Tensor, bias: Tensor | None) -> Product:
    """Return x -> x W^T + b, [M, I] to [M, O], with W's gradient gathered over many calls.

    A weight that asks for no gradient is only brought to the precision of the autocast. On the
    plain path autograd has it all.
    """
    if is_plain():
        return functools.partial(linear, weight=weight, bias=bias)
    device = weight.device.type
    if torch.is_autocast_enabled(device):  # once, where autocast would do so at every step
        dtype = torch.get_autocast_dtype(device)
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    if not weight.requires_grad:
        return functools.partial(linear, weight=weight, bias=bias)
    rows = _Rows()
    return functools.partial(_Product.apply, *_Gate.apply(weight, bias, rows), rows)


class _Gates(torch.autograd.Function):
    """The next deter [M, D] of the gates' parts of x and of deter, both [M, 3 D], in one step.

    r, z = sig(inputs + hidden); n = tanh(inputs + r hidden); h' = n + z (h - n), in the order reset
    r, update z, candidate n (Cho et al. 2014, arXiv 1406.1078, as nn.GRUCell). All are of one type.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, deter: Tensor) -> Tensor:  # noqa: ANN401
        size = deter.shape[-1]
        both = inputs[:, : 2 * size] + hidden[:, : 2 * size]
        reset, update = both.sigmoid_().split(size, -1)
        left = hidden[:, 2 * size :]
        candidate = tanh_(torch.addcmul(inputs[:, 2 * size :], reset, left))
        change = deter - candidate
        ctx.save_for_backward(reset, update, candidate, change, left)
        return torch.addcmul(candidate, update, change)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        reset, update, candidate, change, left = ctx.saved_tensors
        size = gradient.shape[-1]
        of_deter = gradient * update
        of_inputs = gradient.new_empty(len(gradient), 3 * size)
        of_reset, of_update, of_candidate = of_inputs.split(size, -1)
        torch.mul(gradient - of_deter, 1 - candidate.square(), out=of_candidate)
        torch.mul(of_deter * change, 1 - update, out=of_update)
        torch.mul(of_candidate * left, reset * (1 - reset), out=of_reset)
        of_hidden = of_inputs.clone()
        of_hidden[:, 2 * size :] *= reset
        return of_inputs, of_hidden, of_deter


@contextlib.contextmanager
def gathered(*modules: nn.Module) -> Iterator[None]:
    """Gather the weights' gradients of all linear layers and GRU cells in `modules` until the end.

    For the forward pass of a loss: without gradients there is nothing to gather. Of modules whose
    weights ask for none, an autocast would cast these anew at every step; here it does so once.
    """
    changed: list[nn.Module] = []
    try:
        for part in (part for module in modules for part in module.modules()):
            if not _takes_part(part):
                continue
            call: Callable[..., Tensor]
            if isinstance(part, nn.Linear):
                call = gathered_linear(part.weight, part.bias)
            else:
                of_x = gathered_linear(part.weight_ih, part.bias_ih)
                of_deter = gathered_linear(part.weight_hh, part.bias_hh)
                call = functools.partial(_cell, of_x, of_deter)
            part.__dict__["forward"] = call
            changed.append(part)
        yield
    finally:
        for part in changed:
            del part.forward  # the class's own again


def _takes_part(part: nn.Module) -> TypeGuard[nn.Linear | nn.GRUCell]:
    return isinstance(part, nn.Linear | nn.GRUCell) and not is_plain()


def _cell(of_x: Product, of_deter: Product, x: Tensor, deter: Tensor) -> Tensor:
    kind = deter.dtype
    return _Gates.apply(of_x(x).to(kind), of_deter(deter).to(kind), deter)
