"""Which spaces are pictures, and how those become uint8 [size, size, 3]."""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gymnasium import Space, spaces
from PIL import Image

Array = np.ndarray
UNBOUNDED = 1e6  # a bound beyond this is none
MAX_FRAME = 480  # pixels a side of a video: dm_control's models reserve a GL buffer 480 high
_COLOURS = (3, 1)  # channels that an image may have, not a stack of frames
_SMALLEST = 16  # pixels a side: less is a board or a map of codes, which is not to be resized
_SURELY = 32  # pixels a side from which it is no board or table, whatever its numbers are
_FILTER = Image.Resampling.BILINEAR
_PIXELS = 1 << 20  # that are resized in one call: 4 MiB, whatever there are
_SLACK = 0.01  # share of the range by which an interpolated pixel may lie beyond it


class UndeclaredError(ValueError):
    """What an environment returned is not what it declared."""


def is_picture(space: Space[object]) -> bool:
    """Return whether it is of pixels, of one image or of a stack of frames, by its shape.

    Bytes from 0 to 255 and colours do from 16 pixels a side; other numbers from 32, and if they are
    bounded.
    """
    if not could_be_picture(space):
        return False
    shape = space.shape or ()
    colours = len(shape) == 3 and bool({shape[0], shape[2]} & {*_COLOURS})
    return _is_plain(space) or colours or (sorted(shape)[-2] >= _SURELY and is_bounded(space))


def could_be_picture(space: Space[object]) -> bool:
    """Return whether it has the shape of something that is looked at."""
    return (
        isinstance(space, spaces.Box)
        and len(space.shape) >= 2
        and sorted(space.shape)[-2] >= _SMALLEST
    )


def is_bounded(space: Space[object]) -> bool:
    """Return whether every number of a Box has bounds."""
    low, high = _bounds(space)
    return bool((np.abs(low) <= UNBOUNDED).all() and (np.abs(high) <= UNBOUNDED).all())


def is_one(space: Space[object]) -> bool:
    """Return whether a picture is one image.

    That is [H, W], or with 3 channels or 1 as its first or last axis.
    """
    shape = space.shape or ()
    return 0 not in shape and (
        len(shape) == 2 or (len(shape) == 3 and bool({shape[0], shape[2]} & {*_COLOURS}))
    )


class Scale:
    """Turns the numbers of a bounded picture into uint8: lower bounds into 0, upper into 255."""

    def __init__(self, space: Space[object]) -> None:
        """Read the kind of numbers and their bounds."""
        low, high = _bounds(space)
        self.plain = _is_plain(space)
        self._kinds = {"f": "f", "b": "b"}.get(np.dtype(space.dtype).kind, "iu")
        self._low = low
        self._high = high
        width = high - low
        self._slack = _SLACK * width * (self._kinds == "f")
        self._factor = np.divide(255.0, width, out=np.zeros_like(width), where=width > 0)

    def __str__(self) -> str:
        numbers = {"f": "floats", "b": "switches", "iu": "whole numbers"}[self._kinds]
        return f"{numbers} from {self._low.min():g} to {self._high.max():g}"

    def __call__(self, picture: Array) -> Array:
        """Return a picture in uint8, of the same shape.

        Raises:
            UndeclaredError: another kind of numbers, or some beyond the bounds.
            ValueError: NaN or infinity.
        """
        if self.plain and picture.dtype == np.uint8:
            return picture
        if picture.dtype.kind not in self._kinds or not self._reaches_bounds(picture.dtype):
            raise UndeclaredError(f"is {described(picture)}, its space has {self}")
        value = picture.astype(np.float64)
        if not np.isfinite(value).all():
            raise ValueError("has NaN or infinity in it")
        if (value < self._low - self._slack).any() or (value > self._high + self._slack).any():
            raise UndeclaredError(f"is {described(picture)}, its space has {self}")
        return np.rint(((value - self._low) * self._factor).clip(0, 255)).astype(np.uint8)

    def _reaches_bounds(self, dtype: np.dtype) -> bool:
        """Return whether numbers of that type reach the bounds.

        Bytes where 65535 is declared would be nearly black.
        """
        return dtype.kind not in "iu" or float(np.iinfo(dtype).max) >= self._high.max()


def resized(picture: Array, size: int) -> Array:
    """Return a picture uint8 [H, W, 3] as [size, size, 3]; what is not square is stretched."""
    if picture.shape == (size, size, 3):
        return np.array(picture)
    return np.array(Image.fromarray(picture).resize((size, size), _FILTER))


def all_resized(pictures: Array, size: int) -> Array:
    """Return what `resized` makes of each of uint8 [n, H, W, 3], to the bit, as [n, size, size, 3].

    A few share a call of Pillow, see `_rows_first`; all cores have some.
    """
    count, height, width = pictures.shape[:3]
    made = np.empty((count, size, size, 3), np.uint8)
    together = _rows_first(height, width, size)
    workers, cores = _workers()
    block = min(at_once(height, width), math.ceil(count / cores)) or 1

    def make(at: int) -> None:
        part = slice(at, at + block)
        if together:
            made[part] = _together(pictures[part], size)
        else:
            made[part] = [resized(np.ascontiguousarray(one), size) for one in pictures[part]]

    for _ in workers.map(make, range(0, count, block)):
        pass  # it raises here what one of them raised
    return made


@functools.cache
def _workers() -> tuple[ThreadPoolExecutor, int]:
    """Return threads that resize beside each other, one for each core, and how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores or 1, "resize"), cores or 1


@functools.cache
def _rows_first(height: int, width: int, size: int) -> bool:
    """Return whether Pillow resizes pictures of that size along their rows, then their columns.

    Between the two it keeps bytes, so pictures above each other can share a call for the first, and
    pictures beside each other one for the second. Some sizes it resizes the other way round.
    """
    pair = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    return np.array_equal(_together(pair, size), [resized(picture, size) for picture in pair])


def _together(pictures: Array, size: int) -> Array:
    count, height, width = pictures.shape[:3]
    tall = np.ascontiguousarray(pictures).reshape(count * height, width, 3)
    rows = _stretched(tall, size, count * height).reshape(count, height, size, 3)
    wide = _stretched(rows.swapaxes(0, 1).reshape(height, count * size, 3), count * size, size)
    return wide.reshape(size, count, size, 3).swapaxes(0, 1)


def at_once(height: int, width: int) -> int:
    """Return how many pictures of that size are resized in one call."""
    return max(1, _PIXELS // max(1, height * width))


def _stretched(picture: Array, width: int, height: int) -> Array:
    return np.asarray(Image.fromarray(picture).resize((width, height), _FILTER))


def channels_last(picture: Array) -> Array:
    """Return [H, W, 3] of [H, W], [H, W, C] or [C, H, W] with 1 or 3 channels."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.shape[2] not in _COLOURS:
        picture = np.moveaxis(picture, 0, 2)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def described(values: Array) -> str:
    """Return number type and range, `float32 from 0 to 1`."""
    if values.dtype.kind not in "fiu":
        return str(values.dtype)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return str(values.dtype)
    return f"{values.dtype} from {finite.min():g} to {finite.max():g}"


def _is_plain(space: Space[object]) -> bool:
    low, high = _bounds(space)
    return space.dtype == np.uint8 and bool((low == 0).all() and (high == 255).all())


def _bounds(space: Space[object]) -> tuple[Array, Array]:
    """Return the bounds of a Box as float64, one number each where all are alike."""
    assert isinstance(space, spaces.Box)  # for the type checker
    both = space.low.astype(np.float64), space.high.astype(np.float64)
    if all(bound.size and (bound == bound.flat[0]).all() for bound in both):
        return both[0].reshape(-1)[:1], both[1].reshape(-1)[:1]
    return both
