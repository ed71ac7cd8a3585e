"""Drive a policy in a pool of environments and turn what happens into episodes."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.data.episode import Episode, EpisodeWriter
from planet_rssm.envs.choices import Groups, one_hot

if TYPE_CHECKING:
    from planet_rssm.envs.pool import Pool, Step

Array = np.ndarray
MAX_LOST = 5  # times that one episode may lose its worker before the environment is called broken
_log = logging.getLogger("planet_rssm")


class Policy(Protocol):
    """Chooses actions for B rows at once; the rows are independent episodes."""

    def __call__(
        self, observation: dict[str, Array], executed_action: Array, is_first: Array
    ) -> Array:
        """Return the next actions [B, A].

        Numbers beyond [-1, 1] are clipped; of choices the largest of each group is executed.

        Args:
            observation: uint8 images [B, H, W, C] and float32 vectors [B, N].
            executed_action: float32 [B, A], the clipped action that led to the observation; zeros
                at is_first.
            is_first: bool [B], set where an episode begins with this observation.

        Rows without a running episode are given the last observation they had (zeros before any),
        and what is returned for them is ignored.
        """
        ...


class RandomPolicy:
    """Uniform in [-1, 1], or among the choices.

    The n-th episode that begins draws from its own stream, whichever row plays it.
    """

    def __init__(
        self, size: int, seed: int, groups: Groups = (), numbers: Sequence[int] = ()
    ) -> None:
        """Draw actions of `size` entries, one-hot in each of `groups` if there are any.

        `seed` names the streams. `numbers` are those of the episodes' streams in the order in which
        they begin; () for 0, 1, 2, ...
        """
        after = max(numbers, default=-1) + 1  # a lost episode begins once more, and takes the next
        self._numbers = itertools.chain(numbers, itertools.count(after))
        self._size = size
        self._seed = seed
        self._groups = groups
        self._rngs: dict[int, np.random.Generator] = {}  # by row

    def __call__(
        self, observation: dict[str, Array], executed_action: Array, is_first: Array
    ) -> Array:
        """Return actions [B, A]; see Policy."""
        for row in np.flatnonzero(is_first).tolist():
            number = next(self._numbers)
            self._rngs[row] = np.random.default_rng(
                stream_seed(self._seed, Stream.RANDOM_ACTIONS, number)
            )
        action = np.zeros((len(is_first), self._size), np.float32)
        for row, rng in self._rngs.items():
            action[row] = rng.uniform(-1, 1, self._size)
        return one_hot(action, self._groups) if self._groups else action


class ConstantPolicy:
    """The same action at every step."""

    def __init__(self, value: Array) -> None:
        """Take the action [A], in [-1, 1] or one-hot by group."""
        self._value = np.asarray(value, np.float32)

    def __call__(
        self, observation: dict[str, Array], executed_action: Array, is_first: Array
    ) -> Array:
        """Return actions [B, A]; see Policy."""
        return np.tile(self._value, (len(is_first), 1))


def collect(
    pool: "Pool",
    policy: Policy,
    seeds: Sequence[int],
    on_step: "Callable[[Mapping[int, Step]], object] | None" = None,
) -> Iterator[tuple[int, Episode]]:
    """Play one episode a seed and yield (index into `seeds`, episode) as they end.

    A row whose episode ends takes the next seed. A row whose worker was lost drops its episode,
    which is logged, and begins it again from the same seed. `on_step` is called after each step of
    the pool with its answers by row.

    Raises:
        PlanetError: an action is not finite, an episode lost its worker `MAX_LOST` times, or see
            `Episode`.
    """
    rows = _Rows(pool, seeds)
    rows.begin()
    while rows.writers:
        proposed = policy(rows.observation, rows.executed_action, rows.is_first)
        steps = pool.step(rows.clip(proposed))
        if on_step is not None:
            on_step(steps)
        ended = rows.record(steps)
        yield from ((index, writer.finish()) for index, writer in ended)
        rows.begin()


class _Rows:
    """What each row of the pool plays, and the batch of it that the policy observes."""

    def __init__(self, pool: "Pool", seeds: Sequence[int]) -> None:
        self._pool = pool
        self._seeds = seeds
        self._waiting = deque(range(len(seeds)))
        self._playing: dict[int, int] = {}  # row: index into seeds
        self._lost = dict.fromkeys(range(len(seeds)), 0)  # times each episode lost its worker
        self.writers: dict[int, EpisodeWriter] = {}  # of the running episodes, by row
        spec = pool.spec
        count = pool.count
        self.observation = {
            key: np.zeros((count, *shape), dtype)
            for key, (shape, dtype) in spec.observation.items()
        }
        self.executed_action = np.zeros((count, spec.action_size), np.float32)
        self.is_first = np.zeros(count, bool)

    def begin(self) -> None:
        """Reset the rows without a running episode, to the seed they lost or to the next one."""
        for row in range(self._pool.count):
            if row not in self._playing and self._waiting:
                self._playing[row] = self._waiting.popleft()
        begun = {
            row: self._seeds[index]
            for row, index in self._playing.items()
            if row not in self.writers
        }
        for row, observation in (self._pool.reset(begun) if begun else {}).items():
            self.writers[row] = EpisodeWriter(
                observation, {"env": self._pool.spec.to_json(), "seed": begun[row]}
            )
            self.executed_action[row], self.is_first[row] = 0, True
            self._store(row, observation)

    def clip(self, proposed: Array) -> dict[int, Array]:
        """Keep the executed action, for the record and the policy; return it by running row."""
        action = np.asarray(proposed, np.float32)
        running = sorted(self.writers)
        if not np.isfinite(action[running]).all():
            raise PlanetError(
                f"policy: returned actions {action[running].tolist()}, must be finite; "
                "look at its model"
            )
        groups = self._pool.spec.groups
        action = one_hot(action, groups) if groups else np.clip(action, -1, 1)
        self.executed_action[running] = action[running]
        self.is_first[:] = False
        return {row: self.executed_action[row].copy() for row in running}

    def record(self, steps: "Mapping[int, Step]") -> list[tuple[int, EpisodeWriter]]:
        """Append the steps and return (index, writer) of ended episodes; lost ones begin again."""
        ended = []
        for row, step in sorted(steps.items()):
            if step.lost:
                self._drop(row, step.words)
                continue
            self.writers[row].append(
                self.executed_action[row],
                step.observation,
                step.reward,
                step.terminated,
                step.truncated,
                step.env_steps,
            )
            self._store(row, step.observation)
            if step.terminated or step.truncated:
                ended.append((self._playing.pop(row), self.writers.pop(row)))
        return ended

    def _drop(self, row: int, words: str) -> None:
        index = self._playing[row]
        del self.writers[row]
        self._lost[index] += 1
        _log.debug(  # the pool has said what happened
            "worker of row %d lost: episode %d is begun again from seed %d",
            row,
            index,
            self._seeds[index],
        )
        if self._lost[index] >= MAX_LOST:
            raise PlanetError(
                f"episode {index} (seed {self._seeds[index]}): lost its worker {MAX_LOST} times, "
                f"at last with: {words}; fix the environment, or raise env.step_timeout"
            )

    def _store(self, row: int, observation: Mapping[str, Array]) -> None:
        for key, batch in self.observation.items():
            batch[row] = observation[key]
