"""The header of an episode's safetensors file: where each tensor lies.

So a chunk is read without the rest.

A safetensors file is 8 bytes (length of the header, little endian), the header (JSON) and the
tensors' bytes. Ours has one key of metadata, `planet_rssm`, whose value is a JSON text: the library
writes several keys in random order, and equal episodes shall be equal files. Its `crc32` is that of
all of the file, see `files.seal`.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import UNSEALED, IrregularFileError, is_sealed, open_regular
from planet_rssm.base.json_types import Json

Array = np.ndarray
FORMAT = 1
PREFIX = "observation/"  # of an observation's tensor, before its key
REQUIRED = frozenset({"action", "reward", "is_first", "is_last", "is_terminal"})
DTYPES: dict[str, np.dtype[Any]] = {  # in the order in which `safetensors` lays them out
    "F32": np.dtype(np.float32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_METADATA = "planet_rssm"
_GUESS = 4096  # bytes that hold most headers: one read instead of two


class DamagedFileError(PlanetError):
    """A file that is truncated, unreadable or not what its name says."""


class Tensor(NamedTuple):
    """Where one array lies; `offset` is its first byte from the start of the file."""

    dtype: str  # safetensors' name, a key of DTYPES
    shape: tuple[int, ...]  # [T, ...]
    offset: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return self.shape[0] * self.frame_bytes


@dataclass(frozen=True)
class Header:
    """What is known of an episode without reading its arrays."""

    size: int  # bytes of the file
    frames: int
    episode_return: float
    env: Json  # the EnvSpec as JSON
    env_steps: int
    info: Json  # with the two above in it
    tensors: dict[str, Tensor]


def lay_out(arrays: Mapping[str, Array], described: Json) -> tuple[bytes, list[Array]]:
    """Return the first bytes of a file, which is yet to be sealed, and the arrays that follow them.

    Both are as `safetensors` has them, to the byte, and no array is copied for it that lies in one
    piece.

    Args:
        arrays: by name, each of one of `DTYPES`.
        described: what `parse_header` reads back.
    """
    order, kinds = list(DTYPES), [dtype.name for dtype in DTYPES.values()]
    places = {name: kinds.index(array.dtype.name) for name, array in arrays.items()}
    text = json.dumps(
        {"crc32": UNSEALED, "format": FORMAT, **described}, sort_keys=True, allow_nan=False
    )
    fields: Json = {"__metadata__": {_METADATA: text}}
    laid, at = [], 0
    for name in sorted(arrays, key=lambda name: (places[name], name)):
        kind = order[places[name]]
        whole = np.ascontiguousarray(arrays[name], DTYPES[kind])
        fields[name] = {
            "dtype": kind,
            "shape": list(whole.shape),
            "data_offsets": [at, at + whole.nbytes],
        }
        laid.append(whole)
        at += whole.nbytes
    header = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, laid


def open_file(path: Path) -> int:
    """Open an episode's file and return the descriptor.

    Raises:
        DamagedFileError: there is no such file, it may not be read, or something that is no file is
            in its place.
    """
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise DamagedFileError(f"episode {path}: missing") from None
    except PermissionError:
        raise DamagedFileError(f"episode {path}: may not be read") from None
    except IrregularFileError as error:
        raise DamagedFileError(f"episode {path}: {error.strerror}") from None


def check_bytes(path: Path) -> None:
    """Compare an episode's file with its checksum: about a millisecond a megabyte.

    Raises:
        DamagedFileError: there is no such file, or a byte of it is not as it was written.
    """
    with os.fdopen(open_file(path), "rb") as file:
        intact = is_sealed(file)
    if not intact:
        raise DamagedFileError(
            f"episode {path}: changed since it was written, its crc32 is another"
        )


def read_header(path: Path) -> Header:
    """Read and check the header of an episode's file; the arrays' bytes are not looked at.

    Raises:
        DamagedFileError: there is no such file, it is shorter or longer than its header says, or it
            is not an episode.
        PlanetError: it is of a newer format.
    """
    descriptor = open_file(path)
    try:
        size = os.fstat(descriptor).st_size
        start = os.pread(descriptor, _GUESS, 0)
        needed = 8 + int.from_bytes(start[:8], "little")
        if _GUESS < needed <= size:
            start = os.pread(descriptor, needed, 0)
    finally:
        os.close(descriptor)
    return parse_header(path, start, size)


def parse_header(path: Path, start: bytes, size: int) -> Header:
    """Read the header from the first bytes of a file of `size` bytes; see `read_header`."""
    length = int.from_bytes(start[:8], "little")
    if size < 8 or 8 + length > size:
        raise DamagedFileError(f"episode {path}: truncated, {size} bytes do not hold its header")
    try:
        fields = json.loads(start[8 : 8 + length])
        described = json.loads(fields.pop("__metadata__")[_METADATA])
        version = int(described["format"])
        if version > FORMAT:
            fix = f"this version reads up to {FORMAT}; upgrade planet_rssm"
            raise PlanetError(f"episode {path}: format {version}, {fix}")
        tensors = {name: _tensor(field, 8 + length) for name, field in fields.items()}
        info = dict(described["info"])
        header = Header(
            size=size,
            frames=int(described["frames"]),
            episode_return=float(described["return"]),
            env=dict(info["env"]),
            env_steps=int(info["env_steps"]),
            info=info,
            tensors=tensors,
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DamagedFileError(f"episode {path}: its header is not that of an episode") from None
    _check_extent(path, header, 8 + length)
    return header


def _tensor(field: Json, base: int) -> Tensor:
    shape = tuple(int(size) for size in field["shape"])
    tensor = Tensor(str(field["dtype"]), shape, base + int(field["data_offsets"][0]))
    if (
        not shape
        or min(shape) < 0
        or base + int(field["data_offsets"][1]) != tensor.offset + tensor.nbytes
    ):
        raise ValueError
    return tensor


def _check_extent(path: Path, header: Header, base: int) -> None:
    names = set(header.tensors)
    if not names >= REQUIRED or not all(name.startswith(PREFIX) for name in names - REQUIRED):
        raise DamagedFileError(
            f"episode {path}: holds {', '.join(sorted(names))}, which is not an episode"
        )
    if any(tensor.shape[0] != header.frames for tensor in header.tensors.values()):
        raise DamagedFileError(f"episode {path}: its tensors are not all of {header.frames} frames")
    position = base
    for tensor in sorted(header.tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset != position:
            raise DamagedFileError(f"episode {path}: its tensors overlap or leave a gap")
        position += tensor.nbytes
    if position != header.size:
        raise DamagedFileError(
            f"episode {path}: truncated or grown, {header.size} bytes where {position} were written"
        )
