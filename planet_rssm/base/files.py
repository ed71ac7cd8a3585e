"""Files that other people may have put there, or that a power cut may leave half-done.

Nothing is written in place: write beside, fsync, rename, fsync the folder. What is written beside
is a new file under a name that nobody can foresee, so that no link can lead the bytes elsewhere.
What is read must be a regular file: a FIFO would be waited for, and a device may never end.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from planet_rssm.base.errors import PlanetError

_SEAL = re.compile(rb'crc32\\?": \\?"([0-9a-f]{8})')  # as JSON, or as JSON within a JSON string
_BESIDE = re.compile(r"\..+\.(\d+|[0-9a-f]{16})\.tmp")  # names that `write_atomic` gives
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
UNSEALED = "0" * 8  # what a file says of its `crc32` before it is sealed
_PIECE = 1 << 20  # bytes
SMALL = 1 << 24  # bytes: more than a settings file, a record or a table of ours ever has


class IrregularFileError(OSError):
    """No regular file is in a file's place: a folder, a FIFO, a socket or a device is."""


def open_regular(path: Path | str) -> int:
    """Open `path` for reading and return the descriptor; never waits, whatever is there.

    Raises:
        IrregularFileError: it is no regular file, nor a link to one.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket; a device that is not here
            raise _irregular(path, os.stat(path).st_mode) from None
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path, mode)
    return descriptor


def _irregular(path: Path | str, mode: int) -> IrregularFileError:
    kind = _KINDS.get(stat.S_IFMT(mode), "a device")
    return IrregularFileError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def check_regular(path: Path) -> None:
    """Refuse what is in a file's place and is no regular file; what is not there is no matter.

    Raises:
        IrregularFileError: see `open_regular`.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := os.stat(path).st_mode):
            raise _irregular(path, mode)


def read_regular(path: Path | str, most: int = SMALL) -> bytes:
    """Return what is in a regular file.

    Raises:
        IrregularFileError: see `open_regular`.
        OSError: it cannot be read, or it has more than `most` bytes.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            data = file.read(
                (size or min(most, _PIECE)) + 1
            )  # 0: one that the system makes up as it is read
            if len(data) <= most:
                return data
    raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))


def seal(data: bytes) -> bytes:
    """Return `data` with its CRC-32 in the place of its first `"crc32": "00000000"`."""
    return sealed(data, ())


def sealed(start: bytes, rest: Iterable[memoryview]) -> bytes:
    """Return `start` as `seal` does, for a file that goes on with `rest`, whose bytes count too."""
    place = _SEAL.search(start)
    if place is None or place[1] != UNSEALED.encode():
        raise ValueError("nothing to seal")
    crc = zlib.crc32(start)
    for part in rest:
        crc = zlib.crc32(part, crc)
    return b"".join((start[: place.start(1)], f"{crc:08x}".encode(), start[place.end(1) :]))


def is_sealed(file: BinaryIO) -> bool:
    """Return whether a file is as `seal` returned it, to the byte; it is read in small pieces."""
    piece = file.read(_PIECE)
    place = _SEAL.search(piece)
    if place is None:
        return False
    crc = zlib.crc32(b"".join((piece[: place.start(1)], UNSEALED.encode(), piece[place.end(1) :])))
    while piece := file.read(_PIECE):
        crc = zlib.crc32(piece, crc)
    return place[1] == f"{crc:08x}".encode()


def write_atomic(
    path: Path, chunks: Iterable[bytes | memoryview], *, sync_name: bool = True
) -> None:
    """Replace `path` by the concatenated chunks.

    After a power cut the old or the new content is there, never a mix. Without `sync_name` it may
    be the old one until `sync_folder`: for many files, whose folder is synced once.

    Raises:
        IrregularFileError: a device, a FIFO or a folder has that name: it would be replaced.
        OSError: the folder cannot be written or the disk is full; nothing is left behind and `path`
            is as it was. It names `path`, not what was written beside.
    """
    check_regular(path)
    beside = _beside(path)
    try:
        with open(beside, "xb") as file:  # x: made new, never through a link
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            _name(error, path)
        raise
    if sync_name:
        sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Try whether `write_atomic` can write `path`, before long work for it; nothing is left behind.

    Raises:
        OSError: see `write_atomic`.
    """
    check_regular(path)
    beside = _beside(path)
    try:
        with open(beside, "xb"):
            pass
    except OSError as error:
        _name(error, path)
        raise
    beside.unlink()


def _beside(path: Path) -> Path:
    """Return a new name beside `path` that nobody can foresee."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _name(error: OSError, path: Path) -> None:
    """Let an error name the file that was wanted, and no other."""
    error.filename, error.filename2 = str(path), None


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


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
        if _BESIDE.fullmatch(path.name):  # nothing of anybody else's
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock `path`, a file or folder that exists, against other processes.

    The lock ends with the process, however that ends.

    Raises:
        BlockingIOError: another process has it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would be waited for
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def claim(path: Path, taken: str) -> Iterator[None]:
    """Do what `exclusive` does, with an error line for the user.

    Raises:
        PlanetError: with the line `taken`, where another process has it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(path))
        except BlockingIOError:
            raise PlanetError(taken) from None
        yield


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder in `parent` that is removed in the end, as are those of killed processes."""
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), exclusive(left):  # locked: its process lives
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, exclusive(Path(folder)):
        yield Path(folder)
