"""What an episode has been so far, by which another environment is brought to where a lost one was."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


class Past:
    """An episode's seed, its actions, and a checksum of what was seen at each step, the reset included."""

    def __init__(self, seed: int) -> None:
        """Begin an episode that is reset with `seed`."""
        self.seed = seed
        self.actions: list[np.ndarray] = []  # float32 [A] each, what was done and answered
        self._seen: list[int] = []

    def add(
        self, action: np.ndarray | None, answer: Mapping[str, Any], seen: Mapping[str, np.ndarray]
    ) -> None:
        """Take in what the worker answered to an action, None for the reset, and the observation."""
        if action is not None:
            self.actions.append(np.array(action))
        self._seen.append(_checksum(answer, seen))

    def agrees(self, step: int, answer: Mapping[str, Any], seen: Mapping[str, np.ndarray]) -> bool:
        """Return whether the same was answered and seen at `step`, 0 for the reset."""
        return self._seen[step] == _checksum(answer, seen)


def _checksum(answer: Mapping[str, Any], seen: Mapping[str, np.ndarray]) -> int:
    total = zlib.crc32(repr(sorted(answer.items())).encode())
    for key in sorted(seen):
        total = zlib.crc32(seen[key].tobytes(), total)
    return total
