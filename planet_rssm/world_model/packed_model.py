"""The world model as a session searches it: packed weights, few passes, nothing computed twice."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planet_rssm.base.device import DTYPES, require_triton
from planet_rssm.base.errors import PlanetError
from planet_rssm.types import Dynamics, Rollout, State
from planet_rssm.world_model.heads import ContinueHead, GaussianHead, TwohotHead
from planet_rssm.world_model.latents import Sample
from planet_rssm.world_model.packed_layers import pack, pack_joint
from planet_rssm.world_model.packed_step import packed_step

if TYPE_CHECKING:
    from planet_rssm.world_model.kernel_model import KernelModel
    from planet_rssm.world_model.model import WorldModel

MEMORY = 2**28  # bytes that the candidates' states may take at once on a CPU
# Divides a CUDA device's memory: that part may be theirs. Free memory differs from run to run.
SHARE = 8
# States that the heads read at once on a CPU: what lies between their layers stays in cache.
HEAD_ROWS = 4096
# And on another device, where each part is a few launches more: some 100 MiB a layer.
DEVICE_HEAD_ROWS = 2**17


class FastDynamics(Dynamics[State]):
    """`ModelDynamics` without gradients and made ready: what `ModelDynamics.prepare` returns.

    Weights are copied in the given precision and laid out for the products. What a row's candidates
    have in common in the first step is computed once. The heads run once over all steps. It follows
    a model that goes on learning: every rollout checks whether PyTorch has counted a write since,
    and `refresh` compares the numbers too, because PyTorch does not count all writes.
    """

    def __init__(self, model: "WorldModel", precision: str, memory: int | None = None) -> None:
        """Prepare `model`.

        Args:
            model: on any device, of any latent and cell; float64 stays float64.
            precision: of the products, see device.DTYPES.
            memory: bytes that the candidates' states may take. More candidates are followed one
                part after another, with the same result. None: MEMORY, or an eighth of a CUDA
                device's memory.
        """
        like = next(model.rssm.parameters())
        self.model = model
        parts = (model.rssm.core, model.rssm.prior_net, model.reward, model.continue_head)
        # The modules' own dicts, not the parameters: load_state_dict(assign=True) replaces those.
        self._parameters = [
            module._parameters for part in parts if part is not None for module in part.modules()
        ]
        self.dtype = like.dtype if like.dtype == torch.float64 else DTYPES[precision]
        self.memory = memory or (
            torch.cuda.mem_get_info(like.device)[1] // SHARE if like.is_cuda else MEMORY
        )
        self.capturable = like.is_cuda
        self._packed_weights: list[Tensor] = []
        self._pack: type[PackedModel] | type[KernelModel] = PackedModel
        self._take_up()

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
        """Copy the weights again if one has changed, also by writes that PyTorch does not count.

        Those are the writes of fused optimisers and through `.data`. A CUDA device copies them each
        time: to compare them takes it longer, and the host would wait for the answer.
        """
        if self.capturable or self._versions() != self._packed_versions or not self._equal():
            self._take_up()

    def fused(self) -> "FastDynamics":
        """Return the same with all steps in one Triton kernel; see `KernelModel`.

        Raises:
            PlanetError: Triton or a CUDA device is missing, or the model is of another kind.
        """
        require_triton(next(self.model.parameters()).device)
        # not for those who have no Triton
        from planet_rssm.world_model.kernel_model import KernelModel, uncovered

        if found := uncovered(self.model):
            raise PlanetError(
                f"planner.rollout = 'triton': its kernel does not know {found}; "
                "set planner.rollout=torch"
            )
        fresh = copy.copy(self)
        fresh._pack = KernelModel
        fresh._take_up()
        return fresh

    def renewed(self) -> "FastDynamics":
        """Return the same, with copies of the weights as they are now."""
        fresh = copy.copy(self)
        fresh._take_up()
        return fresh

    def places(self) -> tuple[int, ...]:
        """Return where each weight lies."""
        return tuple(weight.data_ptr() for weight in self._weights())

    def trace(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what `rollout` does and keep the states on the way."""
        return self.rollout(state, actions, noise, trace=True)

    @torch.no_grad()
    def rollout(
        self, state: State, actions: Tensor, noise: Tensor | None, *, trace: bool = False
    ) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...]; see `ModelDynamics.rollout`."""
        # No more than this: a graph that is being captured may not wait for an answer.
        if self._versions() != self._packed_versions:
            self._take_up()
        batch, candidates, horizon, size = actions.shape
        numbers = self.packed.step_numbers + horizon * (self.packed.kept_numbers + size)
        noise_size = 0 if noise is None else noise.shape[-1]
        row = batch * (numbers * self.dtype.itemsize + 4 * horizon * noise_size)
        count = max(1, min(candidates, self.memory // row))
        drawn = itertools.repeat(None) if noise is None else iter(noise.split(count, 1))
        # The precision was chosen when this was made.
        parts = []
        with torch.autocast(actions.device.type, enabled=False):
            for some in actions.split(count, 1):
                parts.append(self.packed.rollout(state, some, next(drawn), trace))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _equal(self) -> bool:
        """Return whether all numbers are as they were packed; NaN equals nothing."""
        return all(map(torch.equal, self._weights(), self._packed_weights))

    @torch.inference_mode(False)  # tensors made in inference mode could not be written to outside
    @torch.no_grad()
    def _take_up(self) -> None:
        self._packed_versions = self._versions()
        if not self.capturable:
            self._packed_weights = [weight.clone() for weight in self._weights()]
        self.packed = self._pack(self.model, self.dtype)

    def _weights(self) -> list[Tensor]:
        return [
            weight
            for module in self._parameters
            for weight in module.values()
            if weight is not None
        ]

    def _versions(self) -> list[tuple[int, int]]:
        """Return where each weight lies, and how many writes to it PyTorch has counted."""
        return [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in self._weights()
        ]


class PackedModel:
    """What planning needs of a world model, packed: the recurrence, the prior and the heads."""

    def __init__(self, model: "WorldModel", dtype: torch.dtype) -> None:
        rssm = self._rssm = model.rssm
        self.dtype = dtype
        self.step = packed_step(rssm, dtype)
        self.reward = self._head(model.reward)
        self.continue_head = (
            None if model.continue_head is None else self._head(model.continue_head)
        )
        # Numbers that a row keeps of every step for the heads, and that it needs within a step.
        self.kept_numbers = rssm.deter_size + rssm.latent.noise_size + rssm.settings.hidden
        hidden = rssm.deter_size + rssm.settings.hidden
        self.step_numbers = 8 * hidden + 4 * rssm.latent.raw_size

    @torch.no_grad()
    def rollout(self, state: State, actions: Tensor, noise: Tensor | None, trace: bool) -> Rollout:
        """See `ModelDynamics`: its `trace` or its `rollout`."""
        rows, horizon = actions.shape[:2], actions.shape[2]
        steps = _by_step(self.step.read(actions.to(self.dtype)))
        drawn: Sequence[Tensor | None] = [None] * horizon
        if noise is not None:
            drawn = _by_step(noise).unbind()
        deters, samples = self._imagine(state, lambda step, deters, samples: steps[step], drawn)
        reward, discount = (
            None if part is None else part.view((horizon, *rows)).permute(1, 2, 0)
            for part in self._predict(deters, samples)
        )
        assert reward is not None
        if discount is None:
            discount = reward.new_ones((*rows, horizon))
        last = self._candidate_states(deters[-1], samples[-1], state, rows)
        result = Rollout(reward, discount, last)
        if not trace:
            return result
        states = [State(*(leaf[:, None].expand((*rows, -1)) for leaf in state))]
        states += [
            self._candidate_states(deter, sample, state, rows)
            for deter, sample in zip(deters[:-1], samples[:-1], strict=True)
        ]
        stacked = State(*(torch.stack(leaves, 2) for leaves in zip(*states, strict=True)))
        return result._replace(states=stacked)

    @torch.no_grad()
    def follow(
        self, state: State, act: Callable[[Tensor, int], Tensor], noise: Tensor
    ) -> tuple[State, Tensor, Tensor]:
        """Act by `act(feat [M, F], step) -> [M, A]` from `state` [M, ...].

        Args:
            state: where every row begins.
            act: the policy.
            noise: standard normal [M, H, noise_size].

        Returns:
            The states reached [M, H, ...], their rewards and their chances to go on, [M, H] each.
        """
        states = [state]

        def action(step: int, deters: list[Tensor], samples: list[Sample]) -> Tensor:
            if step:
                states.append(self._state(deters[-1], samples[-1], state))
            return self.step.read(act(self._rssm.feat(states[-1]), step).to(self.dtype))

        drawn = noise.transpose(0, 1).contiguous().unbind()
        deters, samples = self._imagine(state, action, drawn)
        states.append(self._state(deters[-1], samples[-1], state))
        reward, discount = (
            None if part is None else part.view(len(drawn), -1).t()
            for part in self._predict(deters, samples)
        )
        assert reward is not None
        discount = torch.ones_like(reward) if discount is None else discount
        reached = State(*(torch.stack(leaves, 1) for leaves in zip(*states[1:], strict=True)))
        return reached, reward, discount

    def _head(self, head: GaussianHead | TwohotHead | ContinueHead) -> nn.Module:
        packed = pack(head, self.dtype)
        if self._rssm.settings.kind != "ssm":
            packed.net = pack_joint(head.net, slice(self._rssm.deter_size, None), self.dtype)
        return packed

    def _imagine(
        self,
        state: State,
        action: Callable[[int, list[Tensor], list[Sample]], Tensor],
        drawn: Sequence[Tensor | None],
    ) -> tuple[list[Tensor], list[Sample]]:
        """Return the deters [M, D] and the samples of one step for each of `drawn` [M, noise_size].

        `action(step, deters, samples)`, what the step reads of M actions, is asked for before each
        step, with those so far. M may be several times the rows of `state`: each of these then
        starts as many rows.
        """
        deters: list[Tensor] = []
        samples: list[Sample] = []
        for step, noise in enumerate(drawn):
            taken = action(step, deters, samples)
            last = step == len(drawn) - 1
            if step == 0:
                deter, shared = self.step.first(state, taken, last)
            else:
                deter, shared = self.step(deters[-1], shared, samples[-1], taken, last)
            deters.append(deter)
            samples.append(self._sample(shared, noise))
        return deters, samples

    def _sample(self, shared: Tensor, noise: Tensor | None) -> Sample:
        noise = None if self._rssm.settings.kind == "rnn" else noise
        return self._rssm.latent.pick(self.step.raw(shared), noise)

    def _state(self, deter: Tensor, sample: Sample, like: State) -> State:
        """Return states [M, ...] in the precision of `like`."""
        return State(deter.to(like.deter.dtype), sample.vector().to(like.stoch.dtype))

    def _candidate_states(
        self, deter: Tensor, sample: Sample, like: State, rows: Sequence[int]
    ) -> State:
        """Return states of M rows as [B, N, ...] in the precision of `like`."""
        return State(*(leaf.unflatten(0, rows) for leaf in self._state(deter, sample, like)))

    def _predict(self, deters: list[Tensor], samples: list[Sample]) -> tuple[Tensor, Tensor | None]:
        """Return the rewards and the chances to go on of all states, [H * M] each; None: all 1."""
        reward = self._read(self.reward, deters, samples)
        if self.continue_head is None:
            return reward, None
        return reward, self._read(self.continue_head, deters, samples)

    def _read(self, head: nn.Module, deters: list[Tensor], samples: list[Sample]) -> Tensor:
        """Apply a head to all states in parts of HEAD_ROWS, [H * M]."""
        rows = HEAD_ROWS if deters[0].device.type == "cpu" else DEVICE_HEAD_ROWS
        many = max(1, rows // len(deters[0]))  # steps at once
        parts = []
        for start in range(0, len(deters), many):
            deter = torch.cat(deters[start : start + many])
            sample = Sample.cat(samples[start : start + many])
            ssm = self._rssm.settings.kind == "ssm"
            parts.append(head(sample.vector() if ssm else (deter, sample)))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _by_step(parts: Tensor) -> Tensor:
    """Return parts [B, N, H, ...] as [H, B * N, ...]; on a CPU the rows of a step lie together."""
    steps = parts.flatten(0, 1).transpose(0, 1)
    return steps.contiguous() if parts.device.type == "cpu" else steps


def _joined(parts: list[Rollout]) -> Rollout:
    """Put together the rollouts of parts of the candidates."""
    return pytree.tree_map(
        lambda *leaves: None if leaves[0] is None else torch.cat(leaves, 1), *parts
    )
