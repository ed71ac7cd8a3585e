"""A set of episodes as a replay folder: what `planet collect` writes and `planet train --offline` learns from.

Episode i of a set is reset with `stream_seed(seed, Stream.DATA_RESET, i)`, which no training run
and no test uses: sets of equal seeds begin in the same states whatever acts in them. Random and
constant episodes are the same for any number of environments side by side; planned ones draw their
noise for all rows at once and are the same for equal numbers.

The same call goes on with a set that it has begun. Random and constant episodes are then those that
it would have made; planned ones begin in the states that they would have had, with other noise.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy, check_noise, parts_of
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.plugins import FORM, find
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.trust import own
from planet_rssm.collect import ConstantPolicy, Policy, RandomPolicy, collect
from planet_rssm.config import EnvSettings
from planet_rssm.data import episode_set
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.envs.choices import from_places
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import canonical_id, resolve
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.own_policy import own_policy
from planet_rssm.evaluation.plan_run import same_pixels
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint


class Actor(NamedTuple):
    """Who acts, and in what."""

    env: EnvSettings  # resolved
    policy: Callable[
        [EnvSpec, int, Sequence[int]], Policy
    ]  # of these rows, for the episodes of these indices
    made_by: dict[str, Any]  # what tells it from others, as JSON


def simple_actor(task: str, overrides: Sequence[str], policy: str, seed: int) -> Actor:
    """Return one that looks at nothing: `random`, or `constant:VALUE`, see `_constant_action`.

    Raises:
        PlanetError: no such task or policy, an override that is not of `env`, or one that leaves
            nothing to see.
    """
    settings = config.resolve({"env.id": task} | _env_overrides(overrides))
    own(config.flatten(settings))  # a run that learns from the set has the same environment
    if settings.env.renderer == "none" and settings.env.observe != "vectors":
        raise PlanetError(
            "env.renderer = 'none': the episodes would show nothing; use auto, or env.observe=vectors"
        )
    if FORM.fullmatch(policy) and not policy.startswith(("random:", "constant:")):
        find("--policy", policy)  # before an environment is started
        env = resolve(settings.env)
        return Actor(
            env,
            lambda spec, rows, _: own_policy("--policy", policy, spec, rows),
            {"policy": policy},
        )
    kind, _, value = policy.partition(":")
    if kind == "random" and not value:
        actions_seed = stream_seed(seed, Stream.DATA_ACTIONS)
        return Actor(
            resolve(settings.env),
            lambda spec, rows, indices: RandomPolicy(
                spec.action_size, actions_seed, spec.groups, indices
            ),
            {"policy": policy},
        )
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = [np.nan]
    if kind != "constant" or not np.isfinite(numbers).all():
        raise PlanetError(
            f"--policy {policy}: neither random, constant:VALUE with VALUE in [-1, 1] or the number of a "
            "choice (2,0,1 in three groups), nor a run folder, nor module:Policy"
        )
    env = resolve(settings.env)
    check_constant(env, numbers)
    return Actor(
        env,
        lambda spec, rows, _: ConstantPolicy(_constant_action(spec, numbers)),
        {"policy": policy},
    )


def planning_actor(
    task: str,
    overrides: Sequence[str],
    run: Path,
    checkpoint: str,
    noise: float,
    seed: int,
    device: torch.device,
) -> Actor:
    """Return a run's agent in the run's own environment, with `noise` on the planned action, see `Agent`.

    Raises:
        PlanetError: no such run or checkpoint, noise that is no chance, a task or override unlike
            the run's.
    """
    held = checkpoints.open_run(run, checkpoint, device=device).checkpoint
    if canonical_id(task) != held.spec.id:
        raise PlanetError(
            f"TASK {task}: the run in {run} acts in {held.spec.id}; give that, or another run"
        )
    check_noise("--noise", noise, held.spec)
    env = _as_the_run(held, overrides, run)

    def agent(spec: EnvSpec, rows: int, indices: Sequence[int]) -> Policy:
        spec = same_pixels(held.spec, spec)
        beside = (
            indices[:1] if indices[0] else ()
        )  # episodes that are added act otherwise than the first did
        parts, actions_seed = (
            parts_of(held, device),
            stream_seed(seed, Stream.DATA_ACTIONS, *beside),
        )
        built = Agent.build(
            held.settings, spec, *parts, device=device, exploration_noise=noise, seed=actions_seed
        )
        return AgentPolicy(built, rows)

    updates = held.progress.get("updates")
    return Actor(resolve(env), agent, {"policy": str(run), "updates": updates, "noise": noise})


def write_episodes(
    folder: Path,
    actor: Actor,
    episodes: int,
    seed: int,
    envs: int,
    on_episode: Callable[[EpisodeResult], object] = lambda result: None,
    *,
    add: bool = False,
) -> tuple[EnvSpec, list[EpisodeResult]]:
    """Play the episodes, `envs` side by side, and keep each in `folder` as it ends; return what was seen of them.

    With `add` they go on where the episodes in `folder` end, and so do their indices and with them
    their draws. What an equal call had begun is completed, and what it had made is among the
    results.

    Raises:
        Interrupted: a signal asked to stop; the episodes that had ended are kept.
        PlanetError: the folder holds episodes already (with `add`: of another environment), belongs
            to a run, is in use or cannot be written, or the environment does not work.
    """
    part = Part({"verb": "collect", "env": actor.env.id, **actor.made_by, "seed": seed}, episodes)
    episode_set.check_free(folder, part, add=add)
    results: dict[int, EpisodeResult] = {}

    def note(index: int, episode_return: float, env_steps: int) -> None:
        results[index] = EpisodeResult(
            stream_seed(seed, Stream.DATA_RESET, index), episode_return, env_steps
        )
        on_episode(results[index])

    try:
        with (
            EnvPool(actor.env, min(envs, episodes)) as pool,
            episode_set.claimed(folder),
            InterruptGuard() as guard,
        ):
            replay = Replay(folder, sys.maxsize)
            _check_same(replay, pool.spec)
            part, missing = episode_set.begin(replay, part, add=add)
            policy = actor.policy(pool.spec, pool.count, missing)
            replay.commit()  # from now on the set says how many episodes it shall have
            for entry in replay.episodes:
                if entry.index in part.indices:
                    note(entry.index, entry.episode_return, entry.env_steps)
            _make(replay, pool, policy, seed, missing, note, guard)
            return pool.spec, [results[index] for index in part.indices]
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
    """Play the episodes of these indices, and keep and note each as it ends."""
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
            f"--out {replay.folder}: its episodes have {unlike} {getattr(there, unlike)!r}, these would have "
            f"{getattr(spec, unlike)!r}; give another folder"
        )


def check_constant(env: EnvSettings, numbers: Sequence[float]) -> None:
    """Refuse a constant that is no action, before all environments of a set are started.

    Raises:
        PlanetError: it is none.
    """
    if env.id.startswith("dmc/"):  # whose actions are all in [-1, 1]
        if not (len(numbers) == 1 and -1 <= numbers[0] <= 1):
            raise PlanetError(
                f"--policy constant:{_listed(numbers)}: in {env.id} it must be in [-1, 1]"
            )
    else:
        with EnvPool(env.model_copy(update={"renderer": "none"}), 1) as pool:
            _constant_action(pool.spec, numbers)


def _constant_action(spec: EnvSpec, numbers: Sequence[float]) -> np.ndarray:
    """Return the action of one number in [-1, 1] for every joint, or of a choice's number for each group.

    Raises:
        PlanetError: it is neither.
    """
    if not spec.groups:
        if len(numbers) == 1 and -1 <= numbers[0] <= 1:
            return np.full(spec.action_size, numbers[0], np.float32)
        allowed = "in [-1, 1]"
    else:
        if len(numbers) == len(spec.groups) and all(
            n in range(size) for n, size in zip(numbers, spec.groups, strict=True)
        ):
            return from_places(np.array(numbers, int), spec.groups)
        most = [size - 1 for size in spec.groups]
        allowed = (
            f"a choice, 0 to {most[0]}"
            if len(most) == 1
            else f"{len(most)} choices, 0,0,… to {_listed(most)}"
        )
    raise PlanetError(f"--policy constant:{_listed(numbers)}: in {spec.id} it must be {allowed}")


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _stop_if_asked(guard: InterruptGuard) -> None:
    if guard.asked:
        raise Interrupted


def _env_overrides(overrides: Sequence[str]) -> dict[str, object]:
    values = config.parse_overrides(overrides)
    for key, value in values.items():
        if key in config.flatten(config.Settings()) and (
            not key.startswith("env.") or key == "env.id"
        ):
            raise PlanetError(
                f"-s {key}={value}: `planet collect` changes only env.… settings, and the task is TASK"
            )
    return values


def _as_the_run(held: Checkpoint, overrides: Sequence[str], run: Path) -> EnvSettings:
    """Return the run's environment, with a step timeout of the user's."""
    before = config.flatten(held.settings)
    after = config.flatten(config.resolve(before | _env_overrides(overrides)))
    for key in before:
        if key != "env.step_timeout" and after[key] not in (before[key], None, "auto"):
            raise PlanetError(
                f"{key} = {after[key]}: the run in {run} has {before[key]}; leave it out"
            )
    return held.settings.env.model_copy(update={"step_timeout": after["env.step_timeout"]})
