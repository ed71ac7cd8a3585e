"""Act with a trained model and measure how well: `planet plan RUN`."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from planet_rssm.agent import Agent, AgentPolicy, parts_of
from planet_rssm.base.device import within_memory
from planet_rssm.base.stopwatch import Stages
from planet_rssm.envs.pool import EnvPool, Step
from planet_rssm.envs.spec import require_same_environment
from planet_rssm.evaluation.baselines import baselines
from planet_rssm.evaluation.film import Camera, WriteVideo, write_or_warn
from planet_rssm.evaluation.goal_image import goal_image
from planet_rssm.evaluation.protocol import (
    PARALLEL,
    Decisions,
    EpisodeResult,
    OnProgress,
    TimedPolicy,
    batches,
    episode_seeds,
    play,
)
from planet_rssm.evaluation.results import (
    ObservationInfo,
    PlanResult,
    checkpoint_name,
    sequences_of,
    summaries_of,
    summary_of,
)
from planet_rssm.evaluation.xray import WriteExplained, XRay
from planet_rssm.planners.limits import require_search
from planet_rssm.runs import checkpoint as checkpoints


def plan_run(
    run: Path,
    episodes: int,
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    device: str = "auto",
    film: WriteVideo | None = None,
    xray: Mapping[str, WriteExplained] | None = None,
    goal: Path | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
    on_progress: OnProgress = lambda done, total: None,
) -> PlanResult:
    """Play noise-free episodes from fixed reset seeds and measure the baselines beside them.

    Args:
        run: a run folder.
        episodes: how many, of the plan and of each baseline.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`.
        device: where the model runs.
        film: given the frames and the rate of the first episode; returns the file that it wrote.
        xray: each is given the first episode with the reasons of its decisions, and returns the
            file that it wrote, which has the key's name in the result.
        goal: a picture that is planned to; the rewards then do not count for a plan.
        on_stage: given the name of each baseline as it begins.
        on_episode: given each planned episode as it ends.
        on_progress: given the decisions made, and all that there are, of the plan and then of each
            baseline.

    Returns:
        The result; a video that cannot be written costs a warning and is None in it.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, an override that is
            refused, or environments that are no longer those of the training.
    """
    stages = Stages()
    with contextlib.ExitStack() as stack:
        with stages("start"):
            loaded, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
            settings = loaded.settings
            require_search(settings.planner, where)  # before any environment is started
            rows = min(episodes, PARALLEL)
            pool = stack.enter_context(EnvPool(settings.env, rows))
            spec = require_same_environment(loaded.spec, pool.spec)
            model, behavior = parts_of(loaded, where)
            agent = Agent.build(settings, spec, model, behavior, device=where)
            agent = agent.towards(goal_image(goal, spec)) if goal else agent
        policy = TimedPolicy(None, stages)
        camera = Camera(pool)
        label = settings.planner.label
        words = f"{label}, to a goal, rewards do not count" if goal else label
        explained = XRay(agent, behavior, words, pool, stages) if xray else None
        count_decisions = Decisions(pool.spec, episodes, on_progress)
        results: list[EpisodeResult] = []

        def on_step(steps: Mapping[int, Step]) -> None:
            count_decisions(steps)
            if film:
                camera.take(steps)
            if explained:
                explained.on_step(steps)

        fix = "free some, or lower planner.candidates with -s"
        with within_memory(where, "a decision", fix), stages("environment"):
            # noise is drawn by the seed of an episode, as in `planet eval`
            for batch in batches(episode_seeds(episodes), rows):
                policy.policy = AgentPolicy.of_episodes(
                    agent,
                    batch,
                    rows,
                    stages=stages,
                    on_plan=explained.on_plan if explained else None,
                )
                results += play(pool, policy, batch, on_step, on_episode)
    written: dict[str, str | None] = {}
    if explained:
        with stages("x-ray"):
            for kind, write in (xray or {}).items():
                written[kind] = write_or_warn(write, explained.episode, kind=kind)
    with stages("baselines"):
        returns = baselines(run, settings, spec, episodes, where, on_stage, on_progress)
    return PlanResult(
        task=loaded.spec.id,
        planner=label,
        planner_settings=settings.planner.model_dump(),
        sequences=sequences_of(agent.planner),
        precision=agent.precision,
        observation=ObservationInfo.of(settings.env, spec),
        checkpoint=checkpoint_name(checkpoint),
        env_steps=loaded.progress["env_steps"],
        timing=spec.timing(),
        batch=rows,
        episodes=results,
        returns=summary_of(results),
        baselines=summaries_of(returns),
        latency_ms=policy.latency_ms(),
        video=write_or_warn(film, camera.frames, 1 / spec.control_interval) if film else None,
        written=written,
        seconds=stages.report(),
        goal=None if goal is None else str(goal),
    )
