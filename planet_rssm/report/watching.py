"""What `planet watch` shows of a run, from its files alone; nothing is written."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.stopwatch import by_length, duration, shares
from planet_rssm.base.text import escape_controls
from planet_rssm.base.trust import allowed
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.report.terminal import blocks, chart
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, LARGEST, METRICS, read_metrics

FRESH = 600  # seconds without a new line, after which a run counts as stopped
ROUNDS = 5  # the pace is that of the last ones
SHOWN = ("loss/total", "loss/image", "loss/reward", "kl", "entropy/posterior", "behavior/entropy")
AFTER = {"collect": "learning", "train": "collecting or testing", "test": "collecting"}
HEIGHT = 5  # lines of a chart
HEAD = 6  # lines of all but the charts
FRAME = 40  # columns of the last frame at most


def read_numbers(run: Path) -> list[Json]:
    """Return the lines of a run's metrics with what in them is of the kind it should be.

    Somebody else's file may have anything in the place of a number.

    Raises:
        PlanetError: see `read_metrics`.
    """
    lines = []
    for line in read_metrics(run):
        kept: Json = {key: value for key, value in line.items() if is_number(value)}
        kept["phase"] = line["phase"]
        if isinstance(returns := line.get("returns"), list):
            kept["returns"] = [value for value in returns if is_number(value)]
        if isinstance(seconds := line.get("stage_seconds"), dict):
            kept["stage_seconds"] = {
                key: value for key, value in seconds.items() if is_number(value) and value >= 0
            }
        lines.append(kept)
    return lines


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST  # type: ignore[arg-type]


def goal_of(settings: Settings) -> tuple[str, int]:
    """Return the counter that a training ends by, and what it ends at."""
    if settings.data.folder is not None:
        return "updates", settings.train.offline_updates
    return "env_steps", settings.train.env_steps


@dataclass
class Watched:
    """A run's files as they were last read."""

    name: str
    folder: Path
    settings: Settings | None = None
    metrics: list[Json] = field(default_factory=list)
    frame: np.ndarray | None = None  # uint8 [h, w, 3], the last one of the newest episode
    episode: str = ""
    said: str = ""  # why something is missing
    _stamp: tuple[int, int] | None = None

    @classmethod
    def open(cls, name: str) -> "Watched":
        """Take a run folder.

        Raises:
            PlanetError: it is none.
        """
        if location.is_named(name):
            where = "package" if name.startswith(location.PRETRAINED) else "Hub"
            raise PlanetError(
                f"{name}: the {where} has no record of its training; give a run's folder"
            )
        folder = Path(name)
        if not (folder / CONFIG).is_file() and not (folder / METRICS).is_file():
            raise PlanetError(location.no_run(folder, f"no {CONFIG}"))
        return cls(name, folder)

    def read(self) -> None:
        """Read what has changed; what cannot be read stays as it was, and is said."""
        self.said = ""
        if self.settings is None:
            try:
                with allowed():  # settings are read, and what they name is not imported here
                    self.settings = config.load(self.folder / CONFIG)
            except PlanetError as error:
                self.said = str(error)
        try:
            about = (self.folder / METRICS).stat()
            stamp = about.st_size, about.st_mtime_ns
            if stamp != self._stamp:
                self.metrics = read_numbers(self.folder)
                self._stamp = stamp
                self._read_frame()
        except FileNotFoundError:
            self.said = self.said or f"no {METRICS} yet"
        except (PlanetError, OSError) as error:
            self.said = str(error)

    def _read_frame(self) -> None:
        newest = max((self.folder / EPISODES).glob("[0-9]*.safetensors"), default=None)
        if newest is None or newest.stem == self.episode:
            return
        with contextlib.suppress(PlanetError, OSError):  # it may be set aside meanwhile
            observation = Episode.load(newest).observation
            images = [value for value in observation.values() if value.ndim == 4]
            if images:
                self.frame, self.episode = images[0][-1], newest.stem

    @property
    def last(self) -> Json:
        """The last measurement."""
        return self.metrics[-1] if self.metrics else {}

    @property
    def age(self) -> float:
        """Seconds since the last measurement."""
        return time.time() - (self._stamp[1] / 1e9 if self._stamp else time.time())

    def of(self, phase: str) -> list[Json]:
        """Return the measurements of a phase."""
        return [line for line in self.metrics if line["phase"] == phase]

    def to_json(self) -> Json:
        """Return what `planet watch --json` prints."""
        axis, goal = goal_of(self.settings) if self.settings else ("env_steps", None)
        pace, left = self.pace()
        tests = [line["return"] for line in self.of("test") if "return" in line]
        trained = self.of("train")
        return {
            "run": self.name,
            "task": self.settings.env.id if self.settings else None,
            "state": self.state(),
            "axis": axis,
            "done": self.last.get(axis, 0),
            "goal": goal,
            "updates": self.last.get("updates", 0),
            "per_second": pace,
            "seconds_left": left,
            "seconds": self.last.get("seconds", 0.0),
            "seconds_since": round(self.age, 1) if self.metrics else None,
            "last_test": tests[-1] if tests else None,
            "best_test": max(tests) if tests else None,
            "stage_seconds": trained[-1].get("stage_seconds", {}) if trained else {},
            "said": self.said,
        }

    def state(self) -> str:
        """Return in words what it does."""
        if not self.metrics:
            return "nothing measured yet"
        if self.settings is not None:
            axis, goal = goal_of(self.settings)
            if self.last.get(axis, 0) >= goal and self.last["phase"] != "collect":
                return "finished"
        if self.age > FRESH:
            return f"stopped? no line for {duration(self.age)}"
        if self.settings is not None and self.settings.data.folder is not None:
            return "learning"
        return AFTER.get(self.last["phase"], "training")

    def pace(self) -> tuple[float | None, float | None]:
        """Return the counts of the goal's counter a second, and the seconds left; None: not known.

        It is the pace of the last rounds, complete ones, for the stages of a round differ.
        """
        if self.settings is None:
            return None, None
        axis, goal = goal_of(self.settings)
        rounds = self.of("train")[-ROUNDS - 1 :]
        if len(rounds) < 2:
            return None, None
        first, last = rounds[0], rounds[-1]
        seconds = last.get("seconds", 0) - first.get("seconds", 0)
        done = last.get(axis, 0) - first.get(axis, 0)
        if seconds <= 0 or done <= 0:
            return None, None
        pace = done / seconds
        if self.state() == "finished" or self.age > FRESH:
            return pace, None
        return pace, max((goal - last.get(axis, 0)) / pace - self.age, 0.0)


def screen(watched: Watched, width: int, height: int | None, *, colours: bool) -> RenderableType:
    """Return the picture of a run.

    Args:
        watched: what was read.
        width: columns of the terminal.
        height: its lines, which the picture does not exceed; None: no end.
        colours: whether it has any; without them there is no frame.
    """
    parts: list[RenderableType] = [_head(watched, width)]
    if watched.said:
        parts.append(Text(escape_controls(watched.said), "yellow"))
    body = Table.grid(padding=(0, 1))
    cells: list[RenderableType] = []
    if watched.frame is not None and colours and width >= 2 * FRAME:
        columns = FRAME if height is None else min(FRAME, max(8, 2 * (height - HEAD - 2)))
        frame = blocks(watched.frame, columns)
        cells.append(Panel.fit(frame, title=f"episode {watched.episode}"))
        width -= min(columns, watched.frame.shape[1]) + 5
    rows = None if height is None else max(1, (height - HEAD) // (HEIGHT + 2))
    cells.append(_charts(watched, width, rows))
    body.add_row(*cells)
    parts.append(body)
    if trained := watched.of("train"):
        if seconds := trained[-1].get("stage_seconds"):
            parts.append(Text(f"time {shares({**by_length(seconds), 'total': 0.0})}", "dim"))
    return Group(*parts)


def _head(watched: Watched, width: int) -> RenderableType:
    now = watched.to_json()
    table = Table.grid(padding=(0, 2))
    title = Text(escape_controls(watched.name), "bold")
    title.append(f"  {now['task'] or ''}  {now['state']}", "not bold")
    table.add_row(title)
    if now["goal"]:
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=now["goal"], completed=now["done"], width=min(40, width // 3))
        line.add_row(bar, Text(f"{now['done']}/{now['goal']} {now['axis']}"))
        table.add_row(line)
    words = [f"{now['updates']} updates", f"{duration(now['seconds'])} spent"]
    if now["per_second"]:
        words.append(f"{now['per_second']:.3g} {now['axis']}/s")
    if now["seconds_left"] is not None:
        words.append(f"{duration(now['seconds_left'])} left")
    if now["last_test"] is not None:
        words.append(f"test {now['last_test']:.4g}, best {now['best_test']:.4g}")
    if now["seconds_since"] is not None:
        words.append(f"last line {duration(now['seconds_since'])} ago")
    table.add_row(Text(", ".join(words)))
    return table


def _charts(watched: Watched, width: int, rows: int | None) -> RenderableType:
    columns = 1 if width < 80 else 2 if width < 150 else 3
    inner = max(16, width // columns - 16)
    curves = [("test return", watched.of("test"), "return")]
    curves += [("return while collecting", watched.of("collect"), "return")]
    curves += [(key, watched.of("train"), key) for key in SHOWN]
    axis = goal_of(watched.settings)[0] if watched.settings else "env_steps"
    panels: list[RenderableType] = []
    for title, lines, key in curves:
        known = [line for line in lines if is_number(line.get(key))]
        if known:
            x = [line.get(axis, 0) for line in known]
            panels.append(_panel(title, x, [line[key] for line in known], inner))
    if rows is not None:
        panels = panels[: rows * columns]
    table = Table.grid(padding=(0, 1))
    for begin in range(0, len(panels), columns):
        table.add_row(*panels[begin : begin + columns])
    return table


def _panel(title: str, x: Sequence[float], y: Sequence[float], width: int) -> Panel:
    lines = chart(x, y, width, HEIGHT)
    text = Text()
    for number, line in enumerate(lines):
        edge = {0: f"{max(y):9.4g}", HEIGHT - 1: f"{min(y):9.4g}"}.get(number, " " * 9)
        text.append(f"{edge} ", "dim")
        text.append(f"{line}\n", "cyan")
    text.right_crop()
    return Panel.fit(text, title=escape_controls(title), subtitle=f"now {y[-1]:.4g}")
