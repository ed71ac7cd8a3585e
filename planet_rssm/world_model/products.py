"""Matrix products in float32 by what takes the least time on this processor.

PyTorch's own are MKL's, which on AMD processors leaves half of AVX-512 unused: oneDNN's take 0.45
of their time there, forward and backward. With AVX2 alone both take as long, and PyTorch's are
used. The choice depends on nothing but the processor and the shape: equal runs stay equal.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from planet_rssm.world_model.plain import is_plain

LEAST = 2**20  # multiplications, below which the way to oneDNN takes longer than is gained


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of `x` [M, I] and `weight` [O, I], either may be a transposed view.

    Without a gradient where oneDNN makes it.
    """
    if _by_onednn(x, weight):
        operands = _dense(x), _dense(weight), bias
        made: Tensor = torch.ops.mkldnn._linear_pointwise(*operands, "none", [], "")
        return made
    return nn.functional.linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of `x` [*B, I] and `weight` [O, I], with PyTorch's gradient up to rounding.

    It has a first derivative alone where oneDNN makes it.
    """
    rows = x.reshape(-1, x.shape[-1])
    if not _by_onednn(rows, weight):
        return nn.functional.linear(x, weight, bias)
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


def _dense(matrix: Tensor) -> Tensor:
    """Return a matrix whose rows or columns follow each other; of others oneDNN takes seconds."""
    return matrix if matrix.t().is_contiguous() else matrix.contiguous()


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LEAST
        and not torch.is_autocast_enabled("cpu")
        and _pays()
        and not is_plain()
    )


@functools.cache
def _pays() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
