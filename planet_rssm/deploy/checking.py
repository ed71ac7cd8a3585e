"""An exported file beside the agent that it was made of: the same decisions, and how fast."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planet_rssm.agent import Agent
from planet_rssm.base.json_types import Json
from planet_rssm.deploy.graph import NEXT, DecisionGraph
from planet_rssm.deploy.writing import example_inputs, runner

STEPS = 4  # decisions that are compared, each from the last one's carry
REPEATS = 9  # of which the median is the time of a decision


def compare(path: Path, kind: str, graph: DecisionGraph, agent: Agent[Any]) -> dict[str, float]:
    """Return the largest difference of actions and of beliefs, over an episode on random pixels.

    File and agent get the same observations and the same noise, and each keeps its own carry. The
    actions that the agent chose are executed.

    Raises:
        PlanetError: what runs the file is not installed.
    """
    run = runner(path, graph, kind)
    rng = np.random.default_rng(0)
    carry, executed = agent.initial(1), torch.zeros(1, agent.spec.action_size)
    kept: dict[str, torch.Tensor] = {}
    worst = {"action": 0.0, "belief": 0.0}
    for step in range(STEPS):
        observation = {
            key: torch.from_numpy(
                rng.integers(0, 256, (1, *shape), np.uint8)
                if dtype == "uint8"
                else rng.normal(size=(1, *shape)).astype(np.float32)
            )
            for key, (shape, dtype) in agent.spec.observation.items()
        }
        first = torch.tensor([step == 0])
        inputs = graph.inputs(agent, carry, observation, executed, first) | kept
        outputs = run(inputs)
        kept = {
            name.removeprefix(NEXT): torch.from_numpy(np.array(value))
            for name, value in outputs.items()
            if name.startswith(NEXT)
        }
        plan, carry = agent.act(carry, observation, executed.numpy(), first.numpy())
        executed = plan.action
        pairs = {
            "action": (outputs["action"], plan.action),
            "belief": (outputs[f"{NEXT}deter"], carry.state.deter),
        }
        for name, (theirs, ours) in pairs.items():
            worst[name] = max(worst[name], float(np.abs(theirs - ours.numpy()).max(initial=0)))
    return worst


def latency(path: Path, kind: str, graph: DecisionGraph, agent: Agent[Any]) -> Json:
    """Return the median milliseconds of a decision, by the file and by the agent itself."""
    run = runner(path, graph, kind)
    inputs = example_inputs(graph, agent)
    blank = {key: inputs[key].numpy() for key in agent.spec.observation}
    still, first = np.zeros((1, agent.spec.action_size), np.float32), np.ones(1, bool)
    ways: dict[str, Callable[[], object]] = {
        kind: lambda: run(inputs),
        "agent": lambda: agent.act(agent.initial(1), blank, still, first),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):  # in turns: both get the same of what else the machine does
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}
