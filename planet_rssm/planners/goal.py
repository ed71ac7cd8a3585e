"""A reward for reaching a state."""

import functools
import operator
from collections.abc import Callable

from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.types import S


def goal_reward(
    goal: S,
    weight: object = 1.0,
) -> Callable[[S, Tensor, S], Tensor]:
    """Return a reward for FunctionDynamics: minus the distance of the next state from the goal.

    The distance is the weighted sum of squared differences.

    Args:
        goal: built as the state is, of tensors without the row axis. Goals that differ by row
            belong in the state.
        weight: a number; or built as the goal is, of what multiplies the squared differences, 0
            for parts that do not count.

    Raises:
        PlanetError: when called, a part of the goal is of another shape than that of one row of the
            state.
    """
    targets, form = pytree.tree_flatten(goal)
    weights: list[Tensor | float]
    if isinstance(weight, (int, float)):
        weights = [weight] * len(targets)
    else:
        weights = form.flatten_up_to(weight)

    def reward(state: S, action: Tensor, following: S) -> Tensor:
        parts = map(_distance, form.flatten_up_to(following), targets, weights)
        return -functools.reduce(operator.add, parts)

    return reward


def _distance(reached: Tensor, goal: Tensor, weight: Tensor | float) -> Tensor:
    """Return [M] for a part [M, ...] of the state."""
    if goal.shape != reached.shape[1:]:
        raise PlanetError(
            f"goal of shape {tuple(goal.shape)}: must be {tuple(reached.shape[1:])}, as one row of "
            "the state is; goals that differ by row belong in the state"
        )
    return (weight * (reached - goal).square()).reshape(len(reached), -1).sum(1)
