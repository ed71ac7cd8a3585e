"""Act by planning in the simulator itself: `planet plan simulator:TASK`."""

import logging
from collections.abc import Callable, Sequence

import torch

from planet_rssm.base.stopwatch import Stages
from planet_rssm.evaluation.blind_baselines import simple_baselines
from planet_rssm.evaluation.film import Camera, WriteVideo, write_or_warn
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
    sequences_of,
    summaries_of,
    summary_of,
)
from planet_rssm.evaluation.simulator_settings import simulator_settings
from planet_rssm.precision import EXACT
from planet_rssm.simulator.headless import forbid_gl

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
