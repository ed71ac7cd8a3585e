"""What happened in an episode, by which a new environment is brought to where a lost one was."""

import zlib
from collections.abc import Mapping

import numpy as np

from planet_rssm.base.json_types import Json


class EpisodeHistory:
    """An episode's seed, its actions, and a checksum of each step, the reset included."""

    def __init__(self, seed: int) -> None:
        """Begin an episode that is reset with `seed`."""
        self.seed = seed
        self.actions: list[np.ndarray] = []  # float32 [A] each, of the completed steps
        self._checksums: list[int] = []

    def add(
        self,
        action: np.ndarray | None,
        reply: Json,
        observation: Mapping[str, np.ndarray],
    ) -> None:
        """Append an action, None for the reset, the worker's reply to it, and the observation."""
        if action is not None:
            self.actions.append(np.array(action))
        self._checksums.append(_checksum(reply, observation))

    def agrees(self, step: int, reply: Json, observation: Mapping[str, np.ndarray]) -> bool:
        """Return whether reply and observation are those of `step`, 0 for the reset."""
        return self._checksums[step] == _checksum(reply, observation)


def _checksum(reply: Json, observation: Mapping[str, np.ndarray]) -> int:
    total = zlib.crc32(repr(sorted(reply.items())).encode())
    for key in sorted(observation):
        total = zlib.crc32(observation[key].tobytes(), total)
    return total
