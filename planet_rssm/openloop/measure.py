"""Measure what a run's model imagines of episodes that it was not trained on: what `planet dream` does."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from planet_rssm.agent import Agent, AgentPolicy, behavior_of, model_of
from planet_rssm.base.errors import PlanetError
from planet_rssm.collect import Policy, RandomPolicy, collect
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import EPISODES, Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.plan_run import filmed, same_pixels
from planet_rssm.evaluation.protocol import FIRST_SEED, PARALLEL, episode_seeds
from planet_rssm.openloop.predictions import CONTEXT, HORIZONS, Film, dream_errors, dream_film
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import WorldModel

SAME = (
    "id",
    "kwargs",
    "observation",
    "action_size",
    "action_repeat",
    "renderer",
    "discrete",
    "groups",
)  # also of data

PLAYED, READ = (
    10,
    100,
)  # episodes by default: played now, and at most of a folder, which may hold a whole run's

_log = logging.getLogger("planet_rssm")


class HeldOut(NamedTuple):
    """Episodes to foretell."""

    episodes: list[Episode]
    source: str  # what they are, in words
    held_out: bool  # whether the run has learned from none of them, as far as their folder tells


def dream_run(
    run: Path,
    *,
    checkpoint: str = "last",
    episodes: int | None = None,
    data: Path | None = None,
    horizons: Sequence[int] = HORIZONS,
    context: int = CONTEXT,
    samples: int = 1,
    device: str = "auto",
    film: Callable[[Film, float], Path] | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure a run's open-loop predictions; see `dream.dream_errors` for what is measured and how.

    Args:
        run: a run folder, of online or offline training.
        checkpoint: `last`, `best` or a number of env_steps (offline: updates).
        episodes: how many; None: `PLAYED`, or `READ` at most of a folder.
        data: a folder of episodes; None: they are played now, see `played`.
        horizons: agent steps.
        context: frames that the model sees first.
        samples: of the latent, whose mean is what is foretold.
        device: where the model runs.
        film: given what `dream.dream_film` returns and the frames a second; returns the file that
            it made of it.
        on_episode: told when an episode has been played.

    Returns:
        The object that `planet dream --json` prints.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, episodes of another
            environment or too short, or a film of a model that sees no images.
    """
    held, where, _ = checkpoints.open_run(run, checkpoint, device=device)
    model = model_of(held).to(where)
    if film and not model.encoder.image_keys:
        raise PlanetError(f"--video: the run in {run} sees no images; leave it out")
    if data is None:
        found = played(held, model, episodes or PLAYED, where, on_episode)
    else:
        found = recorded(held, run, data, episodes or READ)
    errors = dream_errors(model, found.episodes, horizons, context, where, samples=samples)
    for horizon in sorted(set(horizons) - set(errors["horizons"])):
        longest = max(episode.length for episode in found.episodes)
        _log.warning("horizon %d is left out: with %d frames of context no episode is longer than %d frames",
                     horizon, context, longest)  # fmt: skip
    video = None
    if film:
        seen = dream_film(model, found.episodes, errors["horizons"][-1], context, where)
        video = filmed(film, seen, 1 / held.spec.control_interval)
    return {
        "task": held.spec.id,
        **errors,
        "context": context,
        "samples": samples,
        "episodes": len(found.episodes),
        "frames": sum(episode.length for episode in found.episodes),
        "source": found.source,
        "held_out": found.held_out,
        "checkpoint": int(checkpoint) if checkpoint.isdecimal() else checkpoint,
        "env_steps": held.progress["env_steps"],
        "updates": held.progress.get("updates"),
        "observation": {
            "observe": held.settings.env.observe,
            "renderer": held.spec.renderer,
            "size": held.settings.env.size,
            "simulator": held.spec.simulator,
        },
        "video": video,
    }


def played(
    held: Checkpoint,
    model: WorldModel,
    count: int,
    device: torch.device,
    on_episode: Callable[[], None],
) -> HeldOut:
    """Play episodes from reset seeds that no training uses: the first half by the run's agent, the rest at random.

    Raises:
        PlanetError: the environment is not here, or not as it was in the training.
    """
    seeds = episode_seeds(count)
    planned = (count + 1) // 2
    episodes: dict[int, Episode] = {}
    with EnvPool(held.settings.env, min(planned, PARALLEL)) as pool:
        spec = same_pixels(held.spec, pool.spec)
        agent = Agent.build(held.settings, spec, model, behavior_of(held, model), device=device)
        policies: list[tuple[Policy, list[int]]] = [
            (AgentPolicy(agent, pool.count), seeds[:planned]),
            (RandomPolicy(spec.action_size, FIRST_SEED, spec.groups), seeds[planned:]),
        ]
        for policy, own in policies:
            for index, episode in collect(pool, policy, own):
                episodes[own[index]] = episode
                on_episode()
    source = (
        f"{planned} episodes by the run's agent and {count - planned} of random actions, played now from reset seeds "
        f"{seeds[0]} to {seeds[-1]}, which no training uses"
    )
    return HeldOut([episodes[seed] for seed in seeds], source, held_out=True)


def recorded(held: Checkpoint, run: Path, folder: Path, count: int) -> HeldOut:
    """Read the episodes of a folder, at most `count` of them evenly spread; the run's own are told.

    Raises:
        PlanetError: it holds none, or they are of another environment than the run's.
    """
    if not folder.is_dir():
        raise PlanetError(f"--data {folder}: no such folder; give one that `planet collect` wrote")
    replay = Replay(folder, sys.maxsize)
    if replay.env is None:
        raise PlanetError(f"--data {folder}: {episode_set.no_episode(folder)}")
    env = held.settings.env
    _check_same(
        held.spec,
        EnvSpec.from_json(replay.env).select_observations(env.observe, env.drop, env.keys),
        folder,
    )
    entries = replay.episodes
    if count < len(entries):
        entries = tuple(entries[at] for at in np.linspace(0, len(entries) - 1, count).astype(int))
    trained_on = held.settings.data.folder  # offline
    own = Path(trained_on) if trained_on else run / EPISODES
    held_out = folder.resolve() != own.resolve()
    if not held_out:
        _log.warning(
            "--data %s: the run has learned from these episodes; what it knows of others may be less",
            folder,
        )
    source = f"{len(entries)} of {len(replay)} episodes in {folder}"
    return HeldOut(
        [
            Episode.load(folder / entry.file).select_observations(held.spec.observation)
            for entry in entries
        ],
        source,
        held_out,
    )


def _check_same(trained: EnvSpec, data: EnvSpec, folder: Path) -> None:
    for name in SAME:
        before, here = getattr(trained, name), getattr(data, name)
        if before != here:
            raise PlanetError(
                f"--data {folder}: its {name} is {here}, the run was trained with {before}; give episodes of "
                f"{trained.id} as the run sees it (planet collect {trained.id} --policy RUN)"
            )
    if data.simulator != trained.simulator:
        _log.warning(
            "--data %s: from %s, the run was trained with %s",
            folder,
            data.simulator,
            trained.simulator,
        )
