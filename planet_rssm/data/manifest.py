"""manifest.json: the committed episodes of a replay, with the place of every tensor in its file."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planet_rssm.data.header import FORMAT, DamagedFileError, Header, Tensor
from planet_rssm.errors import PlanetError
from planet_rssm.files import UNSEALED, IrregularFileError, is_sealed, read_regular, seal, write_atomic

NAME = "manifest.json"
MOST = 1 << 30  # bytes that are read of one: of some million episodes


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
    return Entry(index, file, header.size, header.frames, header.env_steps, header.episode_return, header.tensors)


def identity(header: Header) -> dict[str, Any]:
    """Return what all episodes of a replay share: the environment and each tensor's dtype and frame shape."""
    shapes = {name: [tensor.dtype, *tensor.shape[1:]] for name, tensor in header.tensors.items()}
    return {**{f"env.{key}": value for key, value in header.env.items()}, **shapes}


def write(path: Path, entries: list[Entry]) -> None:
    """Replace the manifest; see `files.write_atomic` and `files.seal`."""
    lines = ",\n".join(json.dumps(vars(entry)) for entry in entries)  # one a line, for diff and grep
    text = f'{{"format": {FORMAT}, "crc32": "{UNSEALED}", "episodes": [\n{lines}\n]}}\n'
    write_atomic(path, [seal(text.encode())])


def read(path: Path) -> dict[int, Entry]:
    """Return the entries by index; none where there is no manifest.

    Raises:
        DamagedFileError: it is not a manifest, or not as it was written: it must not condemn the episodes' files.
        PlanetError: it is of a newer format.
    """
    try:
        data = read_regular(path, MOST)
    except FileNotFoundError:
        return {}
    except IrregularFileError as error:
        raise DamagedFileError(f"{path}: {error.strerror}") from None
    try:
        value = json.loads(data)
        version = int(value["format"])
        if version > FORMAT:
            raise PlanetError(f"{path}: format {version}, this version reads up to {FORMAT}; upgrade planet_rssm")
        if not is_sealed(io.BytesIO(data)):
            raise ValueError
        return {fields["index"]: _entry(fields) for fields in value["episodes"]}
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DamagedFileError(f"{path}: not a manifest, or changed since it was written") from None


def check_free(folder: Path, *, add: bool = False) -> None:
    """Refuse a folder for a new set of episodes, before anything is played; with `add` it may hold some.

    Raises:
        PlanetError: it holds episodes already, or it cannot be written.
    """
    where = folder.absolute()
    existing = next(path for path in (where, *where.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise PlanetError(f"--out {folder}: cannot be written; give another folder")
    if add:
        return
    if found := next((path for pattern in ("*.safetensors*", NAME) for path in folder.glob(pattern)), None):
        raise PlanetError(f"--out {folder}: holds {found.name} already; give a folder without episodes")


def _entry(fields: dict[str, Any]) -> Entry:
    tensors = {name: Tensor(dtype, tuple(shape), offset) for name, (dtype, shape, offset) in fields["tensors"].items()}
    entry = Entry(**{**fields, "tensors": tensors})
    if type(entry.index) is not int or entry.file != f"{entry.index:06d}.safetensors":  # no file of another folder
        raise ValueError
    return entry
