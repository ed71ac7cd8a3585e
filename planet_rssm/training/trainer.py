"""The loop: collect a round of episodes, learn, test, commit; and take up again where a killed run was committed."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages
from planet_rssm.collect import Policy, RandomPolicy, collect
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import EPISODES, Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.precision import collecting_precision
from planet_rssm.training.session import Loop


class Trainer(Loop):
    """PlaNet's algorithm 1, with V environments collected side by side.

    Every random draw is named by a counter (seeding.py), so a round that was not committed is
    simply done again.
    """

    pool: EnvPool

    def run(self) -> None:
        """Train until the budget of env_steps is spent.

        Raises:
            Interrupted: a signal asked to stop; what was learned is committed.
            PlanetError: the environment, the disk or the loss makes going on impossible; see
                `Session.restore` too.
        """
        env, rows = self.settings.env, self.settings.train.envs
        self.stages = self.session.stages
        with contextlib.ExitStack() as held:
            with self.stages("start"):
                held.enter_context(self.session.locked())
                self.pool = held.enter_context(EnvPool(env, rows))
                self.guard = held.enter_context(InterruptGuard())
                self.restore()
            self._loop()

    def _loop(self) -> None:
        self.display.start(self.settings.train.env_steps, self.progress.env_steps)
        try:
            while not self.finished():
                self.collect_round()
                self.learn_round()
                self.test_round()
                self.progress.rounds += 1
                self.commit()
            self._stop_if_asked()
        finally:
            self.display.stop()
            self.session.metrics.close()

    def finished(self) -> bool:
        """Return whether the budget is spent and its last round complete."""
        return self.progress.env_steps >= self.settings.train.env_steps and not self._round_begun()

    def collect_round(self) -> None:
        """Collect the episodes that the round lacks: random ones first, then planned ones with exploration noise."""
        wanted = range(self.progress.episodes, self._episodes_after(self.progress.rounds))
        if not wanted:
            return
        self.display.stage("collect", len(wanted))
        with self.stages("collect"):
            self._collect(wanted)

    def _collect(self, wanted: Sequence[int]) -> None:
        seed = self.settings.seed
        policy: Policy
        if self.progress.rounds == 0:
            spec = self.pool.spec
            policy = RandomPolicy(
                spec.action_size, stream_seed(seed, Stream.RANDOM_ACTIONS), spec.groups
            )
        else:
            policy = self._planned(
                Stream.COLLECT, self.settings.train.exploration_noise, self.stages
            )
        with self.stages("environment"):
            episodes = self._play(
                policy, [stream_seed(seed, Stream.RESET, index) for index in wanted]
            )
        self.session.check_there()
        for index, episode in zip(wanted, episodes, strict=True):
            self.replay.add(episode, index)
        self.progress.episodes += len(episodes)
        self.progress.env_steps += sum(episode.env_steps for episode in episodes)
        self.progress.agent_steps += sum(episode.length - 1 for episode in episodes)
        self.session.write("collect", _returns(episodes))

    def learn_round(self) -> None:
        """Take the optimiser steps that the round lacks; a signal is obeyed, and committed, after any of them."""
        train, progress = self.settings.train, self.progress
        last = (progress.rounds + 1) * train.updates
        if progress.updates < last:
            self.display.stage("learn", last - progress.updates)
        self.session.learn(self.replay, last, self._stop_if_asked)

    def test_round(self) -> None:
        """Every so many rounds and at the end: episodes without noise, on the same seeds each time."""
        train, progress = self.settings.train, self.progress
        if (progress.rounds + 1) % train.test_every and progress.env_steps < train.env_steps:
            return
        self.display.stage("test", train.test_episodes)
        seeds = [
            stream_seed(self.settings.seed, Stream.TEST_RESET, index)
            for index in range(train.test_episodes)
        ]
        with self.stages("test"):
            returns = _returns(self._play(self._planned(Stream.TEST, 0.0), seeds))
        self.session.write("test", returns)
        if progress.best_return is None or returns["return"] > progress.best_return:
            progress.best_return, progress.best_env_steps = returns["return"], progress.env_steps

    def commit(self) -> None:
        """Make everything so far durable: episodes, manifest, metrics, checkpoint, in that order."""
        self.session.check_there()
        with self.stages("checkpoint"):
            self.replay.commit()
        self.session.commit()

    def restore(self) -> None:
        """Take up what was committed; see `Session.restore`."""
        self.session.restore(self.pool.spec)
        self._check_counts()
        self.replay = Replay(self.session.folder / EPISODES, self.settings.data.capacity)
        self._tell_lost()
        self.replay.truncate(self.progress.episodes)
        self.session.open_metrics()

    def _check_counts(self) -> None:
        """Refuse counts that this loop never comes to: from them it might go on for ever.

        Raises:
            PlanetError: the checkpoint has such.
        """
        progress, updates = self.progress, self.settings.train.updates
        begun = (self._episodes_after(progress.rounds - 1), self._episodes_after(progress.rounds))
        if (
            progress.episodes not in begun
            or not 0 <= progress.updates - progress.rounds * updates <= updates
        ):
            told = f"{progress.episodes} episodes and {progress.updates} updates in {progress.rounds} rounds"
            raise PlanetError(f"run folder {self.session.folder}: its checkpoint counts {told}, which these settings "
                              "never come to; go on from another copy of it")  # fmt: skip

    def _tell_lost(self) -> None:
        """Say which episodes are gone that the checkpoint had learned from, before anything is done without them.

        Raises:
            PlanetError: there is none left in the middle of a round's updates.
        """
        progress, capacity = self.progress, self.settings.data.capacity
        there = {entry.index for entry in self.replay.episodes if entry.index < progress.episodes}
        all_fit = progress.agent_steps + progress.episodes <= capacity  # frames
        oldest = 0 if all_fit or not there else min(there)  # older ones were let go
        lost = progress.episodes - oldest - len(there) - progress.damaged
        if lost <= 0:
            return
        told = f"{self.replay.folder}: {lost} of the run's {progress.episodes} episodes are gone"
        if not there and self._round_begun():
            raise PlanetError(
                f"{told}, and a round's updates are still to be made from them; bring them back"
            )
        self.display.say(f"{told}; it goes on from its checkpoint and the {len(there)} that are left, and learns "
                         "otherwise than it would have")  # fmt: skip

    def _round_begun(self) -> bool:
        progress = self.progress
        done = (
            self._episodes_after(progress.rounds - 1),
            progress.rounds * self.settings.train.updates,
        )
        return (progress.episodes, progress.updates) != done

    def _episodes_after(self, rounds: int) -> int:
        """Return how many episodes there are once round number `rounds` (from 0) has collected."""
        return (
            self.settings.train.seed_episodes + rounds * self.settings.train.envs
            if rounds >= 0
            else 0
        )

    def _planned(self, stream: Stream, noise: float, stages: Stages | None = None) -> AgentPolicy:
        seed = stream_seed(self.settings.seed, stream, self.progress.rounds)
        learner, device, settings = self.session.learner, self.session.device, self.settings
        if (
            settings.planner.name == "actor" and stream is Stream.COLLECT
        ):  # it explores by drawing its actions
            settings = settings.model_copy(
                update={"planner": settings.planner.model_copy(update={"act_by": "draw"})}
            )
        parts = (settings, self.session.spec, learner.model, learner.behavior)
        precision = collecting_precision(self.settings, device)
        agent = Agent.build(
            *parts, device=device, precision=precision, exploration_noise=noise, seed=seed
        )
        return AgentPolicy(agent, self.settings.train.envs, stages=stages)

    def _play(self, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
        """Return one episode a seed, in the order of the seeds; a signal abandons them all."""
        before = self.pool.lost
        done: dict[int, Episode] = {}
        mend = (
            "free some and go on with --resume, or train another run with lower planner.candidates"
        )
        with within_memory(self.session.device, "a decision", mend):
            for index, episode in collect(self.pool, policy, seeds, on_step=self._on_step):
                done[index] = episode
                self.display.advance(episode_return=episode.episode_return)
        self.progress.lost += self.pool.lost - before
        return [done[index] for index in range(len(seeds))]

    def _on_step(self, _: object) -> None:
        self.display.tick()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.guard.asked:
            if self._round_begun():
                self.commit()
            raise Interrupted


def _returns(episodes: Sequence[Episode]) -> dict[str, Any]:
    returns = [episode.episode_return for episode in episodes]
    return {"return": float(np.mean(returns)), "returns": returns}
