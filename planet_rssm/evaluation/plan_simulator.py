"""Act by planning in the simulator itself: what `planet plan simulator:TASK` does."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from planet_rssm import config
from planet_rssm.agent import require_search
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import EnvSettings, Settings
from planet_rssm.envs.registry import canonical_id, parse, resolve
from planet_rssm.evaluation.baselines import simple_baselines
from planet_rssm.evaluation.plan_run import Camera, Film, filmed, told
from planet_rssm.evaluation.protocol import (
    EpisodeResult,
    OnProgress,
    TimedPolicy,
    episode_seeds,
    play,
)

PREFIX = "simulator:"
CHANGEABLE = ("planner.", "env.action_repeat", "env.time_limit")
# iCEM as published (arXiv 2008.06389), 97 sequences a decision; three to ten times as many where
# those were too few: at most two or three minutes of processor time an episode.
ICEM = {
    "name": "icem",
    "horizon": 12,
    "candidates": 40,
    "iterations": 3,
    "elites": 10,
    "init_std": 0.5,
}
BUDGET: dict[str, dict[str, float]] = {
    "cartpole": {"colour": 0.25, "candidates": 400, "elites": 40},
    "cheetah": {"colour": 0.25, "candidates": 200, "elites": 20},
    "finger": {"colour": 0.25, "candidates": 120, "init_std": 1.0},
}  # by domain; elsewhere colour 2.5

_log = logging.getLogger("planet_rssm")


def plan_simulator(
    task: str,
    episodes: int,
    *,
    overrides: Sequence[str] = (),
    film: Film | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Play noise-free episodes from fixed reset seeds, one at a time, and measure the baselines beside them.

    Args:
        task: one of dm_control's, as `simulator:TASK` or alone.
        episodes: how many, of the plan and of each baseline.
        overrides: `key=value` texts for `planner.…`, `env.action_repeat` and `env.time_limit`.
        film: given the frames and the rate of the first episode; returns the file that it made of
            them.
        on_stage: told the name of each baseline as it begins.
        on_episode: told each planned episode as it ends.
        on_progress: told the decisions made, and all of them, of the plan and then of each
            baseline.

    Returns:
        What `plan_run` returns, with `planner_settings` and `sequences`, those of one decision (None
        where the planner is no search); there is no baseline `untrained`, so it is None.

    Raises:
        PlanetError: no such task, one of another simulator, or an override that is refused.
    """
    settings = simulator_settings(task, overrides)
    os.environ["MUJOCO_GL"] = (
        "disable"  # this process has torch in it: no software GL, whatever the user's is
    )
    logging.getLogger("absl").setLevel(
        logging.ERROR
    )  # mujoco says that dm_control's models are of an older style
    from planet_rssm.planners import SearchPlanner, planner_from_settings
    from planet_rssm.simulator.dynamics import SimulatorPolicy
    from planet_rssm.simulator.local import LocalPool
    from planet_rssm.simulator.physics import Simulator

    stages = Stages()
    pool = LocalPool(settings.env)
    spec = pool.spec
    simulator = Simulator(pool.env, torch.get_num_threads())
    if not simulator.batched:
        _log.warning(
            "%s: its reward is asked of the task, state by state: slower than PlaNet's six tasks",
            spec.id,
        )
    planner = planner_from_settings(settings.planner, spec.action_size)
    discount = settings.planner.discount
    policy = TimedPolicy(SimulatorPolicy([simulator], planner, discount=discount), stages)
    camera = Camera(pool)
    with stages("environment"):
        results = play(
            pool,
            policy,
            episode_seeds(episodes),
            camera.take if film else None,
            on_episode,
            on_progress,
        )
    with stages("baselines"):
        compared = simple_baselines(settings, spec, episodes, on_stage, on_progress)
    result = told(spec, settings, results, compared, policy)
    return {
        **result,
        "baselines": {**result["baselines"], "untrained": None},
        "batch": 1,
        "video": filmed(film, camera.frames, 1 / spec.control_interval) if film else None,
        "observation": {
            "observe": "state",
            "renderer": "none",
            "size": settings.env.size,
            "simulator": spec.simulator,
        },
        "checkpoint": None,
        "env_steps": 0,
        "planner_settings": settings.planner.model_dump(),
        "sequences": sum(planner.populations) if isinstance(planner, SearchPlanner) else None,
        "seconds": stages.report(),
    }


def simulator_settings(task: str, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings by which a task is planned: iCEM at the task's budget, or another planner at its defaults.

    Raises:
        PlanetError: see `plan_simulator`.
    """
    task = task.removeprefix(PREFIX)
    if not task:
        raise PlanetError(
            f"{PREFIX} names no task; give {PREFIX}cartpole-swingup for example, `planet envs` has more"
        )
    if task.startswith("gym/") or ":" in task:
        raise PlanetError(
            f"{PREFIX}{task}: only dm_control's simulator can be planned in; give {PREFIX}DOMAIN-TASK"
        )
    values = config.parse_overrides(overrides)
    for key, value in values.items():
        if not key.startswith(CHANGEABLE):
            raise PlanetError(
                f"-s {key}={value}: of a simulator only planner.…, env.action_repeat and env.time_limit can be set; "
                "leave it out"
            )
        if value in ("actor", "critic"):
            raise PlanetError(
                f"{key} = {value}: of a simulator nothing is learned, it has no actor and no critic; search in it by "
                "--planner icem, cem, mppi or shooting"
            )
    domain, _ = parse(task)
    budget = (
        {**ICEM, **BUDGET.get(domain, {})} if values.get("planner.name", "icem") == "icem" else {}
    )
    settings = config.resolve({f"planner.{key}": value for key, value in budget.items()} | values)
    config.refuse_unused(settings, values)
    require_search(settings.planner, torch.device("cpu"))
    env = EnvSettings(
        id=canonical_id(task), observe="vectors", renderer="none",
        action_repeat=settings.env.action_repeat, time_limit=settings.env.time_limit,
    )  # fmt: skip
    return settings.model_copy(update={"env": resolve(env)})
