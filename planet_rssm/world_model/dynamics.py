"""The world model as a planner sees it."""

from torch import Tensor

from planet_rssm.types import Dynamics, Rollout, State
from planet_rssm.world_model.fast import FastDynamics
from planet_rssm.world_model.model import WorldModel


class ModelDynamics(Dynamics[State]):
    """Candidates followed through `imagine_step`s, one latent sample each; the heads run once over all steps."""

    differentiable = True

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return [B, N, H, noise_size]: the prior's standard normal noise; None where planning follows its mode."""
        rssm = self.model.rssm
        return (batch, candidates, horizon, rssm.noise_size) if rssm.settings.plan_by == "sample" else None

    def rollout(self, state: State, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...]; the discount is the chance to go on."""
        batch, candidates = actions.shape[:2]
        # batch-major rows b0n0, b0n1, ..: as actions.flatten(0, 1) has them
        start = State(*(part.repeat_interleave(candidates, 0) for part in state))
        drawn = None if noise is None else noise.flatten(0, 1)
        states = self.model.rssm.imagine(start, actions.flatten(0, 1), drawn)
        reward = self.model.predict_reward(states).unflatten(0, (batch, candidates))
        last = State(*(part[:, -1].unflatten(0, (batch, candidates)) for part in states))
        discount = self.model.predict_continue(states).unflatten(0, (batch, candidates))
        return Rollout(reward, discount, last)

    def prepare(self, precision: str) -> FastDynamics:
        """Return the same without gradients and several times faster; see `FastDynamics`."""
        return FastDynamics(self.model, precision)
