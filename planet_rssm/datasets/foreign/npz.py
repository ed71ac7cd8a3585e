"""One `.npz` file an episode, as PlaNet, Dreamer V1 and V2, dreamerv3-torch and V-D4RL keep them.

All arrays of a file have one length: that of the episode, in frames. The first row has a zero
action and a zero reward.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.datasets.foreign import npz_file
from planet_rssm.datasets.foreign.source import Array, Column, Prepare, Source

OURS = "planet_rssm"  # key of what `planet data export` notes: JSON as bytes


class NpzEpisodes(Source):
    """The `.npz` files of a folder, by name; a time stamp leads it, so by age."""

    format = "npz"
    order = "arrived"

    def __init__(self, name: str, files: list[Path]) -> None:
        """Look at every file's arrays, not at their numbers.

        Raises:
            PlanetError: a file is damaged, holds Python objects, or is not one episode.
        """
        self.name = name
        self._files = files
        self.lengths = []
        self.columns = {}
        for file in files:
            columns, frames = npz_file.columns(file)
            columns.pop(OURS, None)
            noted = frames.pop(OURS, None)
            if not frames:
                raise PlanetError(f"{file}: holds no array with a time axis; leave it out")
            length = max(frames.values())
            complete = {key: columns[key] for key in columns if frames[key] == length}
            self.unequal |= columns.keys() - complete.keys()
            if self.lengths:
                self._check_alike(file, complete)
                self.columns = {key: self.columns[key] for key in self.columns if key in complete}
            else:
                self.columns = complete
            self.lengths.append(length)
        if noted is not None:
            self.ours = self.noted(0).get("set", {})

    def _check_alike(self, file: Path, columns: Mapping[str, Column]) -> None:
        for key in self.columns.keys() & columns.keys():
            if self.columns[key] != columns[key]:
                raise PlanetError(
                    f"{file}: {key!r} is {_words(columns[key])}, in {self._files[0].name} "
                    f"{_words(self.columns[key])}; import files of one task at a time"
                )

    def noted(self, index: int) -> Json:
        """Return what `planet data export` noted of an episode, and of its set."""
        data = npz_file.read(self._files[index], [OURS])[OURS]
        try:
            return dict(json.loads(data.astype(np.uint8).tobytes()))
        except ValueError:
            raise PlanetError(
                f"{self._files[index]}: its {OURS} is not JSON; export it again"
            ) from None

    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return arrays of one file."""
        arrays = npz_file.read(self._files[index], wanted.keys())
        for key, array in arrays.items():
            if array.ndim == 0 or len(array) != self.lengths[index]:
                raise PlanetError(
                    f"{self._files[index]}: {key!r} has shape {list(array.shape)}, the episode "
                    f"{self.lengths[index]} frames"
                )
            if prepare := wanted[key]:
                arrays[key] = prepare(array)
        return arrays

    def label(self, index: int) -> str:
        """Return the file's name."""
        return self._files[index].name


def _words(column: Column) -> str:
    return f"{column.dtype} {list(column.shape)}"
