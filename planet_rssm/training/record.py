"""A set of episodes as a replay folder: `planet collect` writes it, offline training reads it.

Episode i of a set is reset with `stream_seed(seed, Stream.DATA_RESET, i)`, which no training run
and no test uses: sets of equal seeds begin in the same states whatever acts in them. Random and
constant episodes are the same for any number of environments side by side; planned ones draw their
noise for all rows at once and are the same for equal numbers.

The same call continues a set that it has begun. Random and constant episodes are then those that it
would have made; planned ones begin in the states that they would have had, with other noise.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.collect import Policy, collect
from planet_rssm.config import EnvSettings
from planet_rssm.data import episode_set
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.results import ObservationInfo, summary_of
from planet_rssm.training.player import Player


@dataclass(frozen=True)
class Collected:
    """A set of episodes as it was recorded."""

    env: EnvSettings
    spec: EnvSpec
    episodes: list[EpisodeResult]

    def to_json(self) -> Json:
        """Return what `planet collect --json` prints of the episodes."""
        return {
            "task": self.spec.id,
            "observation": ObservationInfo.of(self.env, self.spec).to_json(),
            **self.spec.timing(),
            "episodes": [episode.to_json() for episode in self.episodes],
            "env_steps": sum(episode.env_steps for episode in self.episodes),
            "return": summary_of(self.episodes).to_json(),
        }


def write_episodes(
    folder: Path,
    player: Player,
    episodes: int,
    seed: int,
    envs: int,
    on_episode: Callable[[EpisodeResult], object] = lambda result: None,
    *,
    add: bool = False,
) -> Collected:
    """Play the episodes, `envs` side by side, and store each in `folder` as it ends.

    With `add` their indices continue those of the episodes in `folder`, and so do their draws. What
    an equal call had begun is completed, and its episodes are among the results.

    Raises:
        Interrupted: a signal asked to stop; the episodes that had ended are kept.
        PlanetError: the folder holds episodes already (with `add`: of another environment), belongs
            to a run, is in use or cannot be written, or the environment does not work.
    """
    made_by = {"verb": "collect", "env": player.env.id, **player.made_by, "seed": seed}
    part = Part(made_by, episodes)
    episode_set.check_free(folder, part, add=add)
    results: dict[int, EpisodeResult] = {}

    def note(index: int, episode_return: float, env_steps: int) -> None:
        results[index] = EpisodeResult(
            stream_seed(seed, Stream.DATA_RESET, index), episode_return, env_steps
        )
        on_episode(results[index])

    try:
        with (
            EnvPool(player.env, min(envs, episodes)) as pool,
            episode_set.claimed(folder),
            InterruptGuard() as guard,
        ):
            replay = Replay(folder, sys.maxsize)
            _check_same(replay, pool.spec)
            part, missing = episode_set.begin(replay, part, add=add)
            policy = player.policy(pool.spec, pool.count, missing)
            replay.commit()  # from now on the set says how many episodes it will have
            for entry in replay.episodes:
                if entry.index in part.indices:
                    note(entry.index, entry.episode_return, entry.env_steps)
            _make(replay, pool, policy, seed, missing, note, guard)
            played = [results[index] for index in part.indices]
            return Collected(player.env, pool.spec, played)
    except OSError as error:
        raise PlanetError(
            f"--out {folder}: {error.strerror or error}; {len(results)} episodes are kept"
        ) from error


def _make(
    replay: Replay,
    pool: EnvPool,
    policy: Policy,
    seed: int,
    missing: Sequence[int],
    note: Callable[[int, float, int], None],
    guard: InterruptGuard,
) -> None:
    """Play the episodes of these indices, and store and note each as it ends."""
    seeds = [stream_seed(seed, Stream.DATA_RESET, index) for index in missing]
    try:
        for done, (at, episode) in enumerate(
            collect(pool, policy, seeds, on_step=lambda _: _stop_if_asked(guard)), 1
        ):
            replay.add(episode, missing[at])
            note(missing[at], episode.episode_return, episode.env_steps)
            if done % pool.count == 0:
                replay.commit()
    finally:
        replay.commit()


def _check_same(replay: Replay, spec: EnvSpec) -> None:
    """Refuse to add to episodes of another environment, before any is played."""
    if replay.env is None:
        return
    there = EnvSpec.from_json(replay.env)
    if unlike := there.differs(spec):
        raise PlanetError(
            f"--out {replay.folder}: its episodes have {unlike} {getattr(there, unlike)!r}, "
            f"these would have {getattr(spec, unlike)!r}; give another folder"
        )


def _stop_if_asked(guard: InterruptGuard) -> None:
    if guard.asked:
        raise Interrupted
