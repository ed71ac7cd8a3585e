"""Networks prepared to run many times without gradients: one precision, laid out for products.

Where oneDNN's products take the least time on a CPU, a packed layer takes its weight in oneDNN's
own blocked layout, with the bias and the activation in the product's last pass. In float32 that is
with AVX-512; with AVX2 alone many rows take as long by MKL, and forty rows 0.8 of oneDNN's time.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear

from planet_rssm.world_model.latents import Sample
from planet_rssm.world_model.networks import BlockLinear, precise
from planet_rssm.world_model.products import pays

# Activations that oneDNN does within the product; its ReLU is not one, for it makes NaN 0.
FUSED: dict[type[nn.Module], str] = {nn.SiLU: "swish"}
ROWS = 1024  # that layouts are chosen for: a thousand candidates


def pack(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of `module` that computes in `dtype`, from inputs of any precision.

    It has no gradients.
    """
    return _packed(copy.deepcopy(module).requires_grad_(False), dtype)


def _packed(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(module, nn.Linear):
        return PackedLinear(module.weight, module.bias, dtype)
    if isinstance(module, BlockLinear):
        return PackedBlockLinear(module, dtype)
    if isinstance(module, nn.GRUCell):
        return module.to(dtype)
    if isinstance(module, nn.LayerNorm):
        return PackedNorm(module)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_fused(list(module), dtype))
    for name, child in module.named_children():
        setattr(module, name, _packed(child, dtype))
    return module


def pack_joint(net: nn.Sequential, sample: slice, dtype: torch.dtype) -> nn.Sequential:
    """Pack a net whose first, linear layer reads a vector joined with a latent sample.

    See `PackedJoint`.
    """
    layers = list(copy.deepcopy(net).requires_grad_(False))
    first = layers[0]
    assert isinstance(first, nn.Linear)
    return nn.Sequential(*_fused([PackedJoint(first, sample, dtype), *layers[1:]], dtype))


def _fused(layers: list[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """Pack the layers of a sequence; where possible an activation joins the product before it."""
    done: list[nn.Module] = []
    for layer in layers:
        before = done[-1] if done else None
        if isinstance(before, PackedLinear | PackedJoint) and before.fuse(type(layer)):
            continue
        done.append(layer if isinstance(layer, PackedJoint) else _packed(layer, dtype))
    return done


def blocked(weight: Tensor) -> Tensor | None:
    """Return `weight` [outputs, inputs] in oneDNN's layout; None where that has no use."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not torch.backends.mkldnn.is_available() or weight.dtype == torch.float32 and not pays():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    except (RuntimeError, AttributeError):  # this processor or build has no such product
        return None


class PackedLinear(nn.Module):
    """A linear layer and its activation, [*B, inputs] to [*B, outputs]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, act: str = "none"
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.act = act
        self.rectifies = False
        weight = weight.detach().to(dtype, copy=True)
        self.blocked = blocked(weight)
        self.product = None if self.blocked is None else torch.ops.mkldnn._linear_pointwise.default
        self.register_buffer("weight", weight if self.blocked is None else None)
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    def fuse(self, activation: type[nn.Module]) -> bool:
        """Take over an activation if possible, and return whether it was."""
        if activation is nn.ReLU and not self.rectifies and self.act == "none":
            self.rectifies = True
            return True
        if self.rectifies or self.blocked is None or self.act != "none" or activation not in FUSED:
            return False
        self.act = FUSED[activation]
        return True

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.dtype != self.dtype:
            x = x.to(self.dtype)
        if self.product is None:
            y = linear(x, self.weight, self.bias)
        else:
            y = self.product(x, self.blocked, self.bias, self.act, [], "")
        return y.relu_() if self.rectifies else y


class PackedJoint(nn.Module):
    """The first layer of a net that reads a vector [M, R] joined with a latent sample.

    Its activation is part of it.
    A sample that names places takes the sum of the columns there: a fraction of a product's time.
    """

    table: Tensor  # [S + 1, outputs], the last row NaN: the place S of a `Sample`

    def __init__(self, layer: nn.Linear, sample: slice, dtype: torch.dtype) -> None:
        """Take a layer whose columns `sample` are the latent's."""
        super().__init__()
        self.dtype, weight = dtype, layer.weight.detach()
        start, stop, _ = sample.indices(layer.in_features)
        own, others = weight[:, start:stop], torch.cat([weight[:, :start], weight[:, stop:]], 1)
        self.of_both = PackedLinear(torch.cat([others, own], 1), layer.bias, dtype)
        self.of_rest = PackedLinear(others, layer.bias, dtype)
        self.of_sample = PackedLinear(own, None, dtype)
        broken = weight.new_full((1, len(weight)), torch.nan)
        self.register_buffer("table", torch.cat([own.t(), broken]).to(dtype))
        self.act: nn.Module = nn.Identity()

    def fuse(self, activation: type[nn.Module]) -> bool:
        """Take over an activation if possible, and return whether it was."""
        if not self.of_both.fuse(activation):
            return False
        self.act = activation(inplace=True)
        return True

    def forward(self, both: tuple[Tensor, Sample]) -> Tensor:  # noqa: D102
        rest, sample = both
        if sample.places is None:
            vector = sample.vector().to(self.dtype)
            return self.of_both(torch.cat([rest.to(self.dtype), vector], -1))
        columns = embedding_bag(sample.places, self.table, mode="sum")
        return self.act(self.of_rest(rest).add_(columns))

    def onto(self, part: Tensor, sample: Sample) -> Tensor:
        """Do the same for what `of_rest` made [M, outputs], which is overwritten."""
        if sample.places is None:
            part.addmm_(sample.vector().to(self.dtype), self.of_sample.weight.t())
        else:
            part.add_(embedding_bag(sample.places, self.table, mode="sum"))
        return self.act(part)

    def first(self, part: Tensor, sample: Tensor) -> Tensor:
        """Do the same for samples given as vectors [B, S], each for M / B rows of `part`."""
        common = self.of_sample(sample)[:, None]
        return self.act(part.unflatten(0, (len(sample), -1)).add_(common).flatten(0, 1))


class PackedBlockLinear(nn.Module):
    """A `BlockLinear`, [*B, inputs] to [*B, outputs]."""

    def __init__(self, layer: BlockLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.dtype = layer.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.layer(x.to(self.dtype))


class PackedNorm(nn.Module):
    """A layer norm, in float32 at least."""

    def __init__(self, layer: nn.LayerNorm) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.layer(precise(x))
