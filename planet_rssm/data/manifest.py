"""manifest.json: the committed episodes of a replay, with the place of every tensor in its file."""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import (
    UNSEALED,
    IrregularFileError,
    is_sealed,
    open_regular,
    read_regular,
    seal,
    write_atomic,
)
from planet_rssm.base.json_types import Json
from planet_rssm.data.header import FORMAT, DamagedFileError, Header, Tensor

NAME = "manifest.json"
MOST = 1 << 30  # bytes that are read of one: of some million episodes
_START = b'{"format": '
_MOST_EPISODES = 2**31  # that a set may say it shall have


class Part(NamedTuple):
    """Episodes that one command was to make: `episodes` of them from index `first` on."""

    made_by: Json  # what decides them, as JSON
    episodes: int
    first: int = 0

    @property
    def indices(self) -> range:
        """Return the indices of all of them."""
        return range(self.first, self.first + self.episodes)


@dataclass(frozen=True)
class Entry:
    """One episode of the replay."""

    index: int  # in the run
    file: str
    size: int  # bytes of the file
    frames: int
    env_steps: int  # control steps, repeats included
    episode_return: float
    tensors: dict[str, Tensor]


def entry(index: int, file: str, header: Header) -> Entry:
    """Return the manifest's entry of a file with this header."""
    return Entry(
        index,
        file,
        header.size,
        header.frames,
        header.env_steps,
        header.episode_return,
        header.tensors,
    )


def identity(header: Header) -> Json:
    """Return what all episodes of a replay share: environment, dtypes and shapes of frames."""
    shapes = {name: [tensor.dtype, *tensor.shape[1:]] for name, tensor in header.tensors.items()}
    return {**{f"env.{key}": value for key, value in header.env.items()}, **shapes}


def write(path: Path, entries: list[Entry], parts: Sequence[Part] = ()) -> None:
    """Replace the manifest; see `files.write_atomic` and `files.seal`."""
    # one a line, for diff and grep
    lines = ",\n".join(json.dumps(vars(entry)) for entry in entries)
    made = f', "parts": {json.dumps([part._asdict() for part in parts])}' if parts else ""
    text = f'{{"format": {FORMAT}, "crc32": "{UNSEALED}"{made}, "episodes": [\n{lines}\n]}}\n'
    write_atomic(path, [seal(text.encode())])


def read(path: Path) -> dict[int, Entry]:
    """Return the entries by index; see `load`."""
    return load(path)[0]


def load(path: Path) -> tuple[dict[int, Entry], list[Part]]:
    """Return the entries by index, and the parts of a set; none where there is no manifest.

    Raises:
        DamagedFileError: it is not a manifest, or not as it was written: it must not condemn the
            episodes' files.
        PlanetError: it is of a newer format.
    """
    try:
        data = read_regular(path, MOST)
    except FileNotFoundError:
        return {}, []
    except IrregularFileError as error:
        raise DamagedFileError(f"{path}: {error.strerror}") from None
    try:
        value = json.loads(data)
        version = int(value["format"])
        if version > FORMAT:
            raise PlanetError(
                f"{path}: format {version}, this version reads up to {FORMAT}; upgrade planet_rssm"
            )
        if not is_sealed(io.BytesIO(data)):
            raise ValueError
        parts = [_part(fields) for fields in value.get("parts", [])]
        return {fields["index"]: _entry(fields) for fields in value["episodes"]}, parts
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DamagedFileError(f"{path}: not a manifest, or changed since it was written") from None


def is_ours(path: Path) -> bool:
    """Return whether this looks like a manifest of ours, however damaged."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


def _part(fields: Json) -> Part:
    part = Part(dict(fields["made_by"]), int(fields["episodes"]), int(fields["first"]))
    if part.episodes < 0 or part.first < 0 or part.episodes > _MOST_EPISODES:
        raise ValueError
    return part


def _entry(fields: Json) -> Entry:
    tensors = {
        name: Tensor(dtype, tuple(shape), offset)
        for name, (dtype, shape, offset) in fields["tensors"].items()
    }
    entry = Entry(**{**fields, "tensors": tensors})
    # no file of another folder
    if type(entry.index) is not int or entry.file != f"{entry.index:06d}.safetensors":
        raise ValueError
    return entry
