"""The world model as a session searches it with `planner.rollout=triton`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from planet_rssm.config import LATENTS
from planet_rssm.types import Rollout, State
from planet_rssm.world_model.cells import BlockGRUCore, GRUCore, NormGRUCell
from planet_rssm.world_model.heads import GaussianHead
from planet_rssm.world_model.networks import BlockLinear, RMSNorm
from planet_rssm.world_model.packed_layers import pack
from planet_rssm.world_model.rollout_kernel import Part, Program, follow

if TYPE_CHECKING:
    from planet_rssm.world_model.model import WorldModel

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ELU: "elu", nn.SiLU: "silu"}
HEAD_ROWS = 2**17  # states that a head outside the kernel reads at once


class KernelModel:
    """Does what `PackedModel.rollout` does, with all steps in one launch of a Triton kernel.

    The reward is predicted there too where its head is Gaussian. In float32 the kernel reads the
    model's own weights, in other precisions copies.
    """

    def __init__(self, model: "WorldModel", dtype: torch.dtype) -> None:
        """Take a model that `uncovered` has nothing against."""
        self._program = program_of(model, dtype)
        self._sizes = [model.rssm.deter_size, model.rssm.stoch_size]
        self._reward = None if self._program.reward is not None else pack(model.reward, dtype)
        self._continue = None if model.continue_head is None else pack(model.continue_head, dtype)
        self._ones: Tensor | None = None
        # What a sequence takes of each step and within one, in numbers of `dtype`: all is float32.
        times = torch.float32.itemsize // dtype.itemsize
        self.kept_numbers = times * (sum(self._sizes) + model.rssm.settings.hidden)
        self.step_numbers = times * self._program.numbers

    @torch.no_grad()
    def rollout(self, state: State, actions: Tensor, noise: Tensor | None, trace: bool) -> Rollout:
        """See `ModelDynamics`: its `trace` or its `rollout`."""
        drawn = noise.flatten(0, 1).float() if noise is not None and self._program.noise else None
        start = State(*(leaf.float() for leaf in state))
        feats, reward = follow(self._program, *start, actions.flatten(0, 1).float(), drawn)
        if reward is None:
            assert self._reward is not None
            reward = _read(self._reward, feats)
        if self._continue is None:
            if self._ones is None or self._ones.shape != reward.shape:
                self._ones = torch.ones_like(reward)  # once for the rounds of a decision
            discount = self._ones
        else:
            discount = _read(self._continue, feats)
        rows = actions.shape[:2]
        reached = State(*(part.unflatten(0, rows) for part in feats.split(self._sizes, -1)))
        last = State(*(part[:, :, -1] for part in reached))
        result = Rollout(reward.unflatten(0, rows), discount.unflatten(0, rows), last)
        if not trace:
            return result
        first = (part[:, None, None].expand((*rows, 1, -1)) for part in start)
        before = (part[:, :, :-1] for part in reached)
        states = State(*(torch.cat(parts, 2) for parts in zip(first, before, strict=True)))
        return result._replace(states=states)


def _read(head: nn.Module, feats: Tensor) -> Tensor:
    """Apply a head to states [M, H, F], part by part; return [M, H]."""
    parts = [head(part) for part in feats.flatten(0, 1).split(HEAD_ROWS)]
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).view(feats.shape[:2])


def uncovered(model: "WorldModel") -> str | None:
    """Return what of a model the kernel does not know, as `key = value`; None: it knows all."""
    own = model.rssm.settings
    if own.kind == "ssm":
        return "rssm.kind = 'ssm'"
    if own.latent not in LATENTS:
        return f"rssm.latent = {own.latent!r}"
    if own.cell == "tf_gru":
        return "rssm.cell = 'tf_gru'"
    if not own.input_layers:
        return "rssm.input_layers = 0"
    if next(model.parameters()).dtype != torch.float32:
        return "weights in float64"
    return None


def program_of(model: "WorldModel", dtype: torch.dtype) -> Program:
    """Return what the kernel does for a model, with weights in `dtype`."""
    rssm, own = model.rssm, model.rssm.settings
    deter, stoch, core = rssm.deter_size, rssm.stoch_size, rssm.core
    writer = _Writer(dtype, deter, stoch)
    by_blocks = isinstance(core, BlockGRUCore)
    if isinstance(core, BlockGRUCore):
        actions = writer.block_gru(core)
    else:
        assert isinstance(core, GRUCore)
        actions = writer.gru(core)
    writer.parts.append(Part(own.latent, writer.net(rssm.prior_net, 0, deter)))
    reward = None
    if isinstance(model.reward, GaussianHead):
        reward = writer.net(model.reward.net, 0, deter + stoch)
    return Program(
        parts=tuple(writer.parts),
        deter=deter,
        stoch=stoch,
        noise=0 if own.kind == "rnn" else rssm.noise_size,
        numbers=writer.numbers,
        actions=actions,
        bounded=by_blocks,
        reward=reward,
        classes=own.classes if own.latent == "categorical" else 0,
        unimix=own.unimix,
        min_std=own.min_std,
        std=own.std,
        mean=own.mean,
    )


def _first(net: nn.Sequential) -> nn.Linear:
    first = net[0]
    assert isinstance(first, nn.Linear)
    return first


class _Writer:
    """Writes down the parts of a step, and which columns of a row they have."""

    def __init__(self, dtype: torch.dtype, deter: int, stoch: int) -> None:
        self.dtype = dtype
        self.deter = deter
        self.stoch = stoch
        self.numbers = deter + stoch
        self.parts: list[Part] = []

    def room(self, count: int) -> int:
        """Take `count` more columns and return the first."""
        self.numbers += count
        return self.numbers - count

    def gru(self, core: GRUCore) -> int:
        """Add all that leads to the next deter; return where the action is read to."""
        size = _first(core.inputs).in_features - self.stoch
        action = self.room(size)
        x = self.net(core.inputs, self.deter, self.stoch, action, size)
        gates = self.room(6 * self.deter)
        for _ in range(core.depth):
            cell = core.cell
            if isinstance(cell, NormGRUCell):
                width = cell.linear.in_features - self.deter
                self.net([cell.linear, cell.norm], x, width, 0, self.deter, to=gates)
                self.parts.append(Part("gated", gates))
                continue
            assert isinstance(cell, nn.GRUCell)
            for own, one, size, weight, bias in (
                (gates, x, cell.input_size, cell.weight_ih, cell.bias_ih),
                (gates + 3 * self.deter, 0, self.deter, cell.weight_hh, cell.bias_hh),
            ):
                part = Part("layer", one, size, to=own, outputs=3 * self.deter)
                self.parts.append(part._replace(weight=self._weight(weight), bias=bias.detach()))
            self.parts.append(Part("gru", gates))
        return action

    def block_gru(self, core: BlockGRUCore) -> int:
        """Do the same for a block GRU."""
        nets = [net for net in core.projections if isinstance(net, nn.Sequential)]
        size = _first(nets[2]).in_features
        action = self.room(size)
        reads = ((0, self.deter), (self.deter, self.stoch), (action, size))
        widths = [_first(net).out_features for net in nets]
        common = self.room(sum(widths))
        for _ in range(core.depth):
            to = common
            for net, width, (one, count) in zip(nets, widths, reads, strict=True):
                self.net(net, one, count, to=to)
                to += width
            x = self.net(core.mixed, 0, self.deter // core.blocks, common, sum(widths))
            gates = self.net([core.gates], x, self.deter // core.blocks)
            self.parts.append(Part("gated", gates, blocks=core.blocks))
        return action

    def net(
        self,
        net: Iterable[nn.Module],
        one: int,
        size: int,
        two: int = 0,
        other: int = 0,
        to: int | None = None,
    ) -> int:
        """Add linear layers with their norms and activations; return where their output stands.

        The first reads `size` columns at `one` joined with `other` at `two`; the output is at `to`,
        None: in columns of its own.
        """
        groups: list[tuple[nn.Linear | BlockLinear, list[nn.Module]]] = []
        for module in net:
            if isinstance(module, nn.Linear | BlockLinear):
                groups.append((module, []))
            else:
                groups[-1][1].append(module)
        for linear, after in groups:
            blocks, outputs = 1, len(linear.weight)
            if isinstance(linear, BlockLinear):
                blocks, _, outputs = linear.weight.shape
            part = Part(
                "layer",
                one,
                size,
                two,
                other,
                self.room(blocks * outputs) if to is None else to,
                outputs,
                blocks,
                weight=self._weight(linear.weight),
                bias=None if linear.bias is None else linear.bias.detach(),
                by_inputs=isinstance(linear, BlockLinear),
            )
            for module in after:
                if isinstance(module, RMSNorm):
                    part = part._replace(norm="rms", scale=module.scale.detach())
                elif isinstance(module, nn.LayerNorm):
                    scale, shift = module.weight.detach(), module.bias.detach()
                    part = part._replace(norm="layer", scale=scale, shift=shift)
                else:
                    part = part._replace(act=ACTIVATIONS[type(module)])
            self.parts.append(part)
            one, size, other, to = part.to, outputs, 0, None
        return one

    def _weight(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self.dtype)
