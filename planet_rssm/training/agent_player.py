"""The agent of a run, as what plays the episodes of a recorded set."""

from collections.abc import Sequence
from dataclasses import replace
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
from planet_rssm.precision import planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.training.player import MakePolicy, Player, Recipe, env_overrides


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

    def recipe() -> Recipe:
        planner = trained.settings.planner.model_copy(
            update={"precision": planning_precision(trained.settings, device)}
        )
        settings = trained.settings.model_copy(update={"planner": planner})
        sent = replace(trained, settings=settings, optimizer={}, collecting={})
        threads = torch.get_num_threads()
        return Recipe(str(run), seed, noise, str(device), threads, checkpoints.to_bytes(sent))

    make = agent_policy(trained, noise, seed, device)
    updates = trained.progress.get("updates")
    made_by = {"policy": str(run), "updates": updates, "noise": noise}
    return Player(resolve(env), make, made_by, recipe, draws_together=True)


def agent_policy(trained: Checkpoint, noise: float, seed: int, device: torch.device) -> MakePolicy:
    """Return what makes a policy of a trained agent."""

    def make(spec: EnvSpec, rows: int, indices: Sequence[int]) -> Policy:
        # Episodes that are added draw other noise than the first ones.
        added = indices[:1] if indices[0] else ()
        model, behavior = parts_of(trained, device)
        agent = Agent.build(
            trained.settings,
            require_same_environment(trained.spec, spec),
            model,
            behavior,
            device=device,
            exploration_noise=noise,
            seed=stream_seed(seed, Stream.DATA_ACTIONS, *added),
        )
        return AgentPolicy(agent, rows)

    return make


def recipes_policy(recipe: Recipe) -> MakePolicy:
    """Return what makes the policy of an agent's recipe, in a process of a cluster."""
    torch.set_num_threads(recipe.threads)
    trained = checkpoints.from_bytes(recipe.checkpoint, "what was sent")
    return agent_policy(trained, recipe.noise, recipe.seed, torch.device(recipe.device))


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
