"""DreamerV3's replay: chunks `{time}-{uuid}-{succ}-{length}.npz`, each naming the next.

A worker's steps are one stream, cut into chunks of 1024. Episodes begin at `is_first` and may
continue in the next chunk. A stream whose oldest chunks were deleted begins within an episode.

DreamerV3 1.5 saves a chunk that is not full at every checkpoint, each time under another length and
always with all the rows that it shall have: the name says how many count, the longest counts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.datasets.foreign import npz_file
from planet_rssm.datasets.foreign.source import Array, Prepare, Source

_PARTS = 4  # of a chunk's name


class _Piece(NamedTuple):
    """Rows `start` to `stop` of a chunk."""

    file: Path
    start: int
    stop: int


def is_chunk(file: Path) -> bool:
    """Return whether a file has the name of a chunk."""
    parts = file.stem.split("-")
    return len(parts) == _PARTS and parts[3].isascii() and parts[3].isdigit()


class DreamerChunks(Source):
    """The episodes in the chunks of a folder, stream by stream, oldest first."""

    format = "dreamerv3"
    order = "taken"

    def __init__(self, name: str, files: list[Path]) -> None:
        """Look at every chunk's arrays and read where episodes begin and end.

        Raises:
            PlanetError: a chunk is damaged or lacks `is_first`, or a chain of chunks is a ring.
        """
        self.name = name
        self.columns = {}
        self._pieces: list[list[_Piece]] = []
        self._last: tuple[Path, dict[str, Array]] = (Path(), {})  # many episodes share a chunk
        begun_within = 0
        newest = _newest(files)
        for stream in _streams(newest):
            episode: list[_Piece] = []
            for file in stream:
                first, last = self._borders(file)
                for start, stop in _cuts(first, last):
                    begins = bool(first[start])
                    if begins or not episode:
                        episode = []
                        self._pieces.append(episode)
                        begun_within += not begins
                    episode.append(_Piece(file, start, stop))
                    if last[stop - 1]:
                        episode = []
        self.lengths = [sum(p.stop - p.start for p in pieces) for pieces in self._pieces]
        self.notes = ()
        if older := len(files) - len(newest):
            self.notes = (f"{older} chunks are not used: a longer copy of each is there",)
        if begun_within:
            self.notes += (
                f"{begun_within} of {len(self._pieces)} episodes begin in their middle, for their "
                "first chunks were deleted; each is taken from its first frame that is left",
            )

    def _borders(self, file: Path) -> tuple[Array, Array]:
        """Check a chunk's arrays against the others'; return its `is_first` and `is_last`."""
        columns, frames = npz_file.columns(file)
        if "is_first" not in columns:
            raise PlanetError(f"{file}: a chunk without is_first; leave it out")
        length = _length(file)
        if short := [key for key, count in frames.items() if count < length]:
            raise PlanetError(
                f"{file}: {short[0]!r} has {frames[short[0]]} rows, its name says {length}; leave "
                "it out"
            )
        self.columns = self.columns or columns
        for key, column in self.columns.items():
            if columns.get(key) != column:
                raise PlanetError(f"{file}: {key!r} is not as in the other chunks; leave it out")
        first = npz_file.read(file, ["is_first"])["is_first"].astype(bool)
        last = (
            npz_file.read(file, ["is_last"])["is_last"].astype(bool)
            if "is_last" in columns
            else np.zeros_like(first)
        )
        if first.ndim != 1 or last.ndim != 1:
            raise PlanetError(f"{file}: is_first has shape {list(first.shape)}, must be [T]")
        return first[:length], last[:length]

    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return columns of an episode, from all chunks that it lies in."""
        parts: dict[str, list[Array]] = {key: [] for key in wanted}
        for file, start, stop in self._pieces[index]:
            if self._last[0] != file or self._last[1].keys() != wanted.keys():
                self._last = (file, npz_file.read(file, wanted.keys()))
            for key, array in self._last[1].items():
                prepare = wanted[key]
                rows = array[start:stop]
                parts[key].append(prepare(rows) if prepare else rows)
        return {key: np.concatenate(rows) for key, rows in parts.items()}


def _cuts(first: Array, last: Array) -> Iterator[tuple[int, int]]:
    """Yield the rows of each piece of an episode in one chunk."""
    begins = np.flatnonzero(first).tolist() + (np.flatnonzero(last) + 1).tolist()
    edges = sorted({0, len(first), *begins})
    yield from zip(edges, edges[1:], strict=False)


def _length(file: Path) -> int:
    """Return how many rows of a chunk count."""
    return int(file.stem.split("-")[3])


def _newest(files: list[Path]) -> list[Path]:
    """Return the longest copy of each chunk, without those of no row."""
    longest: dict[str, Path] = {}
    for file in sorted(files, key=_length):
        longest[file.stem.split("-")[1]] = file
    return sorted(file for file in longest.values() if _length(file))


def _streams(files: list[Path]) -> list[list[Path]]:
    """Return the chunks of each worker, in order; a successor that is not there ends a stream."""
    names = {file: file.stem.split("-") for file in sorted(files)}
    by_id = {parts[1]: file for file, parts in names.items()}
    follows = {file: by_id.get(parts[2]) for file, parts in names.items()}
    followers = {file for file in follows.values() if file is not None}
    streams = []
    used: set[Path] = set()
    for file in [file for file in names if file not in followers]:
        stream = []
        at: Path | None = file
        while at is not None and at not in used:
            stream.append(at)
            used.add(at)
            at = follows[at]
        streams.append(stream)
    if left := names.keys() - used:
        raise PlanetError(f"{min(left)}: its chain of chunks is a ring; leave it out")
    return streams
