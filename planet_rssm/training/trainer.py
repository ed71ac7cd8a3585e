"""The loop: collect a round of episodes, learn, test, commit.

A run that was killed continues from its last commit.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch

from planet_rssm.base.cluster import connected
from planet_rssm.base.device import resolve_device
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages, by_length
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.runs.run import Run
from planet_rssm.training.collector import (
    BesideCollector,
    Collector,
    Networks,
    Order,
    Played,
    Threads,
    Watch,
)
from planet_rssm.training.collector_process import ProcessCollector
from planet_rssm.training.display import Display
from planet_rssm.training.learning_run import LearningRun
from planet_rssm.training.local_collector import LocalCollector
from planet_rssm.training.progress import Progress, episodes_after, round_begun
from planet_rssm.training.ray_collector import RayCollector
from planet_rssm.training.restore import locked, open_replay, restore


class Trainer:
    """PlaNet's algorithm 1, with V environments collected side by side.

    Every random draw is named by a counter (seeding.py), so a round that was not committed is
    simply done again.
    """

    def __init__(
        self,
        learning: LearningRun,
        collector: Collector,
        guard: InterruptGuard,
        replay: Replay,
    ) -> None:
        """Take what `open` opens: the run, its environments, its signals and its episodes."""
        self.learning = learning
        self.settings = learning.settings
        self.display = learning.display
        self.stages = learning.stages
        self.collector = collector
        self.beside: BesideCollector | None = None
        if self.settings.train.staleness and isinstance(collector, ProcessCollector | RayCollector):
            self.beside = collector
        self.beside_threads = Threads.asked(self.settings.train)
        self.threads = self.beside_threads.in_turns(self.settings.train)
        if isinstance(collector, RayCollector):  # a machine of its own always
            self.threads = self.threads._replace(collect=self.beside_threads.collect)
        self.guard = guard
        self.replay = replay

    @classmethod
    @contextlib.contextmanager
    def open(cls, run: Run, display: Display, collect_on: str | None = None) -> Iterator[Self]:
        """Lock the run folder, start its environments, and continue from its last commit.

        With `collect_on`, `ray` or `ray:ADDRESS`, they start on the machines of a cluster.

        Raises:
            PlanetError: an environment does not start, or see `locked`, `connected` and `restore`.
        """
        device = resolve_device(run.settings.device)
        stages = Stages()
        with contextlib.ExitStack() as stack:
            with stages("start"):
                place = stack.enter_context(locked(run))
                collector = _collector(run.settings, device, stages, stack, collect_on)
                guard = stack.enter_context(InterruptGuard())
                learner, progress, collecting = restore(run, collector.spec, device, display)
                replay = open_replay(run, progress, display)
                learning = LearningRun(run, display, learner, progress, place=place, stages=stages)
                learning.collecting = collecting
                stack.callback(learning.close)
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            yield cls(learning, collector, guard, replay)

    @property
    def progress(self) -> Progress:
        """What was counted so far."""
        return self.learning.progress

    def run(self) -> None:
        """Train until the budget of env_steps is spent.

        Raises:
            Interrupted: a signal asked to stop; what was learned is committed.
            PlanetError: the environment, the disk or the loss makes going on impossible.
        """
        self.display.start(self.settings.train.env_steps, self.progress.env_steps)
        try:
            while not self.finished():
                self.collect_round()
                self.collect_beside()
                self.learn_round()
                self.take_beside()
                self.test_round()
                self.progress.rounds += 1
                self.commit()
            self._stop_if_asked()
        finally:
            self.display.stop()

    def finished(self) -> bool:
        """Return whether the budget is spent and its last round complete."""
        spent = self.progress.env_steps >= self.settings.train.env_steps
        return spent and not round_begun(self.settings, self.progress)

    def collect_round(self) -> None:
        """Collect the episodes that the round lacks.

        Those of the first round are random, the others planned, with exploration noise.
        """
        first, last = self.progress.episodes, episodes_after(self.settings, self.progress.rounds)
        wanted = range(first, last)
        if not wanted:
            return
        self.display.stage("collect", len(wanted))
        self._use_threads(self.threads.collect)
        with self.stages("collect"):
            self._collect(wanted)

    def _collect(self, wanted: Sequence[int]) -> None:
        kind = Stream.RANDOM_ACTIONS if self.progress.rounds == 0 else Stream.COLLECT
        order = self._order(kind, self.progress.rounds, Stream.RESET, wanted)
        self.collector.begin(order, self._networks())
        self._add(wanted, self._finish())

    def _add(self, wanted: Sequence[int], played: Played, **values: object) -> None:
        """Add episodes to those that are learned from, and write the line of the metrics."""
        episodes = played.episodes
        self.learning.check_there()
        for index, episode in zip(wanted, episodes, strict=True):
            self.replay.add(episode, index)
        self.progress.episodes += len(episodes)
        self.progress.env_steps += sum(episode.env_steps for episode in episodes)
        self.progress.agent_steps += sum(episode.length - 1 for episode in episodes)
        if played.seconds:
            values["collector_seconds"] = by_length(played.seconds)
        self.learning.write("collect", {**_returns(episodes), **values})

    def collect_beside(self) -> None:
        """Have the next round's episodes planned while this round learns: `train.staleness`.

        They are planned with the weights that this round begins with. The first planned episodes
        are not: no weights of before have learned anything.
        """
        progress = self.progress
        wanted = self._missing_of_next()
        if self.beside is None or not progress.rounds or not wanted:
            self.learning.collecting = {}  # of a run that was resumed with a smaller budget
            return
        order = self._order(Stream.COLLECT, progress.rounds + 1, Stream.RESET, wanted)
        order = replace(order, threads=self.beside_threads.collect)
        if self.learning.collecting:  # the run was stopped in the middle of this round
            self.beside.begin_with(order, self.learning.collecting)
        else:
            self.beside.begin(order, self._networks())
            self.learning.collecting = self.beside.weights

    def take_beside(self) -> None:
        """Take the episodes that `collect_beside` has begun."""
        wanted = self._missing_of_next()
        if self.beside is None or not self.learning.collecting:
            return
        self.display.stage("collect", len(wanted))
        with self.stages("collect"):
            played = self._finish()
            self.learning.collecting = {}
            self._add(wanted, played, age=self.settings.train.updates)

    def _missing_of_next(self) -> range:
        """Return the indices of the next round's episodes, none if this round is the last."""
        progress = self.progress
        if progress.env_steps >= self.settings.train.env_steps:
            return range(0)
        return range(progress.episodes, episodes_after(self.settings, progress.rounds + 1))

    def learn_round(self) -> None:
        """Take the optimiser steps that the round lacks.

        A signal is obeyed after any of them, and what was learned is committed.
        """
        train, progress = self.settings.train, self.progress
        last = (progress.rounds + 1) * train.updates
        if progress.updates < last:
            self.display.stage("learn", last - progress.updates)
        beside = self.learning.collecting
        self._use_threads((self.beside_threads if beside else self.threads).learn)
        self.learning.learn(self.replay, last, self._stop_if_asked)

    def test_round(self) -> None:
        """Play episodes without noise, on the same seeds each time.

        This happens every `train.test_every` rounds and at the end.
        """
        train, progress = self.settings.train, self.progress
        ahead = progress.episodes > episodes_after(self.settings, progress.rounds)
        last = progress.env_steps >= train.env_steps and not ahead
        if (progress.rounds + 1) % train.test_every and not last:
            return
        self.display.stage("test", train.test_episodes)
        order = self._order(
            Stream.TEST, progress.rounds, Stream.TEST_RESET, range(train.test_episodes)
        )
        self._use_threads(self.threads.collect)
        with self.stages("test"):
            self.collector.begin(order, self._networks())
            episodes = self._finish().episodes
        returns = _returns(episodes)
        self.learning.write("test", returns)
        self.learning.film("test", episodes[0])
        if progress.best_return is None or returns["return"] > progress.best_return:
            progress.best_return = returns["return"]
            progress.best_env_steps = progress.env_steps

    def commit(self) -> None:
        """Make everything durable: episodes, manifest, metrics, checkpoint, in that order."""
        self.learning.check_there()
        with self.stages("checkpoint"):
            self.replay.commit()
        self.learning.commit()

    def _order(self, stream: Stream, number: int, resets: Stream, indices: Sequence[int]) -> Order:
        seeds = [stream_seed(self.settings.seed, resets, index) for index in indices]
        return Order(stream, number, seeds, self.threads.collect)

    def _networks(self) -> Networks:
        learner = self.learning.learner
        return Networks(learner.model, learner.behavior)

    def _finish(self) -> Played:
        """Return the episodes of the order under way; a signal abandons them all."""
        played = self.collector.finish(Watch(self._tick, self._ended))
        self.progress.lost += played.lost
        return played

    def _ended(self, _: int, episode: Episode) -> None:
        self.display.advance(episode_return=episode.episode_return)

    def _use_threads(self, count: int) -> None:
        """Compute with so many threads from now on, in this process."""
        if self.learning.learner.device.type == "cpu":
            torch.set_num_threads(count)

    def _tick(self) -> None:
        self.display.tick()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.guard.asked:
            if round_begun(self.settings, self.progress):
                self.commit()
            raise Interrupted
        if isinstance(self.collector, RayCollector):
            self.collector.head.check()


def _collector(
    settings: Settings,
    device: torch.device,
    stages: Stages,
    stack: contextlib.ExitStack,
    collect_on: str | None,
) -> Collector:
    """Start the run's environments."""
    if collect_on is not None:
        stack.enter_context(connected("--collect-on", collect_on, settings.train.collectors))
        return stack.enter_context(RayCollector(settings, device))
    if settings.train.staleness:
        return stack.enter_context(ProcessCollector(settings, device))
    pool = stack.enter_context(EnvPool(settings.env, settings.train.envs))
    return LocalCollector(settings, device, pool, stages)


def _returns(episodes: Sequence[Episode]) -> Json:
    returns = [episode.episode_return for episode in episodes]
    return {"return": float(np.mean(returns)), "returns": returns}
