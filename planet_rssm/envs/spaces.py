"""Gymnasium's spaces in the house's terms: named images and vectors seen, numbers in [-1, 1] or a choice done."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces
from PIL import Image

from planet_rssm.errors import PlanetError

UNBOUNDED = 1e6  # a bound beyond this is none
_COLOURS = (3, 1)  # channels that an image may have, not a stack of frames
_SMALLEST = 16  # pixels a side: less is a board or a map of codes, which is not to be resized
_VECTORS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
_WRAP = "give as env.id=module:Class a wrapper of your own"

_log = logging.getLogger("planet_rssm")

Array = np.ndarray


class Leaf(NamedTuple):
    """One space that holds no other, where it lies in what the environment returns."""

    path: tuple[str | int, ...]
    space: Space[Any]

    def name(self, flat: str) -> str:
        """Return the key of its array; `flat` if the environment has this one space only."""
        return ".".join(map(str, self.path)) or flat

    def of(self, observation: Any) -> Any:  # noqa: ANN401 (whatever the environment returns)
        """Return this leaf's part of an observation."""
        for key in self.path:
            observation = observation[key]
        return observation


class Observer:
    """Turns what a Gymnasium environment shows into arrays of fixed shapes.

    pixels are its own images if it has any, else the frame that it draws, under the key "image"; vectors are all else
    that it observes, discrete parts one-hot, under the key "vector"; both are both. The entries of a Dict or Tuple keep
    their own names, nested ones joined by dots.
    """

    def __init__(self, task: str, space: Space[Any], observe: str, size: int) -> None:
        """Choose what is observed of `space`; images get `size` pixels a side.

        Raises:
            PlanetError: the space has not what `observe` asks for; the line says what would work.
        """
        leaves = list(_leaves(space))
        pictures = [leaf for leaf in leaves if _is_picture(leaf.space)]
        self._size = size
        self._images = pictures if observe != "vectors" else []
        self._vectors = [leaf for leaf in leaves if leaf not in pictures] if observe != "pixels" else []
        self.draws = observe != "vectors" and not pictures  # the environment's frame is what is seen
        _refuse_stacks(task, self._images)
        _refuse_others(task, self._vectors)
        if observe != "pixels" and not self._vectors:
            raise PlanetError(f"env.observe = {observe!r}: {task} shows images only; use env.observe=pixels")
        images = ["image"] if self.draws else [leaf.name("image") for leaf in self._images]
        vectors = {leaf.name("vector"): spaces.flatdim(leaf.space) for leaf in self._vectors}
        _refuse_clash(task, [*images, *(leaf.name("vector") for leaf in self._vectors)])
        self.spec: dict[str, tuple[tuple[int, ...], str]]
        self.spec = {key: ((length,), "float32") for key, length in vectors.items()}
        self.spec |= {key: ((size, size, 3), "uint8") for key in images}

    def __call__(self, observation: Any, frame: Array | None) -> dict[str, Array]:  # noqa: ANN401
        """Return the arrays of one observation, all of them new.

        Args:
            observation: what the environment returned.
            frame: its drawing, uint8 [H, W, 3], None where it is not needed.

        Raises:
            ValueError: a vector of another length than its space says, or with NaN or infinity in it.
        """
        arrays = {leaf.name("vector"): _vector(leaf, observation) for leaf in self._vectors}
        for leaf in self._images:
            arrays[leaf.name("image")] = resized(_channels_last(leaf.of(observation)), self._size)
        return arrays if frame is None else arrays | {"image": resized(frame, self._size)}

    def blind(self, observation: Any) -> dict[str, Array]:  # noqa: ANN401
        """Return the same arrays with black images."""
        black = {key: np.zeros(shape, np.uint8) for key, (shape, dtype) in self.spec.items() if dtype == "uint8"}
        return black | {leaf.name("vector"): _vector(leaf, observation) for leaf in self._vectors}


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


def resized(picture: Array, size: int) -> Array:
    """Return a picture uint8 [H, W, 3] as [size, size, 3]; what is not square is stretched."""
    if picture.shape == (size, size, 3):
        return np.array(picture)
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def _leaves(space: Space[Any], path: tuple[str | int, ...] = ()) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        parts: Sequence[tuple[str | int, Space[Any]]] = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space.spaces))
    else:
        yield Leaf(path, space)
        return
    for key, part in parts:
        yield from _leaves(part, (*path, key))


def _is_picture(space: Space[Any]) -> bool:
    """Whether it holds pixels, be they of one image or of a stack."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    large = len(space.shape) >= 2 and sorted(space.shape)[-2] >= _SMALLEST
    return large and bool((space.low == 0).all() and (space.high == 255).all())


def _refuse_stacks(task: str, pictures: list[Leaf]) -> None:
    for _, space in pictures:
        shape = space.shape or ()
        if len(shape) > 3 or 0 in shape or (len(shape) == 3 and not {shape[0], shape[2]} & {*_COLOURS}):
            raise PlanetError(
                f"env.id = {task!r}: its images have shape {list(shape)}, must be [H, W], [H, W, 3], [3, H, W] or have "
                "1 channel; take its frame-stacking wrapper off, the model has a memory of its own"
            )


def _refuse_others(task: str, leaves: list[Leaf]) -> None:
    for leaf in leaves:
        if not isinstance(leaf.space, _VECTORS) or not spaces.flatdim(leaf.space):
            kind, where = type(leaf.space).__name__, leaf.name("its observation")
            raise PlanetError(
                f"env.id = {task!r}: {where} is a {kind} space that makes no vector; "
                f"use env.observe=pixels, or {_WRAP} that leaves it out"
            )


def _refuse_clash(task: str, names: list[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise PlanetError(f"env.id = {task!r}: has more than one observation {twice.pop()!r}; {_WRAP} with other names")


def _vector(leaf: Leaf, observation: Any) -> Array:  # noqa: ANN401
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused
        vector = np.array(spaces.flatten(leaf.space, leaf.of(observation)), np.float32)
    if vector.shape != (spaces.flatdim(leaf.space),):
        raise ValueError(f"observation {leaf.name('vector')!r} has {vector.size} values, its space {leaf.space}")
    if not np.isfinite(vector).all():
        raise ValueError(f"observation {leaf.name('vector')!r} has NaN or infinity in it")
    return vector


def _channels_last(picture: Any) -> Array:  # noqa: ANN401
    """Return uint8 [H, W, 3] of [H, W], [H, W, C] or [C, H, W] with 1 or 3 channels."""
    picture = np.asarray(picture, np.uint8)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.shape[2] not in _COLOURS:
        picture = np.moveaxis(picture, 0, 2)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
