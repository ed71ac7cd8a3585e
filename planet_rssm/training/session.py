"""What every way to train shares: a model that learns, counters, metrics, and the checkpoints that bring them back."""

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm import config
from planet_rssm.base.device import resolve_device, within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import remove_stale
from planet_rssm.base.interrupt import InterruptGuard
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages, by_length
from planet_rssm.behavior import untrained_behavior
from planet_rssm.data.replay import EPISODES, Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import BEST, Checkpoint, DamagedCheckpointError
from planet_rssm.runs.run import CONFIG, Run, decided_otherwise
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner, check_state
from planet_rssm.training.metrics import COUNTERS, Meter, MetricsLog, resident_mib
from planet_rssm.world_model import untrained_model

MUCH_PADDING = 0.5  # of a batch: from here on it is said
NEEDED = (
    "rounds",
    "env_steps",
    "agent_steps",
    "updates",
    "episodes",
    "metrics_offset",
)  # of what is counted


@dataclass
class Progress:
    """All that a run counts. Every checkpoint holds it, and the loop's next action follows from it alone."""

    rounds: int = 0  # completed
    env_steps: int = 0  # simulator control steps of committed training episodes
    agent_steps: int = 0
    updates: int = 0
    episodes: int = 0
    lost: int = 0  # episodes dropped because their worker died
    damaged: int = (
        0  # committed episodes set aside because their file was not as it had been written
    )
    skipped: int = 0  # updates with a non-finite loss
    skipped_in_a_row: int = 0
    best_return: float | None = None
    best_env_steps: int | None = None  # of the checkpoint that got it
    seconds: float = 0.0  # spent in all processes of this run
    metrics_offset: int = 0  # bytes of metrics.jsonl that this state has written
    metrics_crc: int | None = None  # their CRC-32
    data_crc: int = 0  # offline: of the episodes that are learned from
    meter: dict[str, list[float]] = field(
        default_factory=dict
    )  # means of the round's updates so far
    stage_seconds: dict[str, float] = field(default_factory=dict)  # where `seconds` went, by stage

    @classmethod
    def read(cls, held: Checkpoint) -> "Progress":
        """Return what a checkpoint's run had counted.

        Raises:
            PlanetError: a count is missing or of another kind; beginning at 0 instead would delete
                episodes.
        """
        known = {one.name: one for one in fields(cls)}
        odd = [f"lacks {name}" for name in NEEDED if name not in held.progress]
        odd += [f"has {name}" for name in held.progress if name not in known]
        counts = [
            name
            for name, one in known.items()
            if one.type in ("int", int) and name in held.progress
        ]
        odd += [f"has {name} = {held.progress[name]!r}" for name in counts
                if type(held.progress[name]) is not int or held.progress[name] < 0]  # fmt: skip
        made = cls(**{name: value for name, value in held.progress.items() if name in known})
        pairs = [isinstance(pair, list) and len(pair) == 2 for pair in dict(made.meter).values()]
        odd += [] if all(pairs) else ["has another meter"]
        if odd:
            raise PlanetError(f"{held.name}: its progress {odd[0]}: not as this version of planet_rssm wrote it; go on "
                              "with the version that did, or from another checkpoint")  # fmt: skip
        return made

    def counters(self) -> dict[str, int]:
        """Return the counts that every metrics line carries."""
        return {name: getattr(self, name) for name in COUNTERS}


class Session:
    """A run in the hands of the one process that trains it.

    `axis` is the counter that grows as the run goes on: it names checkpoints and places
    TensorBoard's points.
    """

    spec: EnvSpec
    learner: Learner
    metrics: MetricsLog
    rounds_before = 0  # that the checkpoint had which was taken up

    def __init__(self, run: Run, display: Display, axis: str = "env_steps") -> None:
        self.run, self.folder, self.settings, self.display, self.axis = (
            run,
            run.folder,
            run.settings,
            display,
            axis,
        )
        self.device = resolve_device(run.settings.device)
        self.progress = Progress()
        self.stages = Stages(self.progress.stage_seconds)
        self._started = time.monotonic()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the run folder, and tell a disk that fails in one line.

        Raises:
            PlanetError: another process trains in it, or the disk failed inside.
        """
        try:
            with self.run.lock():
                self._place = _place(self.folder)
                yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise PlanetError(
                f"run folder {self.folder}: {reason}; mend that, then go on with --resume"
            ) from error

    def check_there(self) -> None:
        """Refuse to write where the folder was, before anything would make it anew.

        Raises:
            PlanetError: it was moved, deleted or exchanged since it was locked.
        """
        if _place(self.folder) != self._place:
            raise PlanetError(
                f"run folder {self.folder}: moved or deleted while it trained; where it is now it goes on from its "
                "last commit, with --resume --run-dir THERE"
            )

    def restore(self, spec: EnvSpec) -> None:
        """Build the model for `spec`, and take up the newest checkpoint if there is one.

        Raises:
            PlanetError: checkpoints that cannot be read, or settings or an environment other than
                those learned with.
        """
        self.spec = spec
        held = self._newest()
        if held is None:
            self._begin_anew()
        else:
            self._check_settings(held)
        for folder in (self.folder, self.folder / checkpoints.FOLDER):
            remove_stale(folder)
        model = untrained_model(self.settings, spec).to(self.device)
        behavior = untrained_behavior(self.settings, model)
        if held is not None:
            _check_same(held.spec, spec)
            checkpoints.fill(model, held.model, f"{held.name}: model")
            if behavior is not None:
                checkpoints.fill(behavior, held.behavior, f"{held.name}: behavior")
            self.progress = Progress.read(held)
            self.rounds_before = self.progress.rounds
            self.stages.continue_into(self.progress.stage_seconds)
        self.learner = Learner(model, self.settings, self.device, behavior)
        if held is not None:
            check_state(self.learner.parameters(), held)
            self.learner.load_optimizer_tensors(held.optimizer)
            self._tidy()

    def open_metrics(self) -> None:
        """Go on writing the metrics, and counting seconds, where the checkpoint was taken."""
        progress = self.progress
        written = progress.metrics_offset, self._number(), self.axis, progress.metrics_crc
        self.metrics = MetricsLog(self.folder, *written)
        self._started = time.monotonic() - self.progress.seconds

    def learn(self, replay: Replay, last: int, on_update: Callable[[], object]) -> None:
        """Take the optimiser steps that are missing of `last`, then write the round's line; `on_update` may raise."""
        train, progress = self.settings.train, self.progress
        if not progress.updates and (
            line := padding_line(replay.padding(train.batch_length), train.batch_length)
        ):
            self.display.say(line)
        mend = (
            "free some and go on with --resume, or train another run with a lower train.batch_size"
        )
        meter = Meter(progress.meter)
        while progress.updates < last:
            self.check_there()  # else the episodes seem to be missing one by one
            rng = np.random.default_rng(
                stream_seed(self.settings.seed, Stream.BATCH, progress.updates)
            )
            with self.stages("waiting"):
                chunks = replay.sample(
                    rng, train.batch_size, train.batch_length, self.settings.data.first_action
                )
            with (
                self.stages("learn"),
                within_memory(self.device, f"update {progress.updates + 1}", mend),
            ):
                values = self.learner.update(chunks, progress.updates)
            progress.updates += 1
            self._count_skipped(values)
            meter.add(values)
            self.display.advance(loss=values.get("loss/total"))
            on_update()
        progress.damaged += replay.take_damaged()
        if meter.sums:  # else this round's line was written before the checkpoint that was taken up
            self.write("train", {**meter.drain(), "damaged": progress.damaged, "memory_mib": resident_mib(),
                                 "stage_seconds": by_length(progress.stage_seconds)})  # fmt: skip

    def write(self, phase: str, values: dict[str, Any]) -> None:
        """Write a line of the metrics and show it."""
        self.check_there()
        values = {**values, "skipped": self.progress.skipped, "lost": self.progress.lost}
        for told in (self.metrics.write, self.display.wrote):
            told(phase, self.progress.counters(), self._seconds(), values)

    def commit(self) -> None:
        """Make metrics and checkpoint durable, in that order, and let the oldest checkpoints go."""
        self.check_there()
        with self.stages("checkpoint"):
            self.progress.metrics_offset, self.progress.metrics_crc = (
                self.metrics.sync(),
                self.metrics.crc,
            )
            self._seconds()
            self._save(self._number())
            self.run.mark_committed()
            self._tidy()

    def _number(self) -> int:
        return self.progress.counters()[self.axis]

    def _seconds(self) -> float:
        """Count the seconds, which never go back, whatever the clock does."""
        self.progress.seconds = max(self.progress.seconds, time.monotonic() - self._started)
        return self.progress.seconds

    def _save(self, name: int | str) -> None:
        held = self.learner.checkpoint(self.spec, asdict(self.progress))
        checkpoints.save(held, checkpoints.path_of(self.folder, name))

    def _tidy(self) -> None:
        """After a checkpoint was written, or taken up: copy it if it is the best, and let the oldest go.

        Done both times, a kill in between is made good.
        """
        if self.progress.best_env_steps == self.progress.env_steps:
            self._save(BEST)
        for path in checkpoints.numbered(self.folder)[: -self.settings.train.keep]:
            path.unlink()

    def _check_settings(self, held: Checkpoint) -> None:
        if key := decided_otherwise(held.settings, self.settings):
            before, now = config.flatten(held.settings)[key], config.flatten(self.settings)[key]
            raise PlanetError(
                f"{self.folder / CONFIG}: {key} is {now}, the run has learned with {before}; write that back into it"
            )

    def _begin_anew(self) -> None:
        """Let a run begin that has no checkpoint, unless it had one: all that it has learned from would be deleted."""
        folder, episodes = self.folder / checkpoints.FOLDER, self.folder / EPISODES
        if self.run.was_committed():
            raise PlanetError(
                f"{folder}: holds no checkpoint to go on from, though the run had written some; nothing was changed: "
                f"bring them back, or learn from its episodes anew: --offline --data {episodes} --run-dir ANOTHER"
            )
        if any(episodes.glob("*.safetensors")):
            self.display.say(f"run folder {self.folder}: it was stopped before its first commit; its first round is "
                             "done again")  # fmt: skip
        folder.mkdir(exist_ok=True)

    def _newest(self) -> Checkpoint | None:
        """Load the newest checkpoint that is whole; a damaged one is named, set aside, and the one before it taken."""
        for path in reversed(checkpoints.numbered(self.folder)):
            try:
                return checkpoints.load(
                    path, trusted=True
                )  # its settings must be those that the run was opened with
            except DamagedCheckpointError as error:
                if path == checkpoints.numbered(self.folder)[0]:
                    raise PlanetError(
                        f"checkpoint {path}: damaged or not a checkpoint, and there is none before it to go on "
                        "from; bring it back from a "
                        f"copy, or learn from the run's episodes anew: --offline --data {self.folder / EPISODES} "
                        "--run-dir ANOTHER"
                    ) from error
                aside = path.with_name(f"{path.name}.damaged")
                self.display.say(
                    f"checkpoint {path}: damaged; set aside as {aside.name}, going back to the one before"
                )
                path.rename(aside)
        return None

    def _count_skipped(self, values: dict[str, float]) -> None:
        progress = self.progress
        skipped = "skipped" in values
        progress.skipped += skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if skipped else 0
        if progress.skipped_in_a_row > self.settings.train.max_skipped:
            raise PlanetError(
                f"update {progress.updates}: the loss was not finite {progress.skipped_in_a_row} times in a row "
                f"(train.max_skipped = {self.settings.train.max_skipped}); lower optimizer.lr or look at the rewards"
            )


class Loop(ABC):
    """A way to train: rounds of work on a session, until a budget is spent or a signal asks to stop."""

    axis = "env_steps"
    guard: InterruptGuard
    replay: Replay

    def __init__(self, run: Run, display: Display) -> None:
        self.session, self.settings, self.display = (
            Session(run, display, self.axis),
            run.settings,
            display,
        )

    @property
    def progress(self) -> Progress:
        """What was counted so far."""
        return self.session.progress

    @abstractmethod
    def run(self) -> None:
        """Train until the budget is spent.

        Raises:
            Interrupted: a signal asked to stop; what was learned is committed.
            PlanetError: something makes going on impossible; what was committed is kept.
        """


def padding_line(share: float, length: int) -> str | None:
    """Return the line that says how much of each batch is padding; None where less than half is."""
    if share < MUCH_PADDING:
        return None
    return (
        f"train.batch_length = {length}: most episodes are shorter, {share:.0%} of each batch is padding, which "
        "counts for nothing; a shorter chunk learns as much in less time"
    )


def _place(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from all others, whatever it is called; None where there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_same(held: EnvSpec, now: EnvSpec) -> None:
    here = asdict(now)
    for key, value in asdict(held).items():
        if here[key] != value:
            raise PlanetError(
                f"environment: {key} is {here[key]} here, the run has learned from {value}; go on where it is "
                "the same, or train another run"
            )
