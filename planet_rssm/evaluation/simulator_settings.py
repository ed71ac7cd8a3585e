"""What `simulator:TASK` stands for: the settings by which a simulator is searched."""

from collections.abc import Sequence

import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PLANNERS, EnvSettings, Settings, is_dm_control
from planet_rssm.envs.registry import canonical_id, parse, resolve
from planet_rssm.planners.limits import require_search

PREFIX = "simulator:"
SEARCHES = [name for name in PLANNERS if name != "actor"]
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


def simulator_settings(task: str, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings by which a task is planned.

    They are iCEM's at the task's budget, or those of another planner at its defaults.

    Raises:
        PlanetError: see `plan_simulator`.
    """
    task = task.removeprefix(PREFIX)
    values = config.parse_overrides(overrides)
    _check(task, values)
    domain, _ = parse(task)
    budget: dict[str, object] = {}
    if values.get("planner.name", "icem") == "icem":
        budget = {**ICEM, **BUDGET.get(domain, {})}
    settings = config.resolve({f"planner.{key}": value for key, value in budget.items()} | values)
    config.refuse_unused(settings, values)
    require_search(settings.planner, torch.device("cpu"))
    env = EnvSettings(
        id=canonical_id(task),
        observe="vectors",
        renderer="none",
        action_repeat=settings.env.action_repeat,
        time_limit=settings.env.time_limit,
    )
    return settings.model_copy(update={"env": resolve(env)})


def _check(task: str, overrides: dict[str, object]) -> None:
    """Refuse a task of another simulator, and settings that mean nothing in a simulator."""
    if not task:
        raise PlanetError(
            f"{PREFIX} names no task; give {PREFIX}cartpole-swingup for example, "
            "`planet envs` has more"
        )
    if not is_dm_control(task):
        raise PlanetError(
            f"{PREFIX}{task}: only dm_control's simulator can be planned in; "
            f"give {PREFIX}DOMAIN-TASK"
        )
    for key, value in overrides.items():
        if not key.startswith(CHANGEABLE):
            raise PlanetError(
                f"-s {key}={value}: of a simulator only planner.…, env.action_repeat and "
                "env.time_limit can be set; leave it out"
            )
        if value in ("actor", "critic"):
            raise PlanetError(
                f"{key} = {value}: of a simulator nothing is learned, it has no actor and "
                f"no critic; search in it by --planner {' or '.join(SEARCHES)}"
            )
