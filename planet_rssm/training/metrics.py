"""metrics.jsonl, always, and TensorBoard events where tensorboard is installed."""

import importlib.util
import json
import logging
import os
import resource
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planet_rssm.base.files import open_regular, sync_folder
from planet_rssm.base.json_types import Json
from planet_rssm.config import FORMAT
from planet_rssm.data.episode import Episode
from planet_rssm.runs.run import EVENTS, METRICS, read_metrics
from planet_rssm.training.trackers import Film, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COUNTERS = ("env_steps", "agent_steps", "updates", "episodes")
# The only keys of a line in which equal runs may differ.
OF_THE_MACHINE = ("seconds", "memory_mib", "stage_seconds", "collector_seconds")
_log = logging.getLogger("planet_rssm")


def repeatable_lines(run: Path) -> list[Json]:
    """Return a run's metrics without times and memory: equal runs have equal ones."""
    return [
        {key: value for key, value in line.items() if key not in OF_THE_MACHINE}
        for line in read_metrics(run)
    ]


class MetricsLog:
    """Appends measurements; a resumed run first cuts the file back to its checkpoint."""

    def __init__(
        self,
        folder: Path,
        offset: int,
        done: int,
        axis: str = "env_steps",
        crc: int | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Cut the file to `offset` bytes, whose CRC-32 was `crc` (None: not known).

        `done` is what the counter `axis`, where events are placed, stood at then. `trackers` get
        every number too.
        """
        self._axis = axis
        self._trackers = trackers
        path = folder / METRICS
        open(path, "ab", opener=_no_link).close()
        sync_folder(folder)
        with os.fdopen(open_regular(path), "rb") as file:
            kept = file.read(min(offset, os.fstat(file.fileno()).st_size))
        complete = kept.rfind(b"\n") + 1  # lines: the next one must not continue a torn one
        self.crc = zlib.crc32(kept[:complete])  # of all that the file contains
        if complete < offset:
            _log.warning(
                "%s: %d bytes, the checkpoint knew %d; what is missing stays lost",
                path,
                complete,
                offset,
            )
        elif crc is not None and crc != self.crc:
            _log.warning(
                "%s: changed since the checkpoint was written; its lines are kept as they are now",
                path,
            )
        self._file = open(path, "ab", opener=_no_link)  # open as long as the run
        self._file.truncate(complete)
        self._path = path
        self._events = None
        self._hook = threading.excepthook
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # imports for a second

            threading.excepthook = self._in_thread
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=done + 1)

    def write(self, phase: str, counters: dict[str, int], seconds: float, values: Json) -> None:
        """Append one line; `counters` are those of COUNTERS."""
        line = {
            "format": FORMAT,
            "phase": phase,
            **counters,
            "seconds": round(seconds, 3),
            **values,
        }
        data = json.dumps(line).encode() + b"\n"
        self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self._file.flush()
        step = counters[self._axis]
        scalars = {
            f"{phase}/{name}": value for name, value in values.items() if isinstance(value, float)
        }
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.write({**scalars, **counters}, step)

    def film(self, name: str, episode: Episode, interval: float, step: int) -> None:
        """Give the trackers a film of an episode, of its first camera; `interval` seconds a frame.

        Args:
            name: under which they keep it.
            episode: one without a camera is left out.
            interval: seconds from one frame to the next.
            step: what the counter `axis` stands at.
        """
        cameras = [value for value in episode.observation.values() if value.ndim == 4]
        for tracker in self._trackers if cameras else ():
            tracker.film(Film(name, cameras[0], 1 / interval), step)

    def sync(self) -> int:
        """Make all lines durable, and return the file's length for the checkpoint."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the files."""
        try:
            self._file.close()
        finally:
            for tracker in self._trackers:
                tracker.close()
            if self._events is not None:
                self._close_events(self._events)

    def _close_events(self, events: "SummaryWriter") -> None:
        try:
            events.close()
        except OSError as error:
            if self._path.exists():  # else the run itself reports more
                _log.warning(
                    "%s: TensorBoard's events are not all written (%s)",
                    self._path.parent,
                    error.strerror,
                )
        finally:
            threading.excepthook = self._hook

    def _in_thread(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread: our next call raises what happened in it."""
        if not type(failed.thread).__module__.startswith("tensorboard."):
            self._hook(failed)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def resident_mib() -> float:
    """Return the memory that this process uses, in MiB.

    Mapped files are not counted: the system takes them back at will. Where the system does not say,
    it is the most that the process has ever used.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    return round(
        sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
        / 2**10,
        1,
    )


class Meter:
    """Running means by name, as plain numbers that a checkpoint in the middle of a round stores."""

    def __init__(self, sums: dict[str, list[float]]) -> None:
        self.sums = sums  # name: [sum, count]

    def add(self, values: dict[str, float]) -> None:
        """Count in one value a name; `skipped` marks an update that measured nothing."""
        for name, value in values.items():
            if name == "skipped":
                continue
            total = self.sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1

    def drain(self) -> dict[str, float]:
        """Return the means and start again."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums.clear()
        return means
