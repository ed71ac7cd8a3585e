"""Metrics and films to Weights & Biases and Trackio too, which have the same calls.

A thread of its own talks to them: a tracker that is slow, hangs or fails neither stops nor slows a
run. What it cannot take in time is left out there; `metrics.jsonl` has every line.
"""

import importlib
import importlib.util
import logging
import queue
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.report.video import write_video

PROJECT = "planet_rssm"
WAITING = 1000  # lines that wait for a tracker at most
PATIENCE = 10.0  # seconds that the end of a run waits for one
FILM_SIDE = 256  # pixels a side of a film, about: what the agent observes is small
_log = logging.getLogger("planet_rssm")


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed, before a run begins.

    Raises:
        PlanetError: one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise PlanetError(
                f"train.trackers: {name} is not installed; pip install 'planet-rssm[trackers]'"
            )


class Film(NamedTuple):
    """Frames uint8 [T, H, W, 3], so many a second."""

    name: str
    frames: np.ndarray
    fps: float


class Tracker:
    """One tracker's run, fed from a thread."""

    def __init__(self, name: str, run: Path, settings: Json) -> None:
        """Begin its run, which has the run folder's name.

        Args:
            name: of its package.
            run: the run's folder, in which it keeps its files if it keeps any.
            settings: of the run, flat.
        """
        self.name = name
        self._lines: queue.Queue[tuple[Json | Film, int] | None] = queue.Queue(WAITING)
        self._film_waits = False
        self._left_out = 0
        self._failed = False
        begin = {"project": PROJECT, "name": run.name, "config": settings}
        begin |= {"dir": str(run)} if name == "wandb" else {}
        self._thread = threading.Thread(target=self._serve, args=(begin,), daemon=True)
        self._thread.start()

    def write(self, values: Json, step: int) -> None:
        """Hand over a line's numbers; never waits."""
        if self._failed:
            return
        try:
            self._lines.put_nowait((values, step))
        except queue.Full:
            self._left_out += 1

    def film(self, film: Film, step: int) -> None:
        """Hand over a film; never waits. One that comes while another waits is left out."""
        if self._failed or self._film_waits:
            return
        self._film_waits = True  # before the thread can have taken it
        try:
            self._lines.put_nowait((film, step))
        except queue.Full:
            self._film_waits = False

    def close(self, patience: float = PATIENCE) -> None:
        """Let it finish, for so many seconds at most."""
        if not self._failed:
            try:
                self._lines.put(None, timeout=patience)
            except queue.Full:
                pass
            self._thread.join(patience)
        if self._thread.is_alive():
            _log.warning(
                "%s: has not finished after %g s and is left alone; metrics.jsonl is complete",
                self.name,
                patience,
            )
        elif self._left_out:
            _log.warning("%s: was too slow for %d lines", self.name, self._left_out)

    def _serve(self, begin: Json) -> None:
        try:
            package: Any = importlib.import_module(self.name)
            run: Any = package.init(**begin)
            with tempfile.TemporaryDirectory(prefix="planet-film-") as folder:
                while (line := self._lines.get()) is not None:
                    values, step = line
                    if isinstance(values, Film):
                        path = _written(values, Path(folder))
                        values = {values.name: package.Video(str(path))}
                        self._film_waits = False
                    run.log(values, step=step)
                run.finish()
        except Exception as error:  # its package raises what it likes, and must not end a run
            self._failed = True
            _log.warning(
                "%s: failed (%s: %s); the run goes on without it",
                self.name,
                type(error).__name__,
                one_line(str(error)),
            )


def _written(film: Film, folder: Path) -> Path:
    """Return a new file with a film, each pixel of which is a square of some."""
    times = max(1, FILM_SIDE // max(film.frames.shape[1:3]))
    frames = (frame.repeat(times, 0).repeat(times, 1) for frame in film.frames)
    return write_video(folder / f"{len(list(folder.iterdir()))}.mp4", frames, film.fps)
