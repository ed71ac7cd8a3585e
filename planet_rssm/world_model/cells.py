"""Recurrent cores: deter_t from deter_{t-1}, stoch_{t-1} and the action that led to t.

Each is called as core(deter [B, D], stoch [B, S], action [B, A]) and returns the next deter [B, D].
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from planet_rssm.config import RSSMSettings
from planet_rssm.world_model.networks import BlockLinear, dense_layers, normalised, precise
from planet_rssm.world_model.products import Linear


class NormGRUCell(nn.Module):
    """GRU with one layer norm over all gates, and a bias of -1 that keeps the state at first.

    DreamerV2's:
    reset, candidate, update = split(LayerNorm(W [x, h])); c = tanh(sig(reset) * candidate); u =
    sig(update - 1); h' = u c + (1 - u) h.
    """

    def __init__(self, inputs: int, deter: int) -> None:
        super().__init__()
        self.linear = Linear(inputs + deter, 3 * deter, bias=False)
        self.norm = nn.LayerNorm(3 * deter, eps=1e-3)

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:  # noqa: D102
        reset, candidate, update = self.norm(self.linear(torch.cat([x, deter], -1))).chunk(3, -1)
        return gated(reset, candidate, update, deter)


class GRUCell(nn.GRUCell):
    """PyTorch's cell, with only its products in the precision of an autocast.

    So deter stays in float32 on any device. PyTorch does so on a CPU, but its autocast of CUDA
    returns the new deter in half precision.
    """

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:  # type: ignore[override]  # noqa: D102
        if not x.is_cuda or not torch.is_autocast_enabled("cuda"):
            return super().forward(x, deter)
        inputs, hidden = linear(x, self.weight_ih), linear(deter, self.weight_hh)
        # The kernel that PyTorch runs here without an autocast.
        with torch.autocast("cuda", enabled=False):
            dtype = self.weight_hh.dtype
            return torch.ops.aten._thnn_fused_gru_cell(
                inputs.to(dtype), hidden.to(dtype), deter.to(dtype), self.bias_ih, self.bias_hh
            )[0]


class TFGRUCell(nn.Module):
    """TensorFlow's GRUBlockCell, which PlaNet's code has.

    The reset comes before the recurrent product, and the gates begin open:

    r, u = sig(W [x, h] + b + 1); c = tanh(V [x, r h] + d); h' = u h + (1 - u) c
    (Cho et al. 2014, arXiv 1406.1078). There the gates' bias begins at 1, here it stands beside a
    1 and begins at 0.
    """

    def __init__(self, inputs: int, deter: int) -> None:
        super().__init__()
        self.input_size = inputs
        self.gates = Linear(inputs + deter, 2 * deter)
        self.candidate = Linear(inputs + deter, deter)
        nn.init.zeros_(self.gates.bias)
        nn.init.zeros_(self.candidate.bias)

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:  # noqa: D102
        gates = precise(self.gates(torch.cat([x, deter.to(x.dtype)], -1)))
        reset, update = (gates + 1).sigmoid().chunk(2, -1)
        candidate = precise(self.candidate(torch.cat([x, (reset * deter).to(x.dtype)], -1))).tanh()
        return update * deter + (1 - update) * candidate


class GRUCore(nn.Module):
    """Dense layers on [stoch, action], then a GRU cell `recurrent_depth` times.

    PlaNet's, and DreamerV2's with its cell.
    """

    def __init__(self, settings: RSSMSettings, stoch: int, action: int) -> None:
        super().__init__()
        self.depth = settings.recurrent_depth
        self.inputs = dense_layers(
            stoch + action, settings.hidden, settings.input_layers, settings.act, settings.norm
        )
        width = settings.hidden if settings.input_layers else stoch + action
        kind = {"gru": GRUCell, "norm_gru": NormGRUCell, "tf_gru": TFGRUCell}[settings.cell]
        self.cell = kind(width, settings.deter)

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:  # noqa: D102
        x = self.inputs(torch.cat([stoch, action], -1))
        for _ in range(self.depth):
            deter = self.cell(x, deter)
        return deter


class BlockGRUCore(nn.Module):
    """Block-diagonal GRU (DreamerV3, the code of 2024 and after).

    deter, stoch and action are each brought to `hidden` by Linear, norm, activation. Every block of
    deter reads itself and all three; `input_layers` block-diagonal layers with norm over all of
    deter and activation lead to the gates, which have no norm. Actions beyond [-1, 1] are scaled
    into it.
    """

    def __init__(self, settings: RSSMSettings, stoch: int, action: int) -> None:
        super().__init__()
        self.depth, self.blocks = settings.recurrent_depth, settings.blocks
        self.projections = nn.ModuleList(
            dense_layers(width, settings.hidden, 1, settings.act, settings.norm)
            for width in (settings.deter, stoch, action)
        )
        width = settings.deter + 3 * settings.hidden * settings.blocks
        layers: list[nn.Module] = []
        for _ in range(settings.input_layers):
            layers.append(BlockLinear(width, settings.deter, settings.blocks))
            layers += normalised(settings.deter, settings.act, settings.norm)
            width = settings.deter
        self.mixed = nn.Sequential(*layers)
        self.gates = BlockLinear(width, 3 * settings.deter, settings.blocks)

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:  # noqa: D102
        action = action / action.detach().abs().clamp(min=1)
        for _ in range(self.depth):
            deter = self._step(deter, stoch, action)
        return deter

    def _step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        parts = zip(self.projections, (deter, stoch, action), strict=True)
        common = torch.cat([net(part) for net, part in parts], -1)
        blocks = deter.unflatten(-1, (self.blocks, -1))
        inputs = torch.cat([blocks, common[:, None].expand(-1, self.blocks, -1)], -1).flatten(-2)
        gates = self.gates(self.mixed(inputs)).unflatten(-1, (self.blocks, -1)).chunk(3, -1)
        reset, candidate, update = (gate.flatten(-2) for gate in gates)
        return gated(reset, candidate, update, deter)


class MemorylessCore(nn.Module):
    """No recurrence: the prior has [stoch, action] alone (the SSM of PlaNet's ablation)."""

    def __init__(self, settings: RSSMSettings, stoch: int, action: int) -> None:
        super().__init__()
        self.inputs = dense_layers(
            stoch + action, settings.deter, settings.input_layers, settings.act, settings.norm
        )

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:  # noqa: D102
        return self.inputs(torch.cat([stoch, action], -1))


def gated(reset: Tensor, candidate: Tensor, update: Tensor, deter: Tensor) -> Tensor:
    """Return u c + (1 - u) h with c = tanh(sig(reset) candidate), u = sig(update - 1).

    DreamerV2 and V3.
    """
    keep = torch.sigmoid(update - 1)
    return keep * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - keep) * deter


def core_from_settings(settings: RSSMSettings, stoch: int, action: int) -> nn.Module:
    """Return the core that the settings name, for samples and actions of these sizes."""
    if settings.kind == "ssm":
        return MemorylessCore(settings, stoch, action)
    return (BlockGRUCore if settings.blocks else GRUCore)(settings, stoch, action)
