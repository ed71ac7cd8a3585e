"""Nothing is written in place: write beside, fsync, rename, fsync the folder."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


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
