"""Gymnasium's action spaces in the house's terms: numbers in [-1, 1] or a choice. What is seen: see observer.py."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.envs.pictures import UNBOUNDED
from planet_rssm.errors import PlanetError

_WRAP = "give as env.id=module:Class a wrapper of your own"

_log = logging.getLogger("planet_rssm")

Array = np.ndarray


class Numbers:
    """Actions in [-1, 1], mapped linearly onto the bounds of each dimension; without bounds they stay as they are."""

    discrete = False

    def __init__(self, task: str, space: spaces.Box) -> None:
        """Read the bounds.

        Raises:
            PlanetError: whole numbers, or a dimension that is bounded on one side only.
        """
        if 0 in space.shape:
            raise PlanetError(f"env.id = {task!r}: it takes no actions, {space}; {_WRAP} with at least one")
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        below, above = low >= -UNBOUNDED, high <= UNBOUNDED
        if space.dtype is None or not np.issubdtype(space.dtype, np.floating):
            raise PlanetError(f"env.id = {task!r}: its actions are whole numbers, {space}; {_WRAP} with floats")
        if (below != above).any():
            raise PlanetError(f"env.id = {task!r}: its actions are bounded on one side, {space}; {_WRAP} with both")
        if not below.all():
            _log.warning("%s: %d of its %d actions have no bounds and get [-1, 1]", task, (~below).sum(), below.size)
        self._space, self.size = space, low.size
        self._low, self._high = np.where(below, low, -1.0), np.where(above, high, 1.0)

    def __call__(self, action: Array) -> Array:
        """Return the environment's action for float32 [A] in [-1, 1]; values beyond are clipped."""
        share = (np.clip(checked(action, self.size), -1, 1) + 1) / 2
        value = np.clip(self._low * (1 - share) + self._high * share, self._low, self._high)
        return value.astype(self._space.dtype).reshape(self._space.shape)

    def inverse(self, actions: Array) -> Array:
        """Return our actions, float32 [T, A], for T of the environment's; what lies beyond its bounds, beyond 1."""
        flat, width = np.asarray(actions, np.float64).reshape(len(actions), -1), self._high - self._low
        ours = 2 * (flat - self._low) / np.where(width > 0, width, 1) - 1
        return np.where(width > 0, ours, 0).astype(np.float32)


class Choice:
    """One of n actions, one-hot."""

    discrete = True

    def __init__(self, task: str, space: spaces.Discrete) -> None:
        """Read how many there are."""
        self.size, self._start = int(space.n), int(space.start)

    def __call__(self, action: Array) -> int:
        """Return the environment's action for one-hot float32 [A]; of other values the largest counts."""
        return self._start + int(np.argmax(checked(action, self.size)))

    def inverse(self, actions: Array) -> Array:
        """Return our actions, one-hot float32 [T, A], for T of the environment's.

        Raises:
            ValueError: one that is no choice.
        """
        index = np.asarray(actions).reshape(-1) - self._start
        if wrong := {int(value) for value in index if not 0 <= value < self.size}:
            raise ValueError(f"action {self._start + wrong.pop()}: must be one of {self.size} from {self._start} on")
        return np.eye(self.size, dtype=np.float32)[index]


def action_map(task: str, space: Space[Any]) -> Numbers | Choice:
    """Return what turns our actions into those of `space`.

    Raises:
        PlanetError: a space that is neither Discrete nor a Box of floats that are bounded on both sides or on none.
    """
    for kind, made in _ACTIONS.items():
        if isinstance(space, kind):
            return made(task, space)
    raise PlanetError(f"env.id = {task!r}: its actions are {space}, must be a Box or Discrete; {_WRAP} with one")


_ACTIONS: dict[type[Space[Any]], Callable[[str, Any], Numbers | Choice]] = {
    spaces.Box: Numbers,
    spaces.Discrete: Choice,
}


def checked(action: Array, size: int) -> Array:
    """Return the action as float64 [size].

    Raises:
        ValueError: another shape, or NaN or infinity in it.
    """
    action = np.asarray(action, np.float64)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise ValueError(f"action {action.tolist()}: needs shape {[size]} and finite values")
    return action
