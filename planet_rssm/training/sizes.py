"""Sizes that no machine of this one's memory can hold, refused before a run is made."""

import math

import torch

from planet_rssm.base.device import require_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import Settings, flatten
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import WorldModel

WIDTHS = (
    "rssm.deter",
    "rssm.stoch",
    "rssm.hidden",
    "rssm.classes",
    "model.depth",
    "model.vector_units",
    "model.reward_units",
    "model.continue_units",
    "behavior.units",
)
COPIES = 4  # of a weight while it is learned: itself, its gradient and the optimiser's two means
WORKER = 20 * 2**20  # bytes that the smallest environment's process takes


def check_sizes(settings: Settings, spec: EnvSpec, device: torch.device) -> None:
    """Refuse settings whose batch, weights or environments cannot fit into memory.

    `Agent.build` checks the planner's.

    Raises:
        PlanetError: one of them is too large; the line names it.
    """
    train = settings.train
    # as floats, which networks take
    frame = sum(4 * math.prod(shape) for shape, _ in spec.observation.values())
    frames = train.batch_size * train.batch_length
    batch = f"train.batch_size = {train.batch_size}, train.batch_length = {train.batch_length}"
    require_memory(device, frames * frame, batch, "lower one of them")
    require_memory(
        torch.device("cpu"), train.envs * WORKER, f"train.envs = {train.envs}", "lower it"
    )
    weights = f"{_largest(settings)}: the weights and what learns them"
    fix = "lower it; `planet config PRESET --summary` counts weights by part"
    require_memory(device, COPIES * 4 * _weights(settings, spec), weights, fix)


def _largest(settings: Settings) -> str:
    """Return the width, as `key = value`, that is the most times its default."""
    chosen = flatten(settings)
    usual = flatten(Settings())
    key = max(WIDTHS, key=lambda key: chosen[key] / usual[key])
    return f"{key} = {chosen[key]}"


def parameter_counts(settings: Settings, spec: EnvSpec) -> dict[str, int]:
    """Return the number of parameters by part, and their total, without making any.

    Raises:
        PlanetError: settings that no model can be made of.
    """
    with torch.device("meta"):
        model = WorldModel(settings, spec)
        behavior = untrained_behavior(settings, model)
    counts = model.parameter_counts()
    if behavior is None:
        return counts
    own = behavior.parameter_counts()
    return counts | own | {"total": counts["total"] + sum(own.values())}


def _weights(settings: Settings, spec: EnvSpec) -> float:
    """Return the number of weights; infinity if it is too large to count."""
    try:
        return parameter_counts(settings, spec)["total"]
    except PlanetError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        # 0: a part of the user's own that cannot be counted so
        return math.inf if "overflow" in str(error) else 0
