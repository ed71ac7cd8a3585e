"""The spaces inside Dict and Tuple spaces, and the part of an observation that each describes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.envs.pictures import UndeclaredError, described, is_picture

IMAGE, VECTOR = "image", "vector"  # names of what has none
# spaces that make a vector
VECTORS = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)

Array = np.ndarray


class Subspace(NamedTuple):
    """One space that contains no other, and where it lies in what the environment returns."""

    path: tuple[str | int, ...]
    space: Space[object]
    name: str  # the key of its array

    def of(self, observation: object) -> Any:  # noqa: ANN401 (whatever the environment returns)
        """Return this subspace's part of an observation.

        Raises:
            UndeclaredError: there is none.
        """
        part: Any = observation
        for key in self.path:
            try:
                part = part[key]
            except (KeyError, IndexError, TypeError):
                raise UndeclaredError("is declared, but not among what was returned") from None
        return part


def subspaces_of(space: Space[object], path: tuple[str | int, ...] = ()) -> Iterator[Subspace]:
    """Yield the spaces within `space` that contain no other, in its order."""
    if isinstance(space, spaces.Dict):
        parts: Sequence[tuple[str | int, Space[object]]] = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space.spaces))
    else:
        unnamed = IMAGE if is_picture(space) else VECTOR
        yield Subspace(path, space, ".".join(map(str, path)) or unnamed)
        return
    for key, part in parts:
        yield from subspaces_of(part, (*path, key))


def is_empty(space: Space[object]) -> bool:
    """Return whether it is of a kind that makes vectors, but of length 0."""
    return isinstance(space, VECTORS) and not spaces.flatdim(space)


def read(
    part: Subspace,
    observation: object,
    reader: Callable[[Space[object], object], Array],
) -> Array:
    """Return what `reader` makes of a subspace's part of an observation; errors say which part."""
    try:
        return reader(part.space, part.of(observation))
    except UndeclaredError as error:
        raise UndeclaredError(f"observation {part.name!r} {error}") from None
    except ValueError as error:
        raise ValueError(f"observation {part.name!r} {error}") from None


def array_of(space: Space[object], value: object) -> Array:
    """Return a part of an observation as an array of its space's shape.

    Axes of length 1 may be missing in it.

    Raises:
        UndeclaredError: it has another shape, or is no array of numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise UndeclaredError(
            f"is no array of numbers but {type(value).__name__}, its space is {space}"
        )
    shape = space.shape or ()
    if _without_ones(array.shape) != _without_ones(shape):
        raise UndeclaredError(f"has shape {list(array.shape)}, its space {list(shape)}")
    return array.reshape(shape)


def vector_of(space: Space[object], value: object) -> Array:
    """Return a part of an observation as float32 [n]."""
    array = array_of(space, value)
    if np.dtype(space.dtype).kind != "f":
        _check_integers(space, array)
    if isinstance(space, spaces.Discrete):
        array = array.astype(int).item()
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused
        vector = np.array(spaces.flatten(space, array), np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("has NaN or infinity in it")
    return vector


def _check_integers(space: Space[object], array: Array) -> None:
    """Refuse what a space of integers would cut off or wrap around.

    Raises:
        UndeclaredError: fractions, or what lies beyond the choices or the bounds.
    """
    low, high = _limits(space)
    if not ((array >= low) & (array <= high) & (array == np.rint(array))).all():
        raise UndeclaredError(f"is {described(array)}, its space is {space}")


def _limits(space: Space[object]) -> tuple[int | Array, int | Array]:
    """Return the least and the largest number that a space of integers has."""
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iu":
        return np.iinfo(space.dtype).min, np.iinfo(space.dtype).max
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return 0, 1


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [length for length in shape if length != 1]
