"""What every foreign set of episodes says of itself, and how its columns are read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json

Array = np.ndarray
# What the action and the reward in row t mean, beside the frame in row t:
#   arrived  the action led to the frame, the reward came with it (PlaNet, Dreamer V1 and V2)
#   taken    the action was chosen at the frame, the reward came with the frame (DreamerV3)
#   step     the action was chosen at the frame, the reward is what it gave (LeRobot, Gymnasium)
Order = Literal["arrived", "taken", "step"]
ORDERS: dict[Order, str] = {
    "arrived": "row t has the action that led to frame t, and the reward that came with frame t",
    "taken": "row t has the action chosen at frame t, and the reward that came with frame t",
    "step": "row t has the action chosen at frame t, and the reward of that action",
}
Prepare = Callable[[Array], Array]  # a block of frames [n, ...] as it is wanted
BLOCK = 64  # frames that are in memory at their full size


class Column(NamedTuple):
    """One column of a set: what one frame of it is."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Source(ABC):
    """A set of episodes in files of another program.

    Attributes:
        name: how the user named it.
        format: the format's name.
        order: how actions and rewards stand beside frames.
        columns: what there is, by name.
        lengths: frames of each episode.
        interval: seconds from one frame to the next; None: not in the files.
        notes: what was guessed or left out while it was opened.
        unequal: arrays that are left out, for they have not a row for each frame.
        filmed: whether images are in films, which lose a little.
        ours: what `planet data export` noted of the set; None: of another program.
    """

    name: str
    format: str
    order: Order
    columns: dict[str, Column]
    lengths: list[int]
    interval: float | None = None
    notes: tuple[str, ...] = ()
    unequal: frozenset[str] = frozenset()
    filmed: bool = False
    ours: Json | None = None

    @abstractmethod
    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return columns of an episode, [T, ...] each.

        Args:
            index: of the episode.
            wanted: their names, and what is applied to blocks of their frames while they are read,
                so that large images are never all in memory.

        Raises:
            PlanetError: the files are damaged.
        """

    def label(self, index: int) -> str:
        """Return how an episode is named in a line: by its file, where it has one."""
        return f"episode {index}"

    def noted(self, index: int) -> Json:
        """Return what `planet data export` noted of an episode: `info` and `terminated`."""
        return {}

    def close(self) -> None:  # noqa: B027 (most keep nothing open)
        """Close what is open."""


def in_blocks(array: Any, start: int, stop: int, prepare: Prepare) -> Array:  # noqa: ANN401
    """Return frames `start` to `stop` of a stored array, a block at a time, each prepared."""
    firsts = range(start, stop, BLOCK)
    blocks = (prepare(np.asarray(array[at : min(at + BLOCK, stop)])) for at in firsts)
    return joined(blocks, stop - start)


def joined(blocks: Iterator[Array], count: int) -> Array:
    """Return blocks of frames as one array of `count`; each is copied as it comes, and let go.

    Raises:
        ValueError: frames of different shapes, or not as many as `count`.
    """
    whole, done = np.empty(0), 0
    for block in blocks:
        if not done:
            if len(block) == count:
                return block
            whole = np.empty((count, *block.shape[1:]), block.dtype)
        if block.shape[1:] != whole.shape[1:] or block.dtype != whole.dtype:
            raise ValueError(f"frame 0 is {_words(whole[0])}, frame {done} is {_words(block[0])}")
        whole[done : done + len(block)] = block
        done += len(block)
    if done != count:
        raise ValueError(f"has {done} frames, not {count}")
    return whole


def _words(frame: Array) -> str:
    return f"{frame.dtype} {list(frame.shape)}"


def whole_numbers(values: Any, name: str) -> Array:  # noqa: ANN401
    """Return int64 numbers that say where episodes are.

    Raises:
        ValueError: they are of another kind.
    """
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.max() > np.iinfo(np.int64).max):
        raise ValueError(f"{name} is {array.dtype}, must be whole numbers")
    return array.astype(np.int64)


def need(name: str, extra: str) -> PlanetError:
    """Return the line for a package that is not installed."""
    return PlanetError(f"{name} is not installed; pip install 'planet-rssm[{extra}]'")
