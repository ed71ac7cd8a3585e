"""One `.npz` file: its arrays' shapes without reading them, its arrays without any pickle."""

import contextlib
import functools
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import open_regular
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.source import Array, Column

_PIECE = 1 << 20  # bytes that are decompressed at once
_MOST_HEADER = 1 << 16  # bytes of an array's description
_ELSEWHERE = "load it with NumPy where you trust its maker, and save its arrays with a plain dtype"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive, and turn what damaged ones raise into one line."""
    try:
        with os.fdopen(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (
        OSError,
        EOFError,
        ValueError,
        IndexError,
        OverflowError,
        MemoryError,  # an array that says it is larger than the machine
        struct.error,
        RuntimeError,  # encrypted
        NotImplementedError,  # a compression that Python lacks
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise PlanetError(
            f"{path}: not a .npz file, or damaged ({one_line(str(error))}); leave it out or get it "
            "again"
        ) from None


def columns(path: Path) -> tuple[dict[str, Column], dict[str, int]]:
    """Return what one frame of each array is, and how many frames each has.

    Arrays without an axis of time have no frames and are left out.

    Raises:
        PlanetError: no such file, not one of arrays, or one of them holds Python objects.
    """
    known: dict[str, Column] = {}
    frames: dict[str, int] = {}
    with _opened(path) as archive:
        for member in archive.namelist():
            key = member.removesuffix(".npy")
            if key == member:
                continue
            with archive.open(member) as stream:
                shape, _, dtype = _header(stream)
            if dtype.hasobject:
                raise PlanetError(
                    f"{path}: {key!r} holds Python objects, a pickle, which is never loaded; "
                    f"{_ELSEWHERE}"
                )
            if shape:
                known[key] = Column(tuple(shape[1:]), dtype)
                frames[key] = shape[0]
    return known, frames


def read(path: Path, keys: Collection[str]) -> dict[str, Array]:
    """Return arrays of a file by name.

    Raises:
        PlanetError: see `columns`, or one is missing.
    """
    arrays = {}
    with _opened(path) as archive:
        for key in keys:
            try:
                info = archive.getinfo(f"{key}.npy")
            except KeyError:
                raise PlanetError(f"{path}: has no array {key!r}, as other files have") from None
            with archive.open(info) as stream:
                shape, fortran, dtype = _header(stream)
                if dtype.hasobject:
                    raise PlanetError(f"{path}: {key!r} holds Python objects; {_ELSEWHERE}")
                count = math.prod(shape)
                if count * dtype.itemsize > info.file_size:
                    raise PlanetError(f"{path}: {key!r} is cut short; leave the file out")
                flat = np.empty(count, dtype)
                _fill(flat.view(np.uint8).data, stream)
            arrays[key] = flat.reshape(shape, order="F" if fortran else "C")
    return arrays


def _fill(room: memoryview, stream: IO[bytes]) -> None:
    """Read what an array holds, to the byte and to the end of the stream, where its sum is."""
    at = 0
    while piece := stream.read(_PIECE):
        room[at : at + len(piece)] = piece
        at += len(piece)
    if at != len(room):
        raise ValueError(f"an array has {at} bytes, must have {len(room)}")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and dtype of an array; nothing of it is run or read."""
    version = npy.read_magic(stream)
    width = {(1, 0): 2, (2, 0): 4}.get(version)
    if width is None:
        raise ValueError(f"array format {version}")
    start = stream.read(width)
    length = int.from_bytes(start, "little")
    if len(start) < width or length > _MOST_HEADER:
        raise ValueError(f"an array's description of {length} bytes")
    return _described(version, start + stream.read(length))


@functools.lru_cache  # the files of a set have few, and Python's own reader compiles each
def _described(version: tuple[int, int], text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = reader(io.BytesIO(text), max_header_size=_MOST_HEADER)
    except Exception as error:  # it is parsed as Python's literals are, and raises what they do
        raise ValueError(f"an array's description, {error}") from None
    if any(length < 0 for length in shape):
        raise ValueError("negative length")
    return shape, fortran, dtype
