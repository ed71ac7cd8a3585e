"""How long it takes to collect, and of what: physics, drawing, filtering, planning.

One agent step of all rows is timed in parts. The physics is that of environments that draw nothing
and are given the same actions; what the others take beyond it is drawing. No weights are learned:
what an agent costs does not depend on them.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.stopwatch import Stages
from planet_rssm.behavior import untrained_behavior
from planet_rssm.bench.turns import Asked, BenchResult, Machine, Say, titled
from planet_rssm.config import Settings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.world_model import untrained_model

PRESETS = ("quickstart",)
WARM = 3  # steps that do not count


@dataclass(frozen=True)
class CollectTiming:
    """An agent step of all environments of a preset, in one precision."""

    preset: str
    task: str
    renderer: str
    envs: int
    planner: str
    precision: str
    ms: float  # the mean step
    physics_ms: float
    draw_ms: float
    filter_ms: float
    plan_ms: float
    env_steps_per_s: float  # of all environments together, action repeats included


def bench_collect(
    asked: Asked,
) -> BenchResult[CollectTiming]:
    """Time the steps of a round of collection.

    Raises:
        PlanetError: no such preset, setting, device or environment, or too little memory.
    """
    machine = Machine(asked.device, asked.precisions, asked.say)
    cases = []
    for preset in asked.presets:
        settings = config.load(preset, asked.overrides)
        settings = settings.model_copy(update={"env": resolve(settings.env)})
        for precision in machine.precisions:
            line = titled(asked.say, f"{preset}, {precision}")
            cases.append(_case(preset, settings, precision, asked.repeats, machine.device, line))
    return machine.result(cases)


def _case(
    preset: str,
    settings: Settings,
    precision: str,
    repeats: int,
    device: torch.device,
    say: Say,
) -> CollectTiming:
    envs = settings.train.envs
    blind = settings.env.model_copy(update={"renderer": "none"})
    say("start of the environments")
    with EnvPool(settings.env, envs) as pool, EnvPool(blind, envs) as without:
        model = untrained_model(settings, pool.spec).to(device)
        agent = Agent.build(
            settings,
            pool.spec,
            model,
            untrained_behavior(settings, model),
            device=device,
            precision=precision,
        )
        stages = Stages()
        policy = AgentPolicy(agent, envs, stages=stages)
        _steps(pool, without, policy, WARM, say)
        stages.seconds.clear()
        seconds = _steps(pool, without, policy, repeats, say)
        each = {name: 1000 * spent / repeats for name, spent in (seconds | stages.seconds).items()}
        step = each["drawn"] + each["filter"] + each["plan"]
        physics = min(each["blind"], each["drawn"])
        return CollectTiming(
            preset=preset,
            task=pool.spec.id,
            renderer=pool.spec.renderer,
            envs=envs,
            planner=settings.planner.name,
            precision=precision,
            ms=round(step, 2),
            physics_ms=round(physics, 2),
            draw_ms=round(each["drawn"] - physics, 2),
            filter_ms=round(each["filter"], 2),
            plan_ms=round(each["plan"], 2),
            env_steps_per_s=round(1000 * envs * pool.spec.action_repeat / step, 1),
        )


def _steps(
    pool: EnvPool, without: EnvPool, policy: AgentPolicy, count: int, say: Say
) -> dict[str, float]:
    """Take so many agent steps in both pools; return the seconds that each pool took."""
    rows = range(pool.count)
    seconds = {"drawn": 0.0, "blind": 0.0}
    pools = {"drawn": pool, "blind": without}
    seeds = {row: row for row in rows}
    frames: dict[int, dict[str, np.ndarray]] = {}
    action = np.zeros((pool.count, pool.spec.action_size), np.float32)
    over = set(rows)
    for step in range(count):
        say(f"{step + 1} of {count}")
        if over:
            for each in pools.values():
                begun = each.reset({row: seeds[row] for row in over})
                if each is pool:
                    frames |= begun
        first = np.array([row in over for row in rows])
        observation = {
            key: np.stack([frames[row][key] for row in rows]) for key in pool.spec.observation
        }
        action = np.clip(policy(observation, np.where(first[:, None], 0, action), first), -1, 1)
        for name, each in pools.items():
            begin = time.perf_counter()
            steps = each.step(dict(enumerate(action)))
            seconds[name] += time.perf_counter() - begin
            if each is pool:
                frames = {row: one.observation for row, one in steps.items()}
        over = {row for row, one in steps.items() if one.lost or one.terminated or one.truncated}
    return seconds
