"""The loop: collect a round of episodes, learn, test, commit; and take up again where a killed run was committed."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from planet_rssm import checkpoint as checkpoints
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.checkpoint import BEST, Checkpoint, DamagedCheckpointError
from planet_rssm.collect import Policy, RandomPolicy, collect
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import EPISODES, Replay
from planet_rssm.device import resolve_device
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.errors import PlanetError
from planet_rssm.files import remove_stale
from planet_rssm.run import Run
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.training.display import Display
from planet_rssm.training.interrupt import Interrupted, InterruptGuard
from planet_rssm.training.learner import Learner
from planet_rssm.training.metrics import COUNTERS, Meter, MetricsLog
from planet_rssm.world_model import untrained_model


@dataclass
class Progress:
    """All that a run counts. Every checkpoint holds it, and the loop's next action follows from it alone."""

    rounds: int = 0  # completed
    env_steps: int = 0  # simulator control steps of committed training episodes
    agent_steps: int = 0
    updates: int = 0
    episodes: int = 0
    lost: int = 0  # episodes dropped because their worker died
    skipped: int = 0  # updates with a non-finite loss
    skipped_in_a_row: int = 0
    best_return: float | None = None
    best_env_steps: int | None = None  # of the checkpoint that got it
    seconds: float = 0.0  # spent in all processes of this run
    metrics_offset: int = 0  # bytes of metrics.jsonl that this state has written
    meter: dict[str, list[float]] = field(default_factory=dict)  # means of the round's updates so far

    def counters(self) -> dict[str, int]:
        """Return the counts that every metrics line carries."""
        return {name: getattr(self, name) for name in COUNTERS}


class Trainer:
    """PlaNet's algorithm 1, with V environments collected side by side.

    Every random draw is named by a counter (seeding.py), so a round that was not committed is simply done again.
    """

    pool: EnvPool
    guard: InterruptGuard
    spec: EnvSpec
    learner: Learner
    replay: Replay
    metrics: MetricsLog

    def __init__(self, run: Run, display: Display) -> None:
        self._run, self.folder, self.settings, self.display = run, run.folder, run.settings, display
        self.device = resolve_device(run.settings.device)
        self.progress = Progress()
        self._started = time.monotonic()

    def run(self) -> None:
        """Train until the budget of env_steps is spent.

        Raises:
            Interrupted: a signal asked to stop; what was learned is committed.
            PlanetError: the environment, the disk or the loss makes going on impossible; see `restore` too.
        """
        env, rows = self.settings.env, self.settings.train.envs
        try:
            with self._run.lock(), EnvPool(env, rows) as self.pool, InterruptGuard() as self.guard:
                self.restore()
                self._loop()
        except OSError as error:
            reason = error.strerror or str(error)
            raise PlanetError(f"run folder {self.folder}: {reason}; mend that, then go on with --resume") from error

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
            self.metrics.close()

    def finished(self) -> bool:
        """Return whether the budget is spent and its last round complete."""
        return self.progress.env_steps >= self.settings.train.env_steps and not self._round_begun()

    def collect_round(self) -> None:
        """Collect the episodes that the round lacks: random ones first, then planned ones with exploration noise."""
        wanted = range(self.progress.episodes, self._episodes_after(self.progress.rounds))
        if not wanted:
            return
        self.display.stage("collect", len(wanted))
        seed = self.settings.seed
        policy: Policy
        if self.progress.rounds == 0:
            policy = RandomPolicy(self.spec.action_size, stream_seed(seed, Stream.RANDOM_ACTIONS))
        else:
            policy = self._planned(Stream.COLLECT, self.settings.train.exploration_noise)
        episodes = self._play(policy, [stream_seed(seed, Stream.RESET, index) for index in wanted])
        for index, episode in zip(wanted, episodes, strict=True):
            self.replay.add(episode, index)
        self.progress.episodes += len(episodes)
        self.progress.env_steps += sum(episode.env_steps for episode in episodes)
        self.progress.agent_steps += sum(episode.length - 1 for episode in episodes)
        self.replay.check_length(self.settings.train.batch_length)
        self._write("collect", _returns(episodes))

    def learn_round(self) -> None:
        """Take the optimiser steps that the round lacks; a signal is obeyed, and committed, after any of them."""
        train, progress = self.settings.train, self.progress
        last = (progress.rounds + 1) * train.updates
        meter = Meter(progress.meter)
        if progress.updates < last:
            self.display.stage("learn", last - progress.updates)
        while progress.updates < last:
            rng = np.random.default_rng(stream_seed(self.settings.seed, Stream.BATCH, progress.updates))
            chunks = self.replay.sample(rng, train.batch_size, train.batch_length)
            values = self.learner.update(chunks, progress.updates)
            progress.updates += 1
            self._count_skipped(values)
            meter.add(values)
            self.display.advance(loss=values.get("loss/total"))
            self._stop_if_asked()
        if meter.sums:  # else this round's line was written before the checkpoint that was taken up
            self._write("train", meter.drain())

    def test_round(self) -> None:
        """Every so many rounds and at the end: episodes without noise, on the same seeds each time."""
        train, progress = self.settings.train, self.progress
        if (progress.rounds + 1) % train.test_every and progress.env_steps < train.env_steps:
            return
        self.display.stage("test", train.test_episodes)
        seeds = [stream_seed(self.settings.seed, Stream.TEST_RESET, index) for index in range(train.test_episodes)]
        returns = _returns(self._play(self._planned(Stream.TEST, 0.0), seeds))
        self._write("test", returns)
        if progress.best_return is None or returns["return"] > progress.best_return:
            progress.best_return, progress.best_env_steps = returns["return"], progress.env_steps

    def commit(self) -> None:
        """Make everything so far durable: episodes, manifest, metrics, checkpoint, in that order."""
        self.replay.commit()
        self.progress.metrics_offset = self.metrics.sync()
        self.progress.seconds = self._seconds()
        self._save(self.progress.env_steps)
        self._keep_best()
        for path in checkpoints.numbered(self.folder)[: -self.settings.train.keep]:
            path.unlink()

    def restore(self) -> None:
        """Build the model, and take up the newest checkpoint if there is one.

        Raises:
            PlanetError: checkpoints that cannot be read, or an environment other than the one learned from.
        """
        self.spec = self.pool.spec
        for folder in (self.folder, self.folder / checkpoints.FOLDER):
            remove_stale(folder)
        held = self._newest()
        model = untrained_model(self.settings, self.spec.action_size)
        if held is not None:
            _check_same(held.spec, self.spec)
            model.load_state_dict(held.model)
            self.progress = Progress(**held.progress)
        self.learner = Learner(model.to(self.device), self.settings, self.device)
        if held is not None:
            self.learner.load_optimizer_tensors(held.optimizer)
            self._keep_best()
        self.replay = Replay(self.folder / EPISODES, self.settings.data.capacity)
        self.replay.truncate(self.progress.episodes)
        self.metrics = MetricsLog(self.folder, self.progress.metrics_offset, self.progress.env_steps)
        self._started = time.monotonic() - self.progress.seconds

    def _round_begun(self) -> bool:
        progress = self.progress
        done = self._episodes_after(progress.rounds - 1), progress.rounds * self.settings.train.updates
        return (progress.episodes, progress.updates) != done

    def _episodes_after(self, rounds: int) -> int:
        """Return how many episodes there are once round number `rounds` (from 0) has collected."""
        return self.settings.train.seed_episodes + rounds * self.settings.train.envs if rounds >= 0 else 0

    def _planned(self, stream: Stream, noise: float) -> AgentPolicy:
        seed = stream_seed(self.settings.seed, stream, self.progress.rounds)
        agent = Agent.build(
            self.settings, self.spec, self.learner.model, device=self.device, exploration_noise=noise, seed=seed
        )
        return AgentPolicy(agent, self.settings.train.envs)

    def _play(self, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
        """Return one episode a seed, in the order of the seeds; a signal abandons them all."""
        before = self.pool.lost
        done: dict[int, Episode] = {}
        for index, episode in collect(self.pool, policy, seeds, on_step=lambda _: self._stop_if_asked()):
            done[index] = episode
            self.display.advance(episode_return=episode.episode_return)
        self.progress.lost += self.pool.lost - before
        return [done[index] for index in range(len(seeds))]

    def _stop_if_asked(self) -> None:
        if self.guard.asked:
            if self._round_begun():
                self.commit()
            raise Interrupted

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

    def _write(self, phase: str, values: dict[str, Any]) -> None:
        values = {**values, "skipped": self.progress.skipped, "lost": self.progress.lost}
        for told in (self.metrics.write, self.display.wrote):
            told(phase, self.progress.counters(), self._seconds(), values)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _save(self, name: int | str) -> None:
        model = {key: tensor.detach().cpu() for key, tensor in self.learner.model.state_dict().items()}
        held = Checkpoint(self.settings, self.spec, asdict(self.progress), model, self.learner.optimizer_tensors())
        checkpoints.save(held, checkpoints.path_of(self.folder, name))

    def _keep_best(self) -> None:
        """Copy the checkpoint just written, or taken up, if it is the best: a kill between the two is made good."""
        if self.progress.best_env_steps == self.progress.env_steps:
            self._save(BEST)

    def _newest(self) -> Checkpoint | None:
        """Load the newest checkpoint that is whole; a damaged one is named, set aside, and the one before it taken."""
        for path in reversed(checkpoints.numbered(self.folder)):
            try:
                return checkpoints.load(path)
            except DamagedCheckpointError as error:
                if path == checkpoints.numbered(self.folder)[0]:
                    raise
                aside = path.with_name(f"{path.name}.damaged")
                self.display.say(f"{error}; set aside as {aside.name}, going back to the one before")
                path.rename(aside)
        return None


def _check_same(held: EnvSpec, now: EnvSpec) -> None:
    for key, value in held.to_json().items():
        if now.to_json()[key] != value:
            raise PlanetError(
                f"environment: {key} is {now.to_json()[key]} here, the run has learned from {value}; go on where it is "
                "the same, or train another run"
            )


def _returns(episodes: Sequence[Episode]) -> dict[str, Any]:
    returns = [episode.episode_return for episode in episodes]
    return {"return": float(np.mean(returns)), "returns": returns}
