"""Measure what a run's model imagines of held-out episodes: `planet dream`."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from planet_rssm.agent import Agent, AgentPolicy, behavior_of, model_of
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.collect import Policy, RandomPolicy, collect
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec, require_same_environment
from planet_rssm.evaluation.film import write_or_warn
from planet_rssm.evaluation.protocol import FIRST_SEED, PARALLEL, episode_seeds
from planet_rssm.evaluation.results import ObservationInfo, checkpoint_name
from planet_rssm.openloop.dream_errors import CONTEXT, HORIZONS, DreamErrors, dream_errors
from planet_rssm.openloop.dream_frames import DreamFrames, dream_frames
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import WorldModel

# of an EnvSpec: recorded episodes may differ from the training in these
MAY_DIFFER = ("simulator", "episode_steps", "terminates")

PLAYED = 10  # episodes that are played by default
READ = 100  # episodes of a folder at most by default: a run's folder has many

_log = logging.getLogger("planet_rssm")


class HeldOut(NamedTuple):
    """Episodes to predict."""

    episodes: list[Episode]
    source: str  # what they are, in words
    held_out: bool  # whether the run has learned from none of them, as far as their folder says


@dataclass(frozen=True)
class DreamResult:
    """How far from the truth a run's model imagines, and of which episodes."""

    task: str
    errors: DreamErrors
    context: int  # frames
    samples: int
    episodes: int
    frames: int
    source: str  # see HeldOut
    held_out: bool
    checkpoint: str | int
    env_steps: int  # that it has learned from
    updates: int | None
    observation: ObservationInfo
    video: str | None  # file

    def to_json(self) -> Json:
        """Return the object that `planet dream --json` prints."""
        return {
            "task": self.task,
            **self.errors.to_json(),
            "context": self.context,
            "samples": self.samples,
            "episodes": self.episodes,
            "frames": self.frames,
            "source": self.source,
            "held_out": self.held_out,
            "checkpoint": self.checkpoint,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "observation": self.observation.to_json(),
            "video": self.video,
        }


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
    film: Callable[[DreamFrames, float], Path] | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> DreamResult:
    """Measure a run's open-loop predictions; see `dream_errors`.

    Args:
        run: a run folder, of online or offline training.
        checkpoint: `last`, `best` or a number of env_steps (offline: updates).
        episodes: how many; None: `PLAYED`, or `READ` at most of a folder.
        data: a folder of episodes; None: they are played now, see `played`.
        horizons: agent steps.
        context: frames that the model observes first.
        samples: of the latent; the prediction is their mean.
        device: where the model runs.
        film: given what `dream_frames` returns and the frames a second; returns the
            file that it wrote.
        on_episode: called when an episode has been played.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, episodes of another
            environment or too short, or a video of a model that observes no images.
    """
    loaded, where, _ = checkpoints.open_run(run, checkpoint, device=device)
    model = model_of(loaded).to(where)
    if film and not model.encoder.image_keys:
        raise PlanetError(f"--video: the run in {run} sees no images; leave it out")
    if data is None:
        held_out = played(loaded, model, episodes or PLAYED, where, on_episode)
    else:
        held_out = recorded(loaded, run, data, episodes or READ)
    errors = dream_errors(model, held_out.episodes, horizons, context, where, samples=samples)
    lengths = [episode.length for episode in held_out.episodes]
    for horizon in sorted(set(horizons) - set(errors.horizons)):
        _log.warning(
            "horizon %d is left out: with %d frames of context no episode is longer than %d frames",
            horizon,
            context,
            max(lengths),
        )
    video = None
    if film:
        frames = dream_frames(model, held_out.episodes, errors.horizons[-1], context, where)
        video = write_or_warn(film, frames, 1 / loaded.spec.control_interval)
    return DreamResult(
        task=loaded.spec.id,
        errors=errors,
        context=context,
        samples=samples,
        episodes=len(lengths),
        frames=sum(lengths),
        source=held_out.source,
        held_out=held_out.held_out,
        checkpoint=checkpoint_name(checkpoint),
        env_steps=loaded.progress["env_steps"],
        updates=loaded.progress.get("updates"),
        observation=ObservationInfo.of(loaded.settings.env, loaded.spec),
        video=video,
    )


def played(
    checkpoint: Checkpoint,
    model: WorldModel,
    count: int,
    device: torch.device,
    on_episode: Callable[[], None],
) -> HeldOut:
    """Play episodes from reset seeds that no training uses.

    The first half is played by the run's agent, the rest at random.

    Raises:
        PlanetError: the environment is not here, or not as it was in the training.
    """
    settings = checkpoint.settings
    seeds = episode_seeds(count)
    planned = (count + 1) // 2
    episodes: dict[int, Episode] = {}
    with EnvPool(settings.env, min(planned, PARALLEL)) as pool:
        spec = require_same_environment(checkpoint.spec, pool.spec)
        behavior = behavior_of(checkpoint, model)
        agent = Agent.build(settings, spec, model, behavior, device=device)
        policies: list[tuple[Policy, list[int]]] = [
            (AgentPolicy(agent, pool.count), seeds[:planned]),
            (RandomPolicy(spec.action_size, FIRST_SEED, spec.groups), seeds[planned:]),
        ]
        for policy, share in policies:
            for index, episode in collect(pool, policy, share):
                episodes[share[index]] = episode
                on_episode()
    source = (
        f"{planned} episodes by the run's agent and {count - planned} of random actions, played "
        f"now from reset seeds {seeds[0]} to {seeds[-1]}, which no training uses"
    )
    return HeldOut([episodes[seed] for seed in seeds], source, held_out=True)


def recorded(checkpoint: Checkpoint, run: Path, folder: Path, count: int) -> HeldOut:
    """Read the episodes of a folder, at most `count` of them evenly spread.

    Those that the run has learned from cost a warning.

    Raises:
        PlanetError: it has none, or they are of another environment than the run's.
    """
    if not folder.is_dir():
        raise PlanetError(f"--data {folder}: {episode_set.no_folder(folder)}")
    replay = Replay(folder, sys.maxsize)
    if replay.env is None:
        raise PlanetError(f"--data {folder}: {episode_set.no_episode(folder)}")
    env = checkpoint.settings.env
    spec = EnvSpec.from_json(replay.env).select_observations(env.observe, env.drop, env.keys)
    _check_same(checkpoint.spec, spec, folder)
    entries = replay.episodes
    if count < len(entries):
        entries = tuple(entries[at] for at in np.linspace(0, len(entries) - 1, count).astype(int))
    trained_on = checkpoint.settings.data.folder  # offline
    training_folder = Path(trained_on) if trained_on else run / EPISODES
    held_out = folder.resolve() != training_folder.resolve()
    if not held_out:
        _log.warning(
            "--data %s: the run has learned from these episodes; "
            "what it knows of others may be less",
            folder,
        )
    source = f"{len(entries)} of {len(replay)} episodes in {folder}"
    keys = checkpoint.spec.observation
    episodes = [Episode.load(folder / entry.file).select_observations(keys) for entry in entries]
    return HeldOut(episodes, source, held_out)


def _check_same(trained: EnvSpec, data: EnvSpec, folder: Path) -> None:
    if name := trained.differs(data, ignoring=MAY_DIFFER):
        raise PlanetError(
            f"--data {folder}: its {name} is {getattr(data, name)}, the run was trained with "
            f"{getattr(trained, name)}; give episodes of {trained.id} as the run sees it "
            f"(planet collect {trained.id} --policy RUN)"
        )
    if data.simulator != trained.simulator:
        _log.warning(
            "--data %s: from %s, the run was trained with %s",
            folder,
            data.simulator,
            trained.simulator,
        )
