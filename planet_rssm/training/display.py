"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """Stage, rate, loss, return and time left. Everything goes to standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._loss = self._return = float("nan")

    def start(self, budget: int, done: int) -> None:
        """Begin, with `done` of `budget` env_steps spent."""
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._whole = self._bar.add_task("env_steps", total=budget, completed=done, note="")
        self._stage = self._bar.add_task("", total=1, note="")
        self._bar.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` updates or episodes."""
        if self._bar is not None:
            self._bar.reset(self._stage, total=total, description=name, note="")

    def advance(self, loss: float | None = None, episode_return: float | None = None) -> None:
        """Count one update or episode of the stage."""
        self._loss = self._loss if loss is None else loss
        self._return = self._return if episode_return is None else episode_return
        if self._bar is not None:
            speed = self._bar.tasks[self._stage].speed
            rate = f"{speed:.1f}/s" if speed else ""
            note = f"{rate} loss {self._loss:.2f} return {self._return:.0f}"
            self._bar.update(self._stage, advance=1, note=note)

    def wrote(self, phase: str, counters: dict[str, int], seconds: float, values: dict[str, object]) -> None:
        """Report a line of the metrics; off a terminal this is the progress."""
        if self._bar is not None:
            self._bar.update(self._whole, completed=counters["env_steps"])
        numbers = " ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float))
        steps = f"{counters['env_steps']} env_steps {counters['updates']} updates"
        self.say(f"{_clock(seconds)} {phase:7} {steps} {numbers}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:d}:{minutes % 60:02d}:{rest:02d}"
