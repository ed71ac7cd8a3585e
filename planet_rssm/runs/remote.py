"""What processes of a cluster answer, and how the process that asked takes it.

An answer is plain data: a header, which is JSON, and bytes. Nothing is raised on the other side.
"""

import functools
import logging
import socket
import traceback
from collections.abc import Callable

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.runs.surroundings import check_versions, own_versions

Reply = tuple[Json, list[np.ndarray]]

_log = logging.getLogger("planet_rssm")


class _Kept(logging.Handler):
    """Keeps what the package logs in a process of the cluster, for its next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []
        _log.addHandler(self)
        _log.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


_kept = functools.cache(_Kept)  # one in a process


def surprise(error: Exception) -> str:
    """Return the line that says what went wrong; the traceback goes to Ray's log there."""
    if isinstance(error, PlanetError):
        return str(error)
    traceback.print_exception(error)
    return one_line(f"{type(error).__name__}: {error}")


def answer(
    work: Callable[[Json], list[np.ndarray]], line_of: Callable[[Exception], str] = surprise
) -> Reply:
    """Return what `work` returned, and in the header what it wrote there and what was logged.

    The header also has `host` and `versions`, and `error` where it raised.
    """
    kept = _kept()
    header: Json = {"host": socket.gethostname(), "versions": own_versions()}
    bodies: list[np.ndarray] = []
    try:
        bodies = work(header)
    except Exception as error:
        header["error"] = line_of(error)
    header["log"], kept.lines = kept.lines, []
    return header, bodies


def accept(option: str, reply: Reply) -> Reply:
    """Return an answer, after logging here what was logged there.

    Raises:
        PlanetError: it comes from a machine with other versions, or says what could not be done.
    """
    header, _ = reply
    for level, line in header["log"]:
        _log.log(level, "%s", line)
    check_versions(option, header["host"], header["versions"])
    if "error" in header:
        raise PlanetError(header["error"])
    return reply
