"""A set of episodes as a replay folder: `planet collect` writes it, offline training reads it.

Episode i of a set is reset with `stream_seed(seed, Stream.DATA_RESET, i)`, which no training run
and no test uses: sets of equal seeds begin in the same states whatever acts in them. Random and
constant episodes are the same for any number of environments side by side; planned ones draw their
noise for all rows at once and are the same for equal numbers.

Planned episodes are played in shares, each by an agent that draws anew. So a cluster, where shares
are played at once, makes the same ones.

The same call continues a set that it has begun. Random and constant episodes are then those that it
would have made; planned ones begin in the states that they would have had, with other noise.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planet_rssm.base.cluster import connected
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.collect import Policy, collect
from planet_rssm.config import EnvSettings
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import EpisodeResult, batches
from planet_rssm.evaluation.results import ObservationInfo, summary_of
from planet_rssm.training.player import Player

SHARE = 4  # episodes of each row that are planned together


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
    on: str | None = None,
) -> Collected:
    """Play the episodes, `envs` side by side, and store each in `folder` as it ends.

    With `add` their indices continue those of the episodes in `folder`, and so do their draws. What
    an equal call had begun is completed, and its episodes are among the results. A cluster plays
    them where `on` names one, `ray` or `ray:ADDRESS`.

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
            contextlib.nullcontext() if on is None else connected("--on", on, 1),
            EnvPool(player.env, min(envs, episodes) if on is None else 1) as pool,
            episode_set.claimed(folder),
            InterruptGuard() as guard,
        ):
            replay = Replay(folder, sys.maxsize)
            _check_same(replay, pool.spec)
            part, missing = episode_set.begin(replay, part, add=add)
            rows = min(envs, episodes)
            together = player.draws_together or on is not None
            shares = list(batches(missing, SHARE * rows)) if together else [missing]
            tick = functools.partial(_stop_if_asked, guard)
            if on is None:
                # made now: a policy that does not work leaves no set
                first = player.policy(pool.spec, rows, shares[0])
                playing = _played_here(player, first, shares, pool, seed, tick)
            else:
                from planet_rssm.training.ray_shares import played_on_cluster  # loads torch

                playing = played_on_cluster(player, shares, rows, seed, tick)
            replay.commit()  # from now on the set says how many episodes it will have
            for entry in replay.episodes:
                if entry.index in part.indices:
                    note(entry.index, entry.episode_return, entry.env_steps)
            _keep(replay, playing, rows, note)
            played = [results[index] for index in part.indices]
            return Collected(player.env, pool.spec, played)
    except OSError as error:
        raise PlanetError(
            f"--out {folder}: {error.strerror or error}; {len(results)} episodes are kept"
        ) from error


def _played_here(
    player: Player,
    first: Policy,
    shares: Sequence[Sequence[int]],
    pool: EnvPool,
    seed: int,
    tick: Callable[[], object],
) -> Iterator[tuple[int, Episode]]:
    """Yield index and episode of all shares as they end, one share after the other."""
    for number, share in enumerate(shares):
        seeds = [stream_seed(seed, Stream.DATA_RESET, index) for index in share]
        policy = player.policy(pool.spec, pool.count, share) if number else first
        for at, episode in collect(pool, policy, seeds, on_step=lambda _: tick()):
            yield share[at], episode


def _keep(
    replay: Replay,
    playing: Iterator[tuple[int, Episode]],
    rows: int,
    note: Callable[[int, float, int], None],
) -> None:
    """Store and note each episode as it ends."""
    try:
        for done, (index, episode) in enumerate(playing, 1):
            replay.add(episode, index)
            note(index, episode.episode_return, episode.env_steps)
            if done % rows == 0:
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
