"""What a person watches while a run trains: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from planet_rssm.base.text import escape_controls

# What a person reads of each line of the metrics, at most MOST of them; all numbers are in
# metrics.jsonl.
READ = ("return", "loss/total", "loss/kl", "loss/reward", "loss/image", "loss/vector")
MOST = 4
WRONG = ("skipped", "lost", "damaged")  # counts that are shown where they are not 0
# the plan at the end: by the model, by an untrained one, and blind ones about as long together
PLAYED_AGAIN = 3
# Seconds between plain lines: a log stays short, and still shows that the run is alive.
QUIET = 30.0


class Display:
    """Stage, rate, loss, return and time left. Everything goes to standard error."""

    def __init__(self, plan_episodes: int = 0) -> None:
        """Count the episodes that are planned once the training ends into the time left."""
        self._plan_episodes = plan_episodes
        self._after = 0.0  # seconds of that plan, known from the first test on
        self._console = Console(file=sys.stderr, emoji=False)
        self._bar: Progress | None = None
        self._axis = "env_steps"  # the counter that the budget is of
        self._latest: dict[str, float] = {}  # loss and return
        self._time_left = TimeLeft(0)
        self._name = ""  # of the stage, as the next two
        self._done = 0
        self._total = 0
        self._stage_began = self._spoke = time.monotonic()

    def start(self, budget: int, done: int, axis: str = "env_steps") -> None:
        """Begin, with `done` of `budget` spent of the counter `axis`."""
        self._axis = axis
        self._time_left = TimeLeft(budget)
        self._spoke = time.monotonic()
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._run_task = self._bar.add_task(axis, total=budget, completed=done, note="")
        self._stage_task = self._bar.add_task("", total=1, note="")
        self._bar.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` updates or episodes."""
        self._name = name
        self._done = 0
        self._total = total
        self._stage_began = time.monotonic()
        if self._bar is not None:
            self._bar.reset(self._stage_task, total=total, description=name, note="")
        self._show()

    def advance(self, loss: float | None = None, episode_return: float | None = None) -> None:
        """Count one update or episode of the stage."""
        self._done += 1
        latest = {"loss": loss, "return": episode_return}
        self._latest |= {name: value for name, value in latest.items() if value is not None}
        self._show()

    def tick(self) -> None:
        """Show that a long episode is still being played."""
        self._show()

    def wrote(
        self, phase: str, counters: dict[str, int], seconds: float, values: dict[str, object]
    ) -> None:
        """Report a line of the metrics: the few numbers that say whether it goes well."""
        if phase == "collect":
            self._time_left.collected(counters["env_steps"], time.monotonic())
        if phase == self._name == "test" and self._done:
            each = (time.monotonic() - self._stage_began) / self._done
            self._after = PLAYED_AGAIN * self._plan_episodes * each
        if self._bar is not None:
            self._bar.update(self._run_task, completed=counters[self._axis])
        numbers = [
            f"{key} {value:.4g}" for key in READ if isinstance(value := values.get(key), float)
        ][:MOST]
        numbers += [f"{key} {value}" for key in WRONG if (value := values.get(key))]
        steps = f"{counters['env_steps']} env_steps {counters['updates']} updates"
        self.say(f"{_clock(seconds)} {phase:7} {steps} {' '.join(numbers)}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._spoke = time.monotonic()
        self._console.print(escape_controls(line), soft_wrap=True, highlight=False, markup=False)

    def _show(self) -> None:
        now = time.monotonic()
        left = self._time_left.seconds(now)
        run = "" if left is None else f"{_clock(left + self._after)} left"
        numbers = [f"{name} {value:.2f}" for name, value in self._latest.items()]
        if self._bar is not None:
            self._bar.update(self._run_task, note=run)
            self._bar.update(
                self._stage_task, completed=self._done, note=" ".join([*self._pace(now), *numbers])
            )
        elif now - self._spoke >= QUIET:
            parts = [f"{self._name} {self._done}/{self._total}", *self._pace(now), *numbers]
            self.say(", ".join([*parts, f"run {run}"] if run else parts))

    def _pace(self, now: float) -> list[str]:
        """Return the stage's rate and the time it still takes, once something was measured."""
        spent = now - self._stage_began
        if not self._done or not spent:
            return []
        rate = f"{self._done / spent:.3g}/s"
        return [rate, f"stage {_clock(spent / self._done * (self._total - self._done))} left"]


class TimeLeft:
    """How long a run still takes, from the pace of its complete rounds.

    The stages of a round differ, rounds hardly do. A round is known by its collected env_steps. The
    first one in a process, which may be random episodes or half a round, only starts the clock.
    Times are in seconds of one monotonic clock.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._marks: list[tuple[int, float]] = []  # env_steps, and when they were collected

    def collected(self, env_steps: int, now: float) -> None:
        """Note the end of a round's collecting, `env_steps` in all."""
        self._marks.append((env_steps, now))

    def seconds(self, now: float) -> float | None:
        """Return the seconds left, or None before a round was completed."""
        if len(self._marks) < 2:
            return None
        first, began = self._marks[0]
        before, _ = self._marks[-2]
        last, ended = self._marks[-1]
        pace = (ended - began) / (last - first)
        unlearned = last - before  # collected, but the round's updates are still to come
        return max((max(self._budget - last, 0) + unlearned) * pace - (now - ended), 0.0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:d}:{minutes % 60:02d}:{rest:02d}"
