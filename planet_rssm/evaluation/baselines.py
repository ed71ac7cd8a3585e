"""What a return must be compared with: random, doing nothing, the best constant action, the planner without learning.

On cartpole-balance doing nothing scores 745 of 1000 and random 257: "better than random" alone proves nothing.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.behavior import untrained_behavior
from planet_rssm.collect import ConstantPolicy, Policy, RandomPolicy
from planet_rssm.config import Settings, flatten
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import PARALLEL, episode_seeds, play
from planet_rssm.files import write_atomic
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.world_model import untrained_model

CONSTANTS = np.linspace(-1, 1, 11)  # every joint held at the same share of its range
CACHE = "baselines.json"
NAMES = ("random", "zero", "constant", "untrained")

_log = logging.getLogger("planet_rssm")

Returns = dict[str, list[float]]  # baseline: return by episode


def baselines(
    folder: Path,
    settings: Settings,
    spec: EnvSpec,
    episodes: int,
    device: torch.device,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Returns:
    """Return the four baselines of a run, by episode; measured once for given settings and kept in the run folder.

    `spec` is that of the environments as they are now. A run folder that cannot be written costs a warning.

    The constant is the one with the best mean, chosen on the very episodes it is then reported on: a generous
    baseline.
    """
    compared = {name: flatten(getattr(settings, name)) for name in ("env", "rssm", "model", "behavior", "planner")}
    key = {"episodes": episodes, "seed": settings.seed, "simulator": spec.simulator, **compared}
    key = json.loads(json.dumps(key))  # as the file gives it back: tuples become lists
    cache = folder / CACHE
    if (kept := _kept(cache, key)) is not None:
        return kept
    returns = simple_baselines(settings, spec, episodes, on_stage)
    on_stage("untrained")
    returns["untrained"] = untrained(settings, spec, episodes, device)
    try:
        write_atomic(cache, [json.dumps({"key": key, "returns": returns}).encode()])
    except OSError as error:
        _log.warning("baselines not kept in %s (%s); the next plan measures them again", cache, error.strerror)
    return returns


def _kept(cache: Path, key: dict[str, Any]) -> Returns | None:
    """Return what was measured before under the same key; a missing or damaged file only means measuring again."""
    try:
        held = json.loads(cache.read_text())
        if held["key"] != key:
            return None
        return {name: [float(value) for value in held["returns"][name]] for name in NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def simple_baselines(settings: Settings, spec: EnvSpec, episodes: int, on_stage: Callable[[str], None]) -> Returns:
    """Measure the baselines that look at nothing, in environments that render nothing."""
    blind = settings.env.model_copy(update={"renderer": "none"})
    returns: Returns = {}
    with EnvPool(blind, 2) as pool:

        def measure(name: str, policy: Policy) -> list[float]:
            on_stage(name)
            return [result.episode_return for result in play(pool, policy, episode_seeds(episodes))]

        seed = stream_seed(settings.seed, Stream.RANDOM_ACTIONS)
        returns["random"] = measure("random", RandomPolicy(spec.action_size, seed, spec.discrete))
        nothing, constants = constant_actions(spec)
        returns["zero"] = measure("zero", ConstantPolicy(nothing))
        constants_returns = [measure(name, ConstantPolicy(action)) for name, action in constants.items()]
    returns["constant"] = max(constants_returns, key=lambda held: float(np.mean(held)))
    return returns


def constant_actions(spec: EnvSpec) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the action that stands for doing nothing (of choices the first one), and the constant ones by name."""
    if spec.discrete:
        choices = np.eye(spec.action_size, dtype=np.float32)
        return choices[0], {f"choice {index}": choice for index, choice in enumerate(choices)}
    constants = {f"constant {value:+.1f}": np.full(spec.action_size, value, np.float32) for value in CONSTANTS}
    return np.zeros(spec.action_size, np.float32), constants


def untrained(settings: Settings, spec: EnvSpec, episodes: int, device: torch.device) -> list[float]:
    """Return what the same planner gets on the model as it was before the first update."""
    model = untrained_model(settings, spec).to(device)
    agent = Agent.build(settings, spec, model, untrained_behavior(settings, model), device=device, seed=0)
    rows = min(episodes, PARALLEL)
    with EnvPool(settings.env, rows) as pool:
        return [result.episode_return for result in play(pool, AgentPolicy(agent, rows), episode_seeds(episodes))]
