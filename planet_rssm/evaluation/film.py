"""The video of an episode."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from planet_rssm.envs.pool import Pool, Step

VIDEO_SIZE = 256  # pixels a side; videos are drawn again, larger than what the agent observes

# of frames [VIDEO_SIZE, VIDEO_SIZE, 3] and frames a second; returns the file
WriteVideo = Callable[[Sequence[np.ndarray], float], Path]

_log = logging.getLogger("planet_rssm")


class Camera:
    """Films row 0 of a pool until its first episode ends."""

    def __init__(self, pool: Pool) -> None:
        self.frames: list[np.ndarray] = []  # uint8 [VIDEO_SIZE, VIDEO_SIZE, 3]
        self._pool = pool
        self._done = False

    def take(self, steps: Mapping[int, Step]) -> None:
        """Take a frame after a step of the pool."""
        if self._done or 0 not in steps:
            return
        if steps[0].lost:  # its episode begins again, in a worker that has nothing to show yet
            self.frames.clear()
        else:
            self.frames.append(self._pool.render(0, VIDEO_SIZE))
            self._done = steps[0].terminated or steps[0].truncated


def write_or_warn(write: Callable[..., Path], *what: object, kind: str = "video") -> str | None:
    """Return the file that `write` made; one that cannot be written costs a warning and is None."""
    try:
        return str(write(*what))
    except OSError as error:  # a shared run may be read-only: the numbers are worth more
        _log.warning("%s not written (%s)", kind, error)
        return None
