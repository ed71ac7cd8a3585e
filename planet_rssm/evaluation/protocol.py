"""How returns are measured: fixed reset seeds, no exploration noise, every episode counted."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from planet_rssm.base.stopwatch import Stages
from planet_rssm.collect import Policy, collect
from planet_rssm.envs.pool import Pool, Step
from planet_rssm.envs.spec import EnvSpec

# of the evaluation's resets; training resets are seeded by 63-bit hashes and never collide
FIRST_SEED = 1000
PARALLEL = 4  # episodes played side by side


# given the decisions made, and all that there are if no episode ends early
OnProgress = Callable[[int, int], object]


class EpisodeResult(NamedTuple):
    """One finished episode."""

    seed: int
    episode_return: float
    env_steps: int

    def to_json(self) -> dict[str, float]:
        """Return an episode as `--json` prints it."""
        return {"seed": self.seed, "return": self.episode_return, "env_steps": self.env_steps}


def episode_seeds(episodes: int) -> list[int]:
    """Return the reset seeds of so many episodes: always the same ones, more episodes only add."""
    return list(range(FIRST_SEED, FIRST_SEED + episodes))


def batches(seeds: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield the seeds in groups of `size`, played side by side; the last may be smaller."""
    for begin in range(0, len(seeds), size):
        yield seeds[begin : begin + size]


def play(
    pool: Pool,
    policy: Policy,
    seeds: Sequence[int],
    on_step: Callable[[Mapping[int, Step]], object] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_progress: OnProgress | None = None,
) -> list[EpisodeResult]:
    """Play one episode a seed and return the results in the order of the seeds."""
    results: dict[int, EpisodeResult] = {}
    listeners = [
        on_step,
        None if on_progress is None else Decisions(pool.spec, len(seeds), on_progress),
    ]

    def notify(steps: Mapping[int, Step]) -> None:
        for listener in filter(None, listeners):
            listener(steps)

    for index, episode in collect(pool, policy, seeds, on_step=notify):
        results[index] = EpisodeResult(seeds[index], episode.episode_return, episode.env_steps)
        if on_episode is not None:
            on_episode(results[index])
    return [results[index] for index in range(len(seeds))]


class Decisions:
    """Counts decisions of episodes that are played side by side, and how many are still to come."""

    def __init__(self, spec: EnvSpec, episodes: int, on_progress: OnProgress) -> None:
        """Begin with none of so many episodes' decisions."""
        self._longest = math.ceil(spec.episode_steps / spec.action_repeat)
        self._done = 0
        self._total = episodes * self._longest
        self._on_progress = on_progress
        self._of_row: dict[int, int] = {}  # of the running episode

    def __call__(self, steps: Mapping[int, Step]) -> None:
        """Count the steps of a pool, by row."""
        for row, step in steps.items():
            made = self._of_row.pop(row, 0) + 1
            self._done += 1
            if step.lost:  # the episode is begun again
                self._done -= made
            elif step.terminated or step.truncated:
                self._total -= max(self._longest - made, 0)
            else:
                self._of_row[row] = made
        self._on_progress(self._done, self._total)


class TimedPolicy:
    """A policy, and how long each of its decisions took."""

    def __init__(self, policy: Policy | None, stages: Stages | None = None) -> None:
        """Time `policy`, which may be exchanged.

        `stages` count as `plan` what the policy does not count itself.
        """
        self.policy = policy
        self._stages = stages or Stages()
        self.seconds: list[float] = []

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Decide as the policy inside does.

        The result is on the CPU, so the time includes the device's work.
        """
        assert self.policy is not None
        begin = time.perf_counter()
        with self._stages("plan"):
            action = self.policy(observation, executed_action, is_first)
        self.seconds.append(time.perf_counter() - begin)
        return action

    def latency_ms(self) -> dict[str, float]:
        """Return p50, p95 and p99 in milliseconds of a batched decision.

        The first decision, which warms up, is left out.
        """
        times = np.array(self.seconds[1:] or self.seconds) * 1000
        return {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (50, 95, 99)}
