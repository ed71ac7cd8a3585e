"""Nothing is written in place: write beside, fsync, rename, fsync the folder."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_SEAL = re.compile(rb'crc32\\?": \\?"([0-9a-f]{8})')  # as JSON, or as JSON within a JSON string
UNSEALED = "0" * 8  # what a file says of its `crc32` before it is sealed
_PIECE = 1 << 20  # bytes


def seal(data: bytes) -> bytes:
    """Return `data` with the CRC-32 of all of it in the place of its first `"crc32": "00000000"`."""
    place = _SEAL.search(data)
    if place is None or place[1] != UNSEALED.encode():
        raise ValueError("nothing to seal")
    return b"".join((data[: place.start(1)], f"{zlib.crc32(data):08x}".encode(), data[place.end(1) :]))


def is_sealed(file: BinaryIO) -> bool:
    """Return whether what `seal` returned is all there: a byte changed anywhere is noticed. Reads in small pieces."""
    piece = file.read(_PIECE)
    place = _SEAL.search(piece)
    if place is None:
        return False
    crc = zlib.crc32(b"".join((piece[: place.start(1)], UNSEALED.encode(), piece[place.end(1) :])))
    while piece := file.read(_PIECE):
        crc = zlib.crc32(piece, crc)
    return place[1] == f"{crc:08x}".encode()


def write_atomic(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by the concatenated chunks; after a power cut the old or the new content is there, never a mix.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind and `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a rename is only safe once its folder has been synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale(folder: Path) -> None:
    """Delete what killed writers left beside their targets; call where no other process writes."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold `path`, a file or folder that exists, against other processes; the hold ends with the process, however.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder in `parent` that is removed in the end; those that killed processes left are removed too."""
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), exclusive(left):  # held: its process lives
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, exclusive(Path(folder)):
        yield Path(folder)
