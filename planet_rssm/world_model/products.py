"""Matrix products in float32 by what takes the least time on this processor.

PyTorch's own are MKL's, which on AMD processors leaves half of AVX-512 unused: oneDNN's take 0.45
of their time there, forward and backward. With AVX2 alone both take as long, and PyTorch's are
used. The choice depends on nothing but the processor and the shape: equal runs stay equal.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from planet_rssm.world_model.plain import is_plain

LEAST = 2**20  # multiplications, below which the way to oneDNN takes longer than is gained


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def fastest(rows: int, weight: Tensor) -> Product:
    """Return what makes x W^T + b of dense `x` [rows, I] and `weight` [O, I] in the least time.

    For many products of one shape: it adds no Python of its own. Without a gradient where oneDNN
    makes it.
    """
    plain = (
        rows * weight.numel() < LEAST
        or (weight.device.type, weight.dtype) != ("cpu", torch.float32)
        or torch.is_autocast_enabled("cpu")
        or not pays()
        or is_plain()
    )
    if plain:
        return nn.functional.linear
    by_onednn = torch.ops.mkldnn._linear_pointwise
    return functools.partial(by_onednn, attr="none", scalars=[], algorithm="")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of `x` [M, I] and `weight` [O, I], either may be a transposed view.

    Without a gradient where oneDNN makes it.
    """
    made = fastest(len(x), weight)
    if made is not nn.functional.linear:  # which reads any view
        x, weight = dense(x), dense(weight)
    return made(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of `x` [*B, I] and `weight` [O, I], with PyTorch's gradient up to rounding.

    It has a first derivative alone where oneDNN makes it.
    """
    plain = (
        x.numel() * len(weight) < LEAST
        or (x.device.type, x.dtype) != ("cpu", torch.float32)
        or torch.is_autocast_enabled("cpu")
        or not pays()
        or is_plain()
    )
    if plain:
        return nn.functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    made: Tensor = _Linear.apply(rows, weight, bias)
    return made.view(*x.shape[:-1], made.shape[-1])


class Linear(nn.Linear):
    """A linear layer [*B, inputs] to [*B, outputs] by `linear`."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if of_x else None,
            product(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def dense(matrix: Tensor) -> Tensor:
    """Return a matrix whose rows or columns follow each other; of others oneDNN takes seconds."""
    return matrix if matrix.t().is_contiguous() else matrix.contiguous()


@functools.cache
def pays() -> bool:
    """Return whether oneDNN's products in float32 take less time than PyTorch's on this CPU."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
