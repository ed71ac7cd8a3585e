"""The world model as a planner sees it."""

import torch
from torch import Tensor

from planet_rssm.types import Dynamics, Rollout, State
from planet_rssm.world_model.model import WorldModel
from planet_rssm.world_model.packed_model import FastDynamics


class ModelDynamics(Dynamics[State]):
    """Candidates followed through `imagine_step`s, one latent sample each.

    The heads run once over all steps.
    """

    differentiable = True

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return [B, N, H, noise_size]: the prior's noise; None where planning follows its mode."""
        rssm = self.model.rssm
        return (
            (batch, candidates, horizon, rssm.noise_size)
            if rssm.settings.plan_by == "sample"
            else None
        )

    def rollout(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...].

        The discount is the chance to go on.
        """
        return self._predict(self._imagine(state, actions, noise), actions.shape[:2])

    def trace(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what `rollout` does and keep the states on the way."""
        reached, rows = self._imagine(state, actions, noise), actions.shape[:2]
        start = (part[:, None, None].expand((*rows, 1, -1)) for part in state)
        before = (part.unflatten(0, rows)[:, :, :-1] for part in reached)
        states = State(*(torch.cat(parts, 2) for parts in zip(start, before, strict=True)))
        return self._predict(reached, rows)._replace(states=states)

    def _imagine(self, state: State, actions: Tensor, noise: Tensor | None) -> State:
        """Return the states [B · N, H, ...] that the actions lead to."""
        # batch-major rows b0n0, b0n1, ..: as actions.flatten(0, 1) has them
        start = State(*(part.repeat_interleave(actions.shape[1], 0) for part in state))
        return self.model.rssm.imagine(
            start, actions.flatten(0, 1), None if noise is None else noise.flatten(0, 1)
        )

    def _predict(self, states: State, rows: torch.Size) -> Rollout:
        reward = self.model.predict_reward(states).unflatten(0, rows)
        last = State(*(part[:, -1].unflatten(0, rows) for part in states))
        return Rollout(reward, self.model.predict_continue(states).unflatten(0, rows), last)

    def prepare(self, precision: str) -> FastDynamics:
        """Return the same without gradients and several times faster; see `FastDynamics`."""
        return FastDynamics(self.model, precision)
