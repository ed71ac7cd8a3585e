"""Act with a trained model and say how well: what `planet plan` does."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from planet_rssm.agent import Agent, AgentPolicy, parts_of, require_search
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import Settings
from planet_rssm.envs.pool import EnvPool, Pool, Step
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.baselines import baselines
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
from planet_rssm.evaluation.statistics import summary
from planet_rssm.runs import checkpoint as checkpoints

VIDEO_SIZE = 256  # pixels a side; what is filmed is drawn again, larger than what the agent sees

Film = Callable[
    [Sequence[np.ndarray], float], Path
]  # of frames [VIDEO_SIZE, VIDEO_SIZE, 3] and frames a second

F = TypeVar("F")  # what a film is made of

_log = logging.getLogger("planet_rssm")


def plan_run(
    run: Path,
    episodes: int,
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    device: str = "auto",
    film: Film | None = None,
    on_stage: Callable[[str], None] = lambda name: None,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Play noise-free episodes from fixed reset seeds and measure the baselines beside them.

    Args:
        run: a run folder.
        episodes: how many, of the plan and of each baseline.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`.
        device: where the model runs.
        film: given the frames and the rate of the first episode; returns the file that it made of
            them.
        on_stage: told the name of each baseline as it begins.
        on_episode: told each planned episode as it ends.
        on_progress: told the decisions made, and all of them, of the plan and then of each
            baseline.

    Returns:
        The object that `planet plan --json` prints; a film that cannot be written costs a warning
        and is None in it.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, an override that is
            refused, or environments that are no longer those of the training.
    """
    stages = Stages()
    with contextlib.ExitStack() as held_open:
        with stages("start"):
            held, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
            settings = held.settings
            require_search(settings.planner, where)  # before any environment is started
            rows = min(episodes, PARALLEL)
            pool = held_open.enter_context(EnvPool(settings.env, rows))
            seen = same_pixels(held.spec, pool.spec)
            agent = Agent.build(settings, seen, *parts_of(held, where), device=where)
        policy = TimedPolicy(None, stages)
        camera, counted = Camera(pool), Decisions(pool.spec, episodes, on_progress)
        seeds, results = episode_seeds(episodes), list[EpisodeResult]()

        def on_step(steps: Mapping[int, Step]) -> None:
            counted(steps)
            if film:
                camera.take(steps)

        with (
            within_memory(where, "a decision", "free some, or lower planner.candidates with -s"),
            stages("environment"),
        ):
            for batch in batches(
                seeds, rows
            ):  # what is drawn is named by the seed, as in `planet eval`
                policy.policy = AgentPolicy.of_episodes(agent, batch, rows, stages=stages)
                results += play(pool, policy, batch, on_step, on_episode)
    with stages("baselines"):
        compared = baselines(run, settings, seen, episodes, where, on_stage, on_progress)
    return {
        **told(held.spec, settings, results, compared, policy),
        **seen.timing(),
        "batch": rows,
        "planner_settings": settings.planner.model_dump(),
        "precision": agent.precision,
        "video": filmed(film, camera.frames, 1 / seen.control_interval) if film else None,
        "observation": {
            "observe": settings.env.observe,
            "renderer": seen.renderer,
            "size": settings.env.size,
            "simulator": seen.simulator,
        },
        "checkpoint": int(checkpoint)
        if checkpoint.isdecimal()
        else checkpoint,  # as asked for: best is a selected one
        "env_steps": held.progress["env_steps"],
        "seconds": stages.report(),
    }


def told(
    spec: EnvSpec,
    settings: Settings,
    results: Sequence[EpisodeResult],
    compared: Mapping[str, Sequence[float]],
    policy: TimedPolicy,
) -> dict[str, Any]:
    """Return the part of the result that every way of planning has; `compared` are returns by baseline."""
    return {
        "task": spec.id,
        "planner": settings.planner.label,
        "episodes": [
            {"seed": r.seed, "return": r.episode_return, "env_steps": r.env_steps} for r in results
        ],
        "return": summary([[result.episode_return for result in results]]),
        "baselines": {name: summary([returns])["mean"] for name, returns in compared.items()},
        "baselines_ci95": {
            name: summary([returns])["episode_ci95"] for name, returns in compared.items()
        },
        "latency_ms": policy.latency_ms(),
    }


class Camera:
    """Films row 0 of a pool until its first episode ends."""

    def __init__(self, pool: Pool) -> None:
        self.frames: list[np.ndarray] = []  # uint8 [VIDEO_SIZE, VIDEO_SIZE, 3]
        self._pool, self._done = pool, False

    def take(self, steps: Mapping[int, Step]) -> None:
        """Take a frame after a step of the pool."""
        if self._done or 0 not in steps:
            return
        if steps[0].lost:  # its episode begins again, in a worker that has nothing to show yet
            self.frames.clear()
        else:
            self.frames.append(self._pool.render(0, VIDEO_SIZE))
            self._done = steps[0].terminated or steps[0].truncated


def filmed(film: Callable[[F, float], Path], shown: F, fps: float) -> str | None:
    """Return the file that `film` made; one that cannot be written costs a warning and is None."""
    try:
        return str(film(shown, fps))
    except (
        OSError
    ) as error:  # a shared run may be read-only: the numbers are worth more than the film
        _log.warning("video not written (%s)", error)
        return None


def same_pixels(trained: EnvSpec, now: EnvSpec) -> EnvSpec:
    """Return `now`, having warned of another simulator version and refused any other difference from the training."""
    if now.simulator != trained.simulator:
        _log.warning(
            "trained with %s, planning with %s: returns may differ; compare them under one version only",
            trained.simulator, now.simulator,
        )  # fmt: skip
    if name := trained.differs(replace(now, simulator=trained.simulator)):
        raise PlanetError(
            f"{trained.id}: the run was trained with {name} = {getattr(trained, name)}, here it is "
            f"{getattr(now, name)}; plan with the versions that its run.json names, or train another run"
        )
    return now
