"""The world model as a session searches it: packed weights, few passes over the candidates, nothing done twice."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planet_rssm.base.device import DTYPES
from planet_rssm.types import Dynamics, Rollout, State
from planet_rssm.world_model.cells import GRUCore
from planet_rssm.world_model.heads import ContinueHead, GaussianHead, TwohotHead
from planet_rssm.world_model.model import WorldModel
from planet_rssm.world_model.packed_layers import PLAIN, PackedCore, dense, pack, pack_joint

MEMORY = 2**28  # bytes that the candidates' states may take at once on a CPU
# of a CUDA device's memory they may take one part in so many: not of what is free, which differs by
# the run
SHARE = 8
Before = tuple[
    Tensor, Tensor, Tensor
]  # of the last step: its deter, what was seen of it, its sample
# states that the heads read at once on a CPU: what lies between their layers stays in cache
HEAD_ROWS = 4096
HEAD_ROWS_THERE = (
    2**17
)  # and on another device, where each part is a few launches more: some 100 MiB a layer


class FastDynamics(Dynamics[State]):
    """`ModelDynamics` without gradients and made ready: what `ModelDynamics.prepare` returns.

    Weights are copied in the given precision and laid out for the products; of the first step, what
    a row's candidates have in common is done once; the heads run once over all steps. It follows a
    model that goes on learning: every rollout looks whether PyTorch has counted a write since, and
    `refresh` at the numbers too, for not all are counted.
    """

    def __init__(self, model: WorldModel, precision: str, memory: int | None = None) -> None:
        """Prepare `model`.

        Args:
            model: on any device, of any latent and cell; float64 stays float64.
            precision: of the products, see device.DTYPES.
            memory: bytes that the candidates' states may take; more candidates are followed one
                part after another, with the same result. None: MEMORY, on a CUDA device an eighth
                of all.
        """
        like = next(model.rssm.parameters())
        self.model = model
        parts = (model.rssm.core, model.rssm.prior_net, model.reward, model.continue_head)
        # where parameters are held, not they themselves: load_state_dict(assign=True) puts others
        # in their place
        self._held = [
            module._parameters for part in parts if part is not None for module in part.modules()
        ]
        self.dtype = like.dtype if like.dtype == torch.float64 else DTYPES[precision]
        self.memory = memory or (
            torch.cuda.mem_get_info(like.device)[1] // SHARE if like.is_cuda else MEMORY
        )
        self.capturable = self._in_place = like.is_cuda
        self.packed = self._pack()

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return what `ModelDynamics.noise_shape` does."""
        rssm = self.model.rssm
        return (
            (batch, candidates, horizon, rssm.noise_size)
            if rssm.settings.plan_by == "sample"
            else None
        )

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights anew if one is another: fused optimisers and `.data` write to them and are not counted."""
        if self._written() != self._stamp or not _equal(self._weights(), self._seen):
            self._take_up()

    def rollout(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...]; see `ModelDynamics.rollout`."""
        return self._follow(state, actions, noise, trace=False)

    def trace(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what `rollout` does and keep the states on the way."""
        return self._follow(state, actions, noise, trace=True)

    @torch.no_grad()
    def _follow(self, state: State, actions: Tensor, noise: Tensor | None, trace: bool) -> Rollout:
        if (
            self._written() != self._stamp
        ):  # no more: a graph that is being captured may not wait for an answer
            self._take_up()
        batch, candidates, horizon, size = actions.shape
        widths = self.packed.width + horizon * (self.packed.kept + size)
        row = batch * (
            widths * self.dtype.itemsize + 4 * horizon * (0 if noise is None else noise.shape[-1])
        )
        count = max(1, min(candidates, self.memory // row))
        drawn = itertools.repeat(None) if noise is None else noise.split(count, 1)
        with torch.autocast(
            actions.device.type, enabled=False
        ):  # the precision was chosen when this was made
            pairs = zip(actions.split(count, 1), drawn)  # noqa: B905 (the second may have no end)
            parts = [self.packed.rollout(state, *part, trace) for part in pairs]
        return parts[0] if len(parts) == 1 else _joined(parts)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _take_up(self) -> None:
        fresh = self._pack()
        if self._in_place:  # a captured graph reads the very tensors that are there
            for old, new in zip(self.packed.tensors(), fresh.tensors(), strict=True):
                old.copy_(new)
        else:
            self.packed = fresh

    @torch.inference_mode(False)  # what is packed inside it could not be written to outside
    @torch.no_grad()
    def _pack(self) -> "PackedModel":
        self._stamp, self._seen = self._written(), [p.clone() for p in self._weights()]
        return PackedModel(self.model, self.dtype)

    def _weights(self) -> list[Tensor]:
        return [p for held in self._held for p in held.values() if p is not None]

    def _written(self) -> list[tuple[int, int]]:
        return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self._weights()]


class PackedModel:
    """What planning needs of a world model, packed: the recurrence, the prior and the heads."""

    def __init__(self, model: WorldModel, dtype: torch.dtype) -> None:
        rssm = self._rssm = model.rssm
        self.dtype, core, (first, *rest) = dtype, rssm.core, rssm.prior_net
        if isinstance(core, GRUCore) and isinstance(core.cell, PLAIN) and len(core.inputs) > 0:
            assert isinstance(first, nn.Linear)
            self.core: nn.Module = PackedCore(core, first, rssm.stoch_size, dtype)
            self.prior = pack(nn.Sequential(*rest), dtype)
        else:
            self.core, self.prior = pack(core, dtype), pack(rssm.prior_net, dtype)
        self.reward = self._head(model.reward)
        self.continue_head = (
            None if model.continue_head is None else self._head(model.continue_head)
        )
        settings = rssm.settings
        self.kept = (
            rssm.deter_size + rssm.latent.noise_size
        )  # numbers a row keeps of every step, for the heads
        self.width = (
            8 * (rssm.deter_size + settings.hidden) + 4 * rssm.latent.raw_size
        )  # and needs within a step

    @torch.no_grad()
    def rollout(self, state: State, actions: Tensor, noise: Tensor | None, trace: bool) -> Rollout:
        """See `ModelDynamics`: its `trace` or its `rollout`."""
        batch, candidates, horizon, _ = actions.shape
        steps = (
            actions.to(self.dtype).flatten(0, 1).transpose(0, 1).contiguous()
        )  # [H, M, A]: a step lies together
        drawn = (
            [None] * horizon if noise is None else noise.flatten(0, 1).transpose(0, 1).contiguous()
        )
        deters: list[Tensor] = []
        samples: list[Tensor] = []
        before: Before | None = None
        for step, (action, part) in enumerate(zip(steps, drawn, strict=True)):
            deter, seen = self._next(state, before, action, step == horizon - 1)
            deters.append(deter)
            samples.append(self._pick(seen, part))
            before = deter, seen, samples[-1]
        reward = self._read(self.reward, deters, samples)
        discount = (
            torch.ones_like(reward)
            if self.continue_head is None
            else self._read(self.continue_head, deters, samples)
        )
        rows, shape = (batch, candidates), (horizon, batch, candidates)
        last = self._state(state, deters[-1], samples[-1], rows)
        found = Rollout(
            reward.view(shape).permute(1, 2, 0), discount.view(shape).permute(1, 2, 0), last
        )
        if not trace:
            return found
        states = [State(*(leaf[:, None].expand(*rows, -1) for leaf in state))]
        states += [
            self._state(state, *both, rows) for both in zip(deters[:-1], samples[:-1], strict=True)
        ]
        return found._replace(
            states=State(*(torch.stack(leaves, 2) for leaves in zip(*states, strict=True)))
        )

    @torch.no_grad()
    def follow(
        self, state: State, act: Callable[[Tensor, int], Tensor], noise: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """Act by `act(feat [M, F], step) -> [M, A]` from `state` [M, ...] with `noise` [M, H, noise_size].

        Returns the states reached [M, H, ...], and their rewards and chances to go on [M, H].
        """
        deters: list[Tensor] = []
        samples: list[Tensor] = []
        before: Before | None = None
        states = [state]
        for step, part in enumerate(noise.transpose(0, 1).contiguous()):
            action = act(self._rssm.feat(states[-1]), step).to(self.dtype)
            deter, seen = self._next(state, before, action, step == noise.shape[1] - 1)
            deters.append(deter)
            samples.append(self._pick(seen, part))
            before = deter, seen, samples[-1]
            stoch = dense(samples[-1], self._rssm.stoch_size).to(state.stoch.dtype)
            states.append(State(deters[-1].to(state.deter.dtype), stoch))
        reward = self._read(self.reward, deters, samples)
        goes_on = (
            torch.ones_like(reward)
            if self.continue_head is None
            else self._read(self.continue_head, deters, samples)
        )
        reached = State(*(torch.stack(leaves, 1) for leaves in zip(*states[1:], strict=True)))
        return reached, reward.view(len(deters), -1).t(), goes_on.view(len(deters), -1).t()

    def tensors(self) -> Iterator[Tensor]:
        """Every weight, in an order that is always the same."""
        for module in (self.core, self.prior, self.reward, self.continue_head):
            if module is not None:
                yield from itertools.chain(module.parameters(), module.buffers())

    def _head(self, head: GaussianHead | TwohotHead | ContinueHead) -> nn.Module:
        packed = pack(head, self.dtype)
        if self._rssm.settings.kind != "ssm":
            packed.net = pack_joint(head.net, slice(self._rssm.deter_size, None), self.dtype)
        return packed

    def _state(self, like: State, deter: Tensor, sample: Tensor, rows: tuple[int, int]) -> State:
        """Return states of M rows as [B, N, ...] in the precision of `like`."""
        stoch = dense(sample, self._rssm.stoch_size)
        return State(
            deter.to(like.deter.dtype).unflatten(0, rows),
            stoch.to(like.stoch.dtype).unflatten(0, rows),
        )

    def _next(
        self, state: State, before: Before | None, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the next deter [M, D] and what is seen of it: what the prior, and the step after, have in common.

        At the first step, of nothing `before`, M / B rows of `action` [M, A] have a row of `state`
        [B, ...] in common.
        """
        if isinstance(self.core, PackedCore):
            if before is None:
                return self.core.first(state.deter, state.stoch, action, last)
            return self.core(*before, action, last)
        many = len(action) // len(state.deter)
        deter, _, sample = before or (
            state.deter.repeat_interleave(many, 0),
            None,
            state.stoch.repeat_interleave(many, 0),
        )
        deter = self.core(
            deter.to(self.dtype), dense(sample, self._rssm.stoch_size).to(self.dtype), action
        )
        return deter, deter

    def _pick(self, seen: Tensor, noise: Tensor | None) -> Tensor:
        if isinstance(self.core, PackedCore):
            seen = self.core.prior(seen)
        return self._rssm.latent.pick(
            self.prior(seen), None if self._rssm.settings.kind == "rnn" else noise
        )

    def _read(self, head: nn.Module, deters: list[Tensor], samples: list[Tensor]) -> Tensor:
        """Apply a head to all states in parts of HEAD_ROWS, [H * M]."""
        rows = HEAD_ROWS if deters[0].device.type == "cpu" else HEAD_ROWS_THERE
        many = max(1, rows // len(deters[0]))  # steps at once
        parts = []
        for start in range(0, len(deters), many):
            deter, sample = (torch.cat(held[start : start + many]) for held in (deters, samples))
            ssm = self._rssm.settings.kind == "ssm"
            parts.append(head(dense(sample, self._rssm.stoch_size) if ssm else (deter, sample)))
        return torch.cat(parts)


def _equal(these: list[Tensor], those: list[Tensor]) -> bool:
    """Say whether all hold equal numbers; with NaN among them they do not."""
    if not these[0].is_cuda:
        return all(map(torch.equal, these, those))
    apart = torch._foreach_norm(
        torch._foreach_sub(these, those), torch.inf
    )  # few launches and one wait
    return not bool(torch.stack(apart).any())


def _joined(parts: list[Rollout]) -> Rollout:
    """Put together the rollouts of parts of the candidates."""
    return pytree.tree_map(
        lambda *leaves: None if leaves[0] is None else torch.cat(leaves, 1), *parts
    )
