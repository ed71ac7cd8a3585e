"""A reward for reaching a state."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.errors import PlanetError


def goal_reward(goal: Any, weight: Any = 1.0) -> Callable[[Any, Tensor, Any], Tensor]:  # noqa: ANN401 (any pytree)
    """Return a reward for FunctionDynamics: minus the weighted squared distance of the next state from the goal.

    Args:
        goal: built as the state is, of tensors [...] without the row axis for one goal, or [B, ...] for one a row.
        weight: a number, or tensors that multiply the squared differences, built as the goal is; 0 ignores a part.

    Raises:
        PlanetError: the weight is built otherwise.
    """
    if not isinstance(weight, (int, float)) and pytree.tree_structure(weight) != pytree.tree_structure(goal):
        raise PlanetError(f"weight of a goal: {pytree.tree_structure(weight)}, must be built as the goal is")

    def reward(state: Any, action: Tensor, following: Any) -> Tensor:  # noqa: ANN401
        reached, wanted = pytree.tree_leaves(following), pytree.tree_leaves(goal)
        weights = [weight] * len(wanted) if isinstance(weight, (int, float)) else pytree.tree_leaves(weight)
        parts = (_distance(*each) for each in zip(reached, wanted, weights, strict=True))
        return -functools.reduce(operator.add, parts)

    return reward


def _distance(reached: Tensor, goal: Tensor, weight: Tensor | float) -> Tensor:
    """Return [M] for a part [M, ...] of the state."""
    if goal.ndim == reached.ndim:  # one a row of B, and M = B · N is batch-major
        goal = goal.repeat_interleave(len(reached) // len(goal), 0)
    return (weight * (reached - goal).square()).reshape(len(reached), -1).sum(1)
