"""Networks made ready to be run many times without gradients: weights in one precision, laid out for the products.

On a CPU with oneDNN a packed layer takes its weight in oneDNN's own blocked layout, with the bias and the activation in
the product's last pass. In float32 this alone is up to twice as fast as MKL on processors that MKL does not favour.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear

from planet_rssm.world_model.cells import GRUCore
from planet_rssm.world_model.networks import BlockLinear, precise

# Activations that oneDNN does within the product.
FUSED: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "swish", nn.Sigmoid: "sigmoid"}
ROWS = 1024  # that layouts are chosen for: a thousand candidates


def pack(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of `module` that computes the same in `dtype` from inputs of any precision; no gradients."""
    return _packed(copy.deepcopy(module).requires_grad_(False), dtype)


def _packed(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(module, nn.Linear):
        return PackedLinear(module.weight, module.bias, dtype)
    if isinstance(module, BlockLinear):
        return PackedBlockLinear(module, dtype)
    if isinstance(module, nn.GRUCell):
        return PackedGRUCell(module, dtype)
    if isinstance(module, nn.LayerNorm):
        return PackedNorm(module)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_fused(list(module), dtype))
    for name, child in module.named_children():
        setattr(module, name, _packed(child, dtype))
    return module


def pack_joint(net: nn.Sequential, sample: slice, dtype: torch.dtype) -> nn.Sequential:
    """Pack a net whose first, linear layer reads a vector joined with a latent sample; see `PackedJoint`."""
    layers = list(copy.deepcopy(net).requires_grad_(False))
    first = layers[0]
    assert isinstance(first, nn.Linear)
    return nn.Sequential(*_fused([PackedJoint(first, sample, dtype), *layers[1:]], dtype))


def dense(sample: Tensor, size: int) -> Tensor:
    """Return a sample as `Latent.pick` returns it as the vector [*B, size] that it stands for."""
    if sample.is_floating_point():
        return sample
    return torch.zeros(*sample.shape[:-1], size, device=sample.device).scatter_(-1, sample, 1.0)


def _fused(layers: list[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """Pack the layers of a sequence, an activation together with the product before it where that can be done."""
    done: list[nn.Module] = []
    for layer in layers:
        before = done[-1] if done else None
        if isinstance(before, PackedLinear | PackedJoint) and before.fuse(type(layer)):
            continue
        done.append(layer if isinstance(layer, PackedJoint) else _packed(layer, dtype))
    return done


def blocked(weight: Tensor) -> Tensor | None:
    """Return `weight` [outputs, inputs] in oneDNN's layout, or None where oneDNN does not multiply its dtype."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    except (RuntimeError, AttributeError):  # this processor or build has no such product
        return None


class PackedLinear(nn.Module):
    """A linear layer and its activation, [*B, inputs] to [*B, outputs]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, act: str = "none") -> None:
        super().__init__()
        self.dtype, self.act = dtype, act
        weight = weight.detach().to(dtype, copy=True)
        self.blocked = blocked(weight)
        self.register_buffer("weight", weight if self.blocked is None else None)
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    def fuse(self, activation: type[nn.Module]) -> bool:
        """Take over an activation, if that can be done."""
        if self.blocked is None or self.act != "none" or activation not in FUSED:
            return False
        self.act = FUSED[activation]
        return True

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x.to(self.dtype)
        if self.blocked is None:
            return linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.blocked, self.bias, self.act, [], "")


class PackedJoint(nn.Module):
    """The first layer of a net that reads a vector [M, R] joined with a latent sample, and its activation.

    The sample [M, S] is as `Latent.pick` returns it: of a one-hot one the columns that it names are summed, which takes
    a fraction of the time of a product.
    """

    table: Tensor  # [S, outputs]

    def __init__(self, layer: nn.Linear, sample: slice, dtype: torch.dtype) -> None:
        """Take a layer whose columns `sample` are the latent's."""
        super().__init__()
        self.dtype, columns = dtype, torch.arange(layer.in_features)
        own = columns[sample]
        others = columns[~torch.isin(columns, own)]
        weight = layer.weight.detach()
        self.of_both = PackedLinear(torch.cat([weight[:, others], weight[:, own]], 1), layer.bias, dtype)
        self.of_rest = PackedLinear(weight[:, others], layer.bias, dtype)
        self.of_sample = PackedLinear(weight[:, own], None, dtype)
        self.register_buffer("table", weight[:, own].t().to(dtype).contiguous())
        self.act: nn.Module = nn.Identity()

    def fuse(self, activation: type[nn.Module]) -> bool:
        """Take over an activation, if that can be done."""
        if not self.of_both.fuse(activation):
            return False
        self.act = activation(inplace=True)
        return True

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        rest, sample = both
        if sample.is_floating_point():
            return self.of_both(torch.cat([rest.to(self.dtype), sample.to(self.dtype)], -1))
        return self.act(self.of_rest(rest).add_(embedding_bag(sample, self.table, mode="sum")))

    def first(self, rest: Tensor, sample: Tensor) -> Tensor:
        """Do the same for a dense sample [B, S] that `rest` [B * N, R] has in common, N rows each."""
        common = self.of_sample(sample)[:, None]
        return self.act(self.of_rest(rest).unflatten(0, (len(sample), -1)).add_(common).flatten(0, 1))


class PackedCore(nn.Module):
    """A `GRUCore`: from deter [M, D], a sample as `Latent.pick` returns it, and actions [M, A], the next deter."""

    def __init__(self, core: GRUCore, sample: int, dtype: torch.dtype) -> None:
        """Take a core with a plain GRU cell and at least one layer before it; `sample` is the size of the latent's."""
        super().__init__()
        self.depth = core.depth
        joint, *rest = pack_joint(core.inputs, slice(0, sample), dtype)
        assert isinstance(joint, PackedJoint)
        self.joint, self.inputs = joint, nn.Sequential(*rest)
        assert isinstance(core.cell, nn.GRUCell)
        self.cell = PackedGRUCell(copy.deepcopy(core.cell).requires_grad_(False), dtype)

    def forward(self, deter: Tensor, sample: Tensor, action: Tensor) -> Tensor:  # noqa: D102
        return self._repeat(self.inputs(self.joint((action, sample))), deter, self.depth)

    def first(self, deter: Tensor, sample: Tensor, action: Tensor) -> Tensor:
        """Do the same for `deter` [B, D] and a dense `sample` [B, S], each for N rows of `action` [B * N, A]."""
        x = self.inputs(self.joint.first(action, sample))
        return self._repeat(x, self.cell.first(x, deter), self.depth - 1)

    def _repeat(self, x: Tensor, deter: Tensor, times: int) -> Tensor:
        for _ in range(times):
            deter = self.cell(x, deter)
        return deter


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


class PackedGRUCell(nn.Module):
    """A GRU cell: h' = n + z (h - n), [M, X] and [M, D] to [M, D], every gate a product of its own.

    So each gate's rows lie together, which the passes over them need to be fast, and both sigmoids are done within
    their products. Where oneDNN has no such products it is PyTorch's cell.
    """

    def __init__(self, cell: nn.GRUCell, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.cell = dtype, cell.to(dtype)
        inputs, hidden = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)  # each: reset, update, candidate
        biases = cell.bias_ih.chunk(3), cell.bias_hh.chunk(3)
        self.of_inputs = nn.ModuleList(_linears(inputs, biases[0], dtype))
        self.of_hidden = nn.ModuleList(_linears(hidden, biases[1], dtype))
        both = [torch.cat(pair, 1) for pair in zip(inputs[:2], hidden[:2], strict=True)]
        gates = _linears(both, [a + b for a, b in zip(*(bias[:2] for bias in biases), strict=True)], dtype)
        self.fast = all([gate.fuse(nn.Sigmoid) for gate in gates])
        self.gates = nn.ModuleList(gates)

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:  # noqa: D102
        x, deter = x.to(self.dtype), deter.to(self.dtype)
        if not self.fast:
            return self.cell(x, deter)
        both = torch.cat([x, deter], 1)
        reset, update = (gate(both) for gate in self.gates)
        new = tanh_(torch.addcmul(self.of_inputs[2](x), reset, self.of_hidden[2](deter)))
        return torch.lerp(new, deter, update)

    def first(self, x: Tensor, deter: Tensor) -> Tensor:
        """Do the same for rows of `deter` [B, D] that x [B * N, X] has in common, N rows each: its products are few."""
        if not self.fast:
            return self(x, deter.repeat_interleave(len(x) // len(deter), 0))
        x, deter = x.to(self.dtype), deter.to(self.dtype)
        shape = (len(deter), -1, deter.shape[1])
        reset, update, new = (of_inputs(x).view(shape) for of_inputs in self.of_inputs)
        common = [of_hidden(deter)[:, None] for of_hidden in self.of_hidden]
        reset, update = reset.add_(common[0]).sigmoid_(), update.add_(common[1]).sigmoid_()
        new = tanh_(new.addcmul_(reset, common[2]).flatten(0, 1))
        return torch.lerp(new.view(shape), deter[:, None], update).flatten(0, 1)


def _linears(weights: Sequence[Tensor], biases: Sequence[Tensor], dtype: torch.dtype) -> list[PackedLinear]:
    return [PackedLinear(*pair, dtype) for pair in zip(weights, biases, strict=True)]


def tanh_(x: Tensor) -> Tensor:
    """Return tanh(x), as good as in place: oneDNN's takes a third of the time of PyTorch's."""
    return x.to_mkldnn().tanh_().to_dense()
