"""Whether a machine keeps up with a robot: what `planet bench loop` does."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planet_rssm.agent import Agent, parts_of
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.control import Clock, ControlLoop
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import SearchPlanner
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint

FRAMES = 16  # different ones, shown in turn


@dataclass(frozen=True)
class LoopTiming:
    """How a control loop kept its rate."""

    task: str
    planner: Json  # name, candidates of each round, horizon
    device: str
    precision: str
    threads: int
    camera: list[int]  # width and height in pixels
    hz: float
    trained_hz: float
    trained_hz_from: str | None
    delay: int  # ticks
    execute: int  # ticks
    budget_ms: float | None
    rounds: int  # of the first decision
    mean_rounds: float  # of all
    round_ms: list[float]
    ticks: int
    misses: int
    counts: dict[str, int]  # of ticks by where their action came from
    dropped: int  # frames
    decisions: int
    latency_ms: dict[str, float]  # from a frame to its plan: p50, p95, p99, max

    def to_json(self) -> Json:
        """Return the object that `planet bench loop --json` prints."""
        return asdict(self)


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
) -> LoopTiming:
    """Act on frames of noise at a fixed rate, in real time, and measure each plan's latency.

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

    Raises:
        PlanetError: no such run, checkpoint or device, a damaged checkpoint, or an option out of
            its range.
    """
    if not 0 < seconds < math.inf:
        raise PlanetError(f"seconds {seconds:g}: must be more than 0 and finite; 60 for example")
    trained, where, _ = checkpoints.open_run(run, checkpoint, overrides, device)
    spec = trained.spec
    model, behavior = parts_of(trained, where)
    agent = Agent.build(trained.settings, spec, model, behavior, device=where)
    frames = itertools.cycle(
        [_frame(spec, camera, np.random.default_rng(seed)) for seed in range(FRAMES)]
    )
    with within_memory(where, "a decision", "free some, or lower planner.candidates with -s"):
        with ControlLoop(agent, hz=hz, clock=clock, **options) as loop:
            rounds = []
            while True:
                rounds.append(loop.rounds or len(loop.times.ms))
                loop.tick(next(frames))
                on_tick()
                # until there is a decision at least
                if sum(loop.counts.values()) >= seconds * loop.hz and loop.latency_ms:
                    break
                loop.sleep()
    return _timing(loop, agent, trained, where, camera, options.get("budget_ms"), rounds)


def _timing(
    loop: ControlLoop,
    agent: Agent,
    trained: Checkpoint,
    device: torch.device,
    camera: tuple[int, int],
    budget_ms: float | None,
    rounds: Sequence[int],
) -> LoopTiming:
    planner, spec = agent.planner, trained.spec
    times = np.array(loop.latency_ms)
    spread = {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (50, 95, 99)}
    candidates = list(planner.populations) if isinstance(planner, SearchPlanner) else [1]
    return LoopTiming(
        task=spec.id,
        planner={
            "name": trained.settings.planner.name,
            "candidates": candidates,
            "horizon": planner.horizon,
        },
        device=str(device),
        precision=agent.precision,
        threads=torch.get_num_threads(),
        camera=list(camera),
        hz=loop.hz,
        trained_hz=1 / spec.control_interval,
        trained_hz_from=spec.interval_from,
        delay=loop.delay,
        execute=loop.execute,
        budget_ms=budget_ms,
        rounds=rounds[0],
        mean_rounds=round(float(np.mean(rounds)), 2),
        round_ms=[round(ms, 3) for ms in loop.times.ms],
        ticks=sum(loop.counts.values()),
        misses=loop.missed,
        counts=loop.counts,
        dropped=loop.dropped,
        decisions=len(times),
        latency_ms=spread | {"max": round(float(times.max()), 3)},
    )


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
