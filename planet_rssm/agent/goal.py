"""A goal given as an observation: plans are worth how near they come to it in latent space."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planet_rssm.planners import Objective
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel

# Observations of the goal that are filtered one after another: the deterministic part of a belief
# then is one that stands still there.
SETTLE = 5


@dataclass(frozen=True)
class GoalDistance:
    """How far beliefs are from a goal's: the mean square over the numbers of each of their parts.

    A cost and, negated, a terminal value of an `Objective`. It reads tensors alone.
    """

    goal: State  # one row

    def __call__(self, state: State, action: Tensor, previous: Tensor) -> Tensor:
        """Return the distance [M] of states [M, ...]; actions do not count."""
        return self.of(state)

    def of(self, state: State) -> Tensor:
        """Return the distance [M] of states [M, ...], at least 0."""
        parts = [
            (mine.float() - goal).square().mean(-1)
            for mine, goal in zip(state, self.goal, strict=True)
            if goal.shape[-1]
        ]
        return torch.stack(parts).sum(0)

    def nearness(self, state: State) -> Tensor:
        """Return the negative distance [M]."""
        return -self.of(state)


@torch.no_grad()
def goal_belief(
    model: WorldModel, observation: Mapping[str, Tensor], settle: int = SETTLE
) -> State:
    """Return the belief, one row, after a goal was observed `settle` times while nothing was done.

    Nothing is drawn: modes of the posterior, and the middle of each step of quantised pixels.

    Args:
        model: on the observation's device.
        observation: of the goal, a row each: uint8 [1, size, size, 3] and float32 [1, n].
        settle: at least 1.
    """
    middle = {
        key: torch.full(value.shape, 0.5, device=value.device)
        for key, value in observation.items()
        if value.ndim == 4 and model.settings.pixels == "quantised"
    }
    embed = model.encode(observation, middle)
    state = model.rssm.initial_state(1)
    still = embed.new_zeros(1, model.spec.action_size)
    for step in range(settle):
        first = torch.full((1,), step == 0, device=embed.device)
        state, _ = model.rssm.observe_step(state, still, embed, first, None)
    return State(state.deter.float(), state.stoch.float())


def goal_objective(goal: State, discount: float = 1.0) -> Objective:
    """Return an objective that counts nearness to a goal's belief and no reward.

    Each state on the way counts, and the last one.
    """
    distance = GoalDistance(goal)
    return Objective(discount, distance.nearness, distance, reward_scale=0.0)
