"""How far a command is: a bar on a terminal, a line every half minute elsewhere, on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from planet_rssm.base.stopwatch import duration
from planet_rssm.base.text import escape_controls
from planet_rssm.cli.tables import echo
from planet_rssm.training.display import QUIET


class StageProgress:
    """A stage under way, and how many of its `unit` are done."""

    def __init__(self, name: str, total: int, unit: str = "episodes") -> None:
        """Begin with the stage `name` and nothing done."""
        console = Console(stderr=True, emoji=False)
        self._bar = Progress(console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task(_plain(name), total=total) if self._bar else None
        self._name = name
        self._total = total
        self._unit = unit
        self.done = 0
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def stage(self, name: str) -> None:
        """Begin another stage; what is done of the command stays counted."""
        self._name = name
        self._show()

    def begin(self, name: str) -> None:
        """Begin another stage, of which nothing is done."""
        self._name = name
        self.done = 0
        self._began = time.monotonic()
        if self._bar and self._task is not None:
            self._bar.reset(self._task, description=_plain(name))

    def at(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self.done = done
        self._total = total
        self._show()

    def advance(self, _: object = None) -> None:
        """Count one more."""
        self.at(self.done + 1, self._total)

    def _show(self) -> None:
        now = time.monotonic()
        if self._bar and self._task is not None:
            self._bar.update(
                self._task,
                completed=self.done,
                total=self._total,
                description=_plain(self._name),
            )
        elif now - self._printed >= QUIET:
            self._printed = now
            spent = now - self._began
            left = (
                f", {duration(spent / self.done * (self._total - self.done))} left"
                if self.done
                else ""
            )
            echo(f"{self._name}: {self.done} of {self._total} {self._unit}{left}", err=True)


def _plain(name: str) -> str:
    """Return a name as a bar shows it: a run folder's may hold what rich takes for markup."""
    return escape(escape_controls(name))
