"""Chunks sampled straight from the files of an episode folder; see episode_folder.py.

What is sampled follows from the episodes and the capacity alone. Every byte of a file is checked
before the first chunk is read from it: nothing is learned from a damaged episode.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import FirstAction
from planet_rssm.data.episode_folder import EpisodeFolder
from planet_rssm.data.header import DTYPES, PREFIX, DamagedFileError, open_file
from planet_rssm.data.manifest import Entry

Array = np.ndarray
_SAMPLED = ("action", "reward", "is_first", "is_terminal")


class Chunks(NamedTuple):
    """B pieces of episodes, L frames each, aligned as in data/episode.py.

    Every piece begins a fresh sequence.
    """

    observation: dict[str, Array]  # [B, L, ...] uint8 images and float32 vectors
    action: Array  # [B, L, A] float32, zeros at frame 0 unless it is kept
    reward: Array  # [B, L] float32, at frame 0 too the one that came with the image
    is_first: Array  # [B, L] bool, set at frame 0 unless its action is kept
    is_terminal: Array  # [B, L] bool
    mask: Array  # [B, L] bool, False where the episode was over: everything is zero there


class Replay(EpisodeFolder):
    """The episodes of one environment in `folder`, sampled as chunks.

    The newest are sampled, as many as have `capacity` frames together.

    Raises:
        PlanetError: the episodes differ in environment, renderer, size or simulator, or have a
            newer format.
    """

    def padding(self, length: int) -> float:
        """Return the share of a batch of chunks of `length` frames that is expected to be padding.

        Raises:
            PlanetError: there is no episode.
        """
        self._check_filled()
        starts = self._starts(length)
        return float(starts @ np.maximum(length - self._frames, 0) / (starts.sum() * length))

    def sample(
        self,
        rng: np.random.Generator,
        batch_size: int,
        length: int,
        first_action: FirstAction = "zeros",
    ) -> Chunks:
        """Draw B chunks of L frames, uniformly over all starts at which a full chunk fits.

        An episode shorter than L counts as one start and is padded. The chunks follow from the
        state of `rng` and the episodes alone. With `first_action` kept, the action that led to a
        chunk's first frame stays, and `is_first` is set there only where an episode begins.

        Raises:
            PlanetError: there is no episode.
        """
        self._check_filled()
        out: dict[str, Array] = {}
        mask = np.zeros((batch_size, length), bool)
        for row, (entry, start) in enumerate(self._draw(rng, length, batch_size)):
            pieces = self._read_or_redraw(rng, entry, start, length)
            for name, piece in pieces.items():
                if name not in out:
                    out[name] = np.zeros((batch_size, length, *piece.shape[1:]), piece.dtype)
                out[name][row, : len(piece)] = piece
            mask[row, : len(piece)] = True
        if first_action == "zeros":
            out["action"][:, 0] = 0
            out["is_first"][:, 0] = True
        observation = {
            name.removeprefix(PREFIX): out.pop(name)
            for name in list(out)
            if name.startswith(PREFIX)
        }
        return Chunks(observation, **out, mask=mask)

    def _check_filled(self) -> None:
        if not self._live:
            raise PlanetError(f"replay {self.folder}: holds no episode; collect some first")

    def _starts(self, length: int) -> Array:
        """Return in how many places of each episode a chunk may start, int64 [episodes], or 1."""
        return np.maximum(self._frames - length + 1, 1)

    def _draw(self, rng: np.random.Generator, length: int, count: int) -> list[tuple[Entry, int]]:
        starts = self._starts(length)
        ends = np.cumsum(starts)
        picks = rng.integers(ends[-1], size=count)
        chosen = np.searchsorted(ends, picks, side="right")
        return [
            (self._live[i], int(pick - ends[i] + starts[i]))
            for i, pick in zip(chosen, picks, strict=True)
        ]

    def _read_or_redraw(
        self, rng: np.random.Generator, entry: Entry, start: int, length: int
    ) -> dict[str, Array]:
        while True:
            if entry.index in self._entries:  # another row may have dropped it as damaged
                try:
                    self._check_bytes(entry.index, self.folder / entry.file)
                    return _read_frames(
                        self.folder / entry.file, entry, start, min(length, entry.frames - start)
                    )
                except DamagedFileError as error:
                    self._set_aside(self.folder / entry.file, str(error))
                    self._keep([kept for kept in self._entries.values() if kept is not entry])
                    self._check_filled()
            [(entry, start)] = self._draw(rng, length, 1)


def _read_frames(path: Path, entry: Entry, start: int, count: int) -> dict[str, Array]:
    """Read `count` frames from frame `start` on.

    Nothing is mapped, so a file cut short is an error, not a SIGBUS.
    """
    descriptor = open_file(path)  # microseconds, so no descriptor is kept open between chunks
    try:
        pieces = {}
        for name, tensor in entry.tensors.items():
            if name in _SAMPLED or name.startswith(PREFIX):
                size = tensor.frame_bytes
                data = os.pread(descriptor, count * size, tensor.offset + start * size)
                if len(data) != count * size:
                    raise DamagedFileError(
                        f"episode {path}: cut short, {name} ends before frame {start + count}"
                    )
                pieces[name] = np.frombuffer(data, DTYPES[tensor.dtype]).reshape(
                    count, *tensor.shape[1:]
                )
        return pieces
    finally:
        os.close(descriptor)
