"""The agent of a run, as what plays the episodes of a recorded set."""

from collections.abc import Sequence
from pathlib import Path

import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy, check_noise, parts_of
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.collect import Policy
from planet_rssm.config import EnvSettings
from planet_rssm.envs.registry import canonical_id, resolve
from planet_rssm.envs.spec import EnvSpec, require_same_environment
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.training.player import Player, env_overrides


def planning_player(
    task: str,
    overrides: Sequence[str],
    run: Path,
    checkpoint: str,
    noise: float,
    seed: int,
    device: torch.device,
) -> Player:
    """Return a run's agent in the run's environment, with `noise` on the planned action.

    See `Agent`.

    Raises:
        PlanetError: no such run or checkpoint, noise that is no chance, a task or override unlike
            the run's.
    """
    trained = checkpoints.open_run(run, checkpoint, device=device).checkpoint
    if canonical_id(task) != trained.spec.id:
        raise PlanetError(
            f"TASK {task}: the run in {run} acts in {trained.spec.id}; give that, or another run"
        )
    check_noise("--noise", noise, trained.spec)
    env = _as_the_run(trained, overrides, run)

    def agent(spec: EnvSpec, rows: int, indices: Sequence[int]) -> Policy:
        # Episodes that are added draw other noise than the first ones.
        added = indices[:1] if indices[0] else ()
        model, behavior = parts_of(trained, device)
        built = Agent.build(
            trained.settings,
            require_same_environment(trained.spec, spec),
            model,
            behavior,
            device=device,
            exploration_noise=noise,
            seed=stream_seed(seed, Stream.DATA_ACTIONS, *added),
        )
        return AgentPolicy(built, rows)

    updates = trained.progress.get("updates")
    return Player(resolve(env), agent, {"policy": str(run), "updates": updates, "noise": noise})


def _as_the_run(trained: Checkpoint, overrides: Sequence[str], run: Path) -> EnvSettings:
    """Return the run's environment, with a step timeout of the user's."""
    before = config.flatten(trained.settings)
    after = config.flatten(config.resolve(before | env_overrides(overrides)))
    for key in before:
        if key != "env.step_timeout" and after[key] not in (before[key], None, "auto"):
            raise PlanetError(
                f"{key} = {after[key]}: the run in {run} has {before[key]}; leave it out"
            )
    return trained.settings.env.model_copy(update={"step_timeout": after["env.step_timeout"]})
