"""What both ways to train share: updates, counts, metrics and commits of one run."""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
from torch import Tensor

from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages, by_length
from planet_rssm.config import flatten
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.location import BEST
from planet_rssm.runs.run import Run
from planet_rssm.training.batches import Batches
from planet_rssm.training.captured import Staged
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner
from planet_rssm.training.metrics import Meter, MetricsLog, resident_mib
from planet_rssm.training.progress import Progress
from planet_rssm.training.restore import Place
from planet_rssm.training.team import Team
from planet_rssm.training.trackers import Tracker

MUCH_PADDING = 0.5  # share of a batch from which on a line reports it


class LearningRun:
    """A run in the process that trains it, from the state that `restore` returned."""

    def __init__(
        self,
        run: Run,
        display: Display,
        learner: Learner,
        progress: Progress,
        *,
        place: Place | None,
        stages: Stages,
        axis: str = "env_steps",
    ) -> None:
        """Open the metrics where the checkpoint was written, and begin to count seconds.

        Args:
            run: the run, whose folder this process has locked.
            display: shows what happens.
            learner: with the weights of the newest checkpoint.
            progress: counts of the same.
            place: where the folder was when it was locked.
            stages: seconds by stage, from now on added to those of `progress`.
            axis: the counter that grows as the run goes on: it names checkpoints and places
                TensorBoard's points.
        """
        self.run = run
        self.folder = run.folder
        self.settings = run.settings
        self.display = display
        self.learner = learner
        self.progress = progress
        self.rounds_before = progress.rounds  # of the checkpoint
        self.stages = stages
        self.axis = axis
        # weights that plan episodes meanwhile, see Networks.weights; none if nothing does
        self.collecting: dict[str, Tensor] = {}
        self._place = place
        stages.continue_into(progress.stage_seconds)
        self._tidy()
        self.metrics = MetricsLog(
            run.folder,
            progress.metrics_offset,
            self._number(),
            axis=axis,
            crc=progress.metrics_crc,
            trackers=[
                Tracker(name, run.folder, flatten(run.settings))
                for name in run.settings.train.trackers
            ],
        )
        self._started = time.monotonic() - progress.seconds

    def learn_with(self, team: Team | None) -> None:
        """Make the updates together with the processes of a team; None: alone.

        Raises:
            PlanetError: one of them has ended.
        """
        count = 1 if team is None else team.count
        if count != self.progress.ranks and self.progress.updates:
            self.display.say(
                f"processes that learn: {count}, {self.progress.ranks} before; batches and draws "
                "stay the same, the sums are rounded otherwise, so the weights differ by rounding "
                "from those of a run that was not stopped"
            )
        self.progress.ranks = count
        if team is not None:
            learner = self.learner
            checkpoint = learner.checkpoint(learner.model.spec, asdict(self.progress))
            team.share(checkpoints.to_bytes(checkpoint))
            learner.join(team)

    def close(self) -> None:
        """Close the files of the metrics."""
        self.metrics.close()

    def check_there(self) -> None:
        """Refuse to write where the folder was, before anything would create it again.

        Raises:
            PlanetError: it was moved, deleted or exchanged since it was locked.
        """
        if Place.of(self.folder) != self._place:
            raise PlanetError(
                f"run folder {self.folder}: moved or deleted while it trained; where it is now it "
                "goes on from its last commit, with --resume --run-dir THERE"
            )

    def learn(self, replay: Replay, last: int, on_update: Callable[[], object]) -> None:
        """Take the optimiser steps that are missing of `last`, then write the round's line.

        `on_update` is called after each, and may raise.
        """
        train, progress = self.settings.train, self.progress
        if not progress.updates and (
            line := padding_line(replay.padding(train.batch_length), train.batch_length)
        ):
            self.display.say(line)
        meter = Meter(progress.meter)
        draw = functools.partial(self._draw, replay)
        with Batches(draw, ahead=self.learner.device.type == "cuda") as batches:
            while progress.updates < last:
                values = self._update(batches, last)
                progress.updates += 1
                self._count_skipped(values)
                meter.add(values)
                self.display.advance(loss=values.get("loss/total"))
                on_update()
        progress.damaged += replay.take_damaged()
        if meter.sums:  # empty: the line was written before the checkpoint that was loaded
            means = meter.drain()
            measured = {
                "damaged": progress.damaged,
                "memory_mib": resident_mib(),
                "stage_seconds": by_length(progress.stage_seconds),
            }
            self.write("train", {**means, **measured})

    def write(self, phase: str, values: Json) -> None:
        """Write a line of the metrics and show it."""
        self.check_there()
        values = {**values, "skipped": self.progress.skipped, "lost": self.progress.lost}
        counters, seconds = self.progress.counters(), self._seconds()
        self.metrics.write(phase, counters, seconds, values)
        self.display.wrote(phase, counters, seconds, values)

    def film(self, phase: str, episode: Episode) -> None:
        """Give the trackers, if there are any, a film of an episode."""
        interval = self.learner.model.spec.control_interval
        self.metrics.film(f"{phase}/film", episode, interval, self.progress.counters()[self.axis])

    def commit(self) -> None:
        """Make metrics and checkpoint durable, in that order, and delete the oldest checkpoints."""
        self.check_there()
        with self.stages("checkpoint"):
            self.progress.metrics_offset = self.metrics.sync()
            self.progress.metrics_crc = self.metrics.crc
            self._seconds()
            self._save(self._number())
            self.run.mark_committed()
            self._tidy()

    def _draw(self, replay: Replay, index: int) -> Staged:
        """Return the batch of update number `index`, ready for the learner."""
        train = self.settings.train
        self.check_there()  # else the episodes seem to be missing one by one
        rng = np.random.default_rng(stream_seed(self.settings.seed, Stream.BATCH, index))
        chunks = replay.sample(
            rng, train.batch_size, train.batch_length, self.settings.data.first_action
        )
        return self.learner.stage(chunks, index)

    def _update(self, batches: Batches[Staged], last: int) -> dict[str, float]:
        """Take the next optimiser step, of those before `last`, and return its metrics."""
        index = self.progress.updates
        with self.stages("waiting"):
            batch = batches.take(index)
        if index + 1 < last:
            batches.begin(index + 1)
        what = f"update {index + 1}"
        fix = (
            "free some and go on with --resume, or train another run with a lower train.batch_size"
        )
        with self.stages("learn"), within_memory(self.learner.device, what, fix):
            values = self.learner.update(batch, index)
        with self.stages("waiting"):
            batches.wait()
        return values

    def _number(self) -> int:
        return self.progress.counters()[self.axis]

    def _seconds(self) -> float:
        """Count the seconds, which never go back, whatever the clock does."""
        self.progress.seconds = max(self.progress.seconds, time.monotonic() - self._started)
        return self.progress.seconds

    def _save(self, name: int | str) -> None:
        spec = self.learner.model.spec
        checkpoint = self.learner.checkpoint(spec, asdict(self.progress))
        checkpoint = replace(checkpoint, collecting=self.collecting)
        checkpoints.save(checkpoint, location.path_of(self.folder, name))

    def _tidy(self) -> None:
        """Copy the newest checkpoint if it is the best, and delete the oldest.

        Done after writing and after loading one: a kill in between is made good.
        """
        if self.progress.best_env_steps == self.progress.env_steps:
            self._save(BEST)
        for path in location.numbered(self.folder)[: -self.settings.train.keep]:
            path.unlink()

    def _count_skipped(self, values: dict[str, float]) -> None:
        progress = self.progress
        skipped = "skipped" in values
        progress.skipped += skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if skipped else 0
        if progress.skipped_in_a_row > self.settings.train.max_skipped:
            raise PlanetError(
                f"update {progress.updates}: the loss was not finite {progress.skipped_in_a_row} "
                f"times in a row (train.max_skipped = {self.settings.train.max_skipped}); lower "
                "optimizer.lr or look at the rewards"
            )


def padding_line(share: float, length: int) -> str | None:
    """Return the line that says how much of each batch is padding; None where under half is."""
    if share < MUCH_PADDING:
        return None
    return (
        f"train.batch_length = {length}: most episodes are shorter, {share:.0%} of each batch is "
        "padding, which counts for nothing; a shorter chunk learns as much in less time"
    )
