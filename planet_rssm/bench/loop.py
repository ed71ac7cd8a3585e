"""Whether a machine keeps up with a robot: what `planet bench loop` does."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planet_rssm.agent import Agent, parts_of
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.control import Clock, ControlLoop
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import SearchPlanner
from planet_rssm.runs import checkpoint as checkpoints

FRAMES = 16  # different ones, shown in turn


def bench_loop(
    run: Path,
    *,
    seconds: float,
    hz: float | None = None,
    camera: tuple[int, int] = (640, 480),
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    device: str = "auto",
    clock: Clock | None = None,
    on_tick: Callable[[], object] = lambda: None,
    **options: Any,  # noqa: ANN401 (budget_ms, delay, execute: ControlLoop's)
) -> dict[str, Any]:
    """Act on frames of noise at a fixed rate, in real time, and measure how long each plan took from its frame.

    Args:
        run: a run folder.
        seconds: how long.
        hz: ticks a second; None: the rate of the training.
        camera: width and height of the frames, which are resized to the model's.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`.
        device: where the model runs.
        clock: see ControlLoop.
        on_tick: called after each.
        options: see ControlLoop.

    Returns:
        The object that `planet bench loop --json` prints.

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, or an option out of
            its range.
    """
    if not 0 < seconds < math.inf:
        raise PlanetError(f"seconds {seconds:g}: must be more than 0 and finite; 60 for example")
    held, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
    settings = held.settings
    agent = Agent.build(settings, held.spec, *parts_of(held, where), device=where)
    planner = agent.planner
    frames = itertools.cycle(
        [_frame(held.spec, camera, np.random.default_rng(seed)) for seed in range(FRAMES)]
    )
    with within_memory(where, "a decision", "free some, or lower planner.candidates with -s"):
        with ControlLoop(agent, hz=hz, clock=clock, **options) as loop:
            while True:
                loop.tick(next(frames))
                on_tick()
                if (
                    sum(loop.counts.values()) >= seconds * loop.hz and loop.latency_ms
                ):  # a decision at least
                    break
                loop.sleep()
    return {
        "task": held.spec.id,
        "planner": {
            "name": settings.planner.name,
            "candidates": list(planner.populations) if isinstance(planner, SearchPlanner) else [1],
            "horizon": planner.horizon,
        },
        "device": str(where),
        "precision": agent.precision,
        "threads": torch.get_num_threads(),
        "camera": list(camera),
        **_told(loop, held.spec, options.get("budget_ms")),
    }  # fmt: skip


def _told(loop: ControlLoop, spec: EnvSpec, budget_ms: float | None) -> dict[str, Any]:
    times = np.array(loop.latency_ms)
    spread = {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (50, 95, 99)}
    return {
        "hz": loop.hz,
        "trained_hz": 1 / spec.control_interval,
        "trained_hz_from": spec.interval_from,
        "delay": loop.delay,
        "execute": loop.execute,
        "budget_ms": budget_ms,
        "rounds": loop.rounds or len(loop.times.ms),
        "round_ms": [round(ms, 3) for ms in loop.times.ms],
        "ticks": sum(loop.counts.values()),
        "misses": loop.missed,
        "counts": loop.counts,
        "dropped": loop.dropped,
        "decisions": len(times),
        "latency_ms": spread | {"max": round(float(times.max()), 3)},
    }


def _frame(
    spec: EnvSpec, camera: tuple[int, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return noise: pictures uint8 [height, width, 3] and vectors float32 [n]."""
    width, height = camera
    return {
        key: rng.integers(0, 256, (height, width, 3), np.uint8)
        if len(shape) == 3
        else rng.normal(size=shape)
        for key, (shape, _) in spec.observation.items()
    }
