"""Act by planning in the simulator itself: `planet plan simulator:TASK`."""

import logging
from collections.abc import Callable, Sequence

import torch

from planet_rssm import config
from planet_rssm.agent import require_search
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import PLANNERS, EnvSettings, Settings, is_dm_control
from planet_rssm.envs.registry import canonical_id, parse, resolve
from planet_rssm.evaluation.baselines import simple_baselines
from planet_rssm.evaluation.plan_run import (
    Camera,
    WriteVideo,
    sequences_of,
    write_or_warn,
)
from planet_rssm.evaluation.protocol import (
    EpisodeResult,
    OnProgress,
    TimedPolicy,
    episode_seeds,
    play,
)
from planet_rssm.evaluation.results import (
    ObservationInfo,
    PlanResult,
    summaries_of,
    summary_of,
)
from planet_rssm.precision import EXACT
from planet_rssm.simulator.headless import forbid_gl

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

_log = logging.getLogger("planet_rssm")


def plan_simulator(
    task: str,
    episodes: int,
    *,
    overrides: Sequence[str] = (),
    film: WriteVideo | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
    on_progress: OnProgress = lambda done, total: None,
) -> PlanResult:
    """Play noise-free episodes from fixed reset seeds, one at a time, and measure the baselines.

    Args:
        task: one of dm_control's, as `simulator:TASK` or alone.
        episodes: how many, of the plan and of each baseline.
        overrides: `key=value` texts for `planner.…`, `env.action_repeat` and `env.time_limit`.
        film: given the frames and the rate of the first episode; returns the file that it wrote.
        on_stage: given the name of each baseline as it begins.
        on_episode: given each planned episode as it ends.
        on_progress: given the decisions made, and all that there are, of the plan and then of each
            baseline.

    Returns:
        What `plan_run` returns; the baseline `untrained` is None, since nothing is learned.

    Raises:
        PlanetError: no such task, one of another simulator, or an override that is refused.
    """
    settings = simulator_settings(task, overrides)
    forbid_gl()
    from planet_rssm.planners import planner_from_settings
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
    policy = TimedPolicy(
        SimulatorPolicy([simulator], planner, discount=settings.planner.discount), stages
    )
    camera = Camera(pool)
    take = camera.take if film else None
    with stages("environment"):
        results = play(pool, policy, episode_seeds(episodes), take, on_episode, on_progress)
    with stages("baselines"):
        returns = simple_baselines(settings, spec, episodes, on_stage, on_progress)
    return PlanResult(
        task=spec.id,
        planner=settings.planner.label,
        planner_settings=settings.planner.model_dump(),
        sequences=sequences_of(planner),
        precision=EXACT,
        observation=ObservationInfo.of_state(settings.env, spec),
        checkpoint=None,
        env_steps=0,
        timing=spec.timing(),
        batch=1,
        episodes=results,
        returns=summary_of(results),
        baselines={**summaries_of(returns), "untrained": None},
        latency_ms=policy.latency_ms(),
        video=write_or_warn(film, camera.frames, 1 / spec.control_interval) if film else None,
        seconds=stages.report(),
    )


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
