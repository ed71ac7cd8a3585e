"""Gymnasium's action spaces as actions here: numbers in [-1, 1], or choices, one-hot by group.

Its observation spaces: see observer.py.
"""

import itertools
import logging
import math
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.choices import MOST, Groups, from_places, places
from planet_rssm.envs.pictures import UNBOUNDED
from planet_rssm.envs.subspaces import is_empty

_WRAP = "give as env.id=module:Class a wrapper of your own"

_log = logging.getLogger("planet_rssm")

Array = np.ndarray
Choices = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box  # whole numbers


class Numbers:
    """Actions in [-1, 1], mapped linearly onto the bounds of each dimension.

    Without bounds they stay as they are.
    """

    groups: Groups = ()

    def __init__(self, task: str, space: spaces.Box) -> None:
        """Read the bounds.

        Raises:
            PlanetError: nothing to choose, or a dimension that is bounded on one side only.
        """
        if 0 in space.shape:
            raise PlanetError(
                f"env.id = {task!r}: it takes no actions, {space}; {_WRAP} with at least one"
            )
        low = space.low.astype(np.float64).ravel()
        high = space.high.astype(np.float64).ravel()
        below = low >= -UNBOUNDED
        above = high <= UNBOUNDED
        if (below != above).any():
            raise PlanetError(
                f"env.id = {task!r}: its actions are bounded on one side, {space}; "
                f"{_WRAP} with both"
            )
        if not below.all():
            _log.warning(
                "%s: %d of its %d actions have no bounds and get [-1, 1]",
                task,
                (~below).sum(),
                below.size,
            )
        self._space = space
        self.size = low.size
        self._low = np.where(below, low, -1.0)
        self._high = np.where(above, high, 1.0)

    def __call__(self, action: Array) -> Array:
        """Return the environment's action for float32 [A] in [-1, 1]; values beyond are clipped."""
        share = (np.clip(checked(action, self.size), -1, 1) + 1) / 2
        value = np.clip(self._low * (1 - share) + self._high * share, self._low, self._high)
        return value.astype(self._space.dtype).reshape(self._space.shape)

    def inverse(self, actions: Array) -> Array:
        """Return our actions, float32 [T, A], for T of the environment's.

        What lies beyond its bounds lies beyond 1.
        """
        flat = np.asarray(actions, np.float64).reshape(len(actions), -1)
        width = self._high - self._low
        ours = 2 * (flat - self._low) / np.where(width > 0, width, 1) - 1
        return np.where(width > 0, ours, 0).astype(np.float32)


class Choice:
    """Choices from one space: a one-hot in each of its groups; a Box of whole numbers is such."""

    def __init__(self, task: str, space: Choices) -> None:
        """Read how many there are.

        Raises:
            PlanetError: none, or too many.
        """
        if isinstance(space, spaces.Discrete):
            count, start = np.array([space.n]), np.array([space.start])
        elif isinstance(space, spaces.MultiDiscrete):
            count, start = space.nvec.ravel(), space.start.ravel()
        elif isinstance(space, spaces.Box):
            start = space.low.ravel()
            count = space.high.ravel().astype(np.float64) - start.astype(np.float64) + 1
        else:
            count, start = (
                np.broadcast_to(np.int64(value), math.prod(space.shape)) for value in (2, 0)
            )
        _refuse_many(task, space, int(count.sum()))
        self.groups = tuple(count.astype(int).tolist())
        self.size = sum(self.groups)
        self._space = space
        self._start = start.astype(np.int64)

    def __call__(self, action: Array) -> int | Array:
        """Return the environment's action for float32 [A], one-hot by group.

        Of other values the largest counts.
        """
        index = self._start + places(checked(action, self.size), self.groups)
        if isinstance(self._space, spaces.Discrete):
            return int(index[0])
        return index.reshape(self._space.shape or ()).astype(self._space.dtype)

    def inverse(self, actions: Array) -> Array:
        """Return our actions, float32 [T, A], for T of the environment's.

        Raises:
            ValueError: one that is no choice.
        """
        index = np.asarray(actions).astype(np.int64).reshape(len(actions), -1) - self._start
        wrong = (index < 0) | (index >= self.groups)
        for group in np.flatnonzero(wrong.any(0))[:1].tolist():
            start = int(self._start[group])
            value = int(index[wrong[:, group], group][0])
            raise ValueError(
                f"action {start + value}: must be one of {self.groups[group]} from {start} on"
            )
        return from_places(index, self.groups)


class Joint:
    """The actions of a Dict or Tuple, its parts side by side: all numbers, or all choices.

    Parts that hold nothing, as a gripper that is not there, stay empty.
    """

    def __init__(self, task: str, space: spaces.Dict | spaces.Tuple) -> None:
        """Take the parts, which may be nested.

        Raises:
            PlanetError: none, one that is refused alone, or a mix of numbers and choices.
        """
        self._named = isinstance(space, spaces.Dict)
        parts: dict[str | int, Space[object]] = (
            dict(space.items()) if isinstance(space, spaces.Dict) else dict(enumerate(space))
        )
        self._empty = {
            key: np.zeros(part.shape or (), part.dtype)
            for key, part in parts.items()
            if is_empty(part)
        }
        self._maps: dict[str | int, Numbers | Choice | Joint] = {
            key: action_map(task, part) for key, part in parts.items() if key not in self._empty
        }
        if not self._maps:
            raise PlanetError(
                f"env.id = {task!r}: it takes no actions, {space}; {_WRAP} with at least one"
            )
        if len({bool(one.groups) for one in self._maps.values()}) > 1:
            kinds = ", ".join(
                f"{key!r} {'choices' if one.groups else 'numbers'}"
                for key, one in self._maps.items()
            )
            raise PlanetError(
                f"env.id = {task!r}: its actions mix numbers and choices ({kinds}); "
                f"{_WRAP} with choices only, a MultiDiscrete of levels in place of each Box, "
                "or with numbers only"
            )
        sizes: list[int] = [one.size for one in self._maps.values()]
        self.groups: Groups = sum((one.groups for one in self._maps.values()), ())
        self.size: int = sum(sizes)
        self._ends = np.cumsum(sizes)[:-1]
        _refuse_many(task, space, sum(self.groups))

    def __call__(self, action: Array) -> dict[str | int, object] | tuple[object, ...]:
        """Return the environment's action for float32 [A]; see the parts."""
        parts = np.split(checked(action, self.size), self._ends)
        values: dict[str | int, object] = {
            key: one(part) for (key, one), part in zip(self._maps.items(), parts, strict=True)
        }
        values |= {key: empty.copy() for key, empty in self._empty.items()}
        return values if self._named else tuple(values[place] for place in range(len(values)))

    def inverse(self, actions: Any) -> Array:  # noqa: ANN401 (as nested as the space)
        """Return our actions, float32 [T, A], for T of the environment's.

        Each part has a time axis.

        Raises:
            ValueError: one that is no choice.
        """
        return np.concatenate([one.inverse(actions[key]) for key, one in self._maps.items()], 1)


Actions = Numbers | Choice | Joint


def action_map(task: str, space: Space[object]) -> Actions:
    """Return what turns our actions into those of `space`.

    Its `groups` are () where they are numbers.

    Raises:
        PlanetError: it is not made of Boxes of floats, bounded on both sides or on none, nor of
            choices that are not too many; or it is made of both.
    """
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Numbers(task, space)
    if isinstance(space, Choices):
        return Choice(task, space)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return Joint(task, space)
    raise PlanetError(
        f"env.id = {task!r}: its actions are {space}, must be made of Box, Discrete, "
        f"MultiDiscrete or MultiBinary; {_WRAP} with those"
    )


def _refuse_many(task: str, space: Space[object], count: int) -> None:
    """Refuse no choice, and more than `MOST`, before anything of that size is made."""
    if not (count or isinstance(space, spaces.Dict | spaces.Tuple)):
        raise PlanetError(
            f"env.id = {task!r}: it takes no actions, {space}; {_WRAP} with at least one"
        )
    if count <= MOST:
        return
    instead = "fewer, or with floats" if isinstance(space, spaces.Box) else "fewer"
    if isinstance(space, spaces.Discrete):
        # as the digits of a number: two groups of a thousand for a million
        digits = next(n for n in itertools.count(2) if n * math.ceil(count ** (1 / n)) <= MOST)
        groups = [math.ceil(count ** (1 / digits))] * digits
        instead = f"several smaller ones, MultiDiscrete({groups})"
    raise PlanetError(
        f"env.id = {task!r}: its actions are {count} choices in {type(space).__name__}, "
        f"at most {MOST} are taken, for each is a number of every step; {_WRAP} with {instead}"
    )


def checked(action: Array, size: int) -> Array:
    """Return the action as float64 [size].

    Raises:
        ValueError: another shape, or NaN or infinity in it.
    """
    action = np.asarray(action, np.float64)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise ValueError(f"action {action.tolist()}: needs shape {[size]} and finite values")
    return action
