"""Baselines that look at nothing: random, zero and constant actions."""

import itertools
import math
from collections.abc import Callable

import numpy as np

from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.collect import ConstantPolicy, Policy, RandomPolicy
from planet_rssm.config import Settings
from planet_rssm.envs.choices import Groups, from_places
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import OnProgress, episode_seeds, play

CONSTANTS = np.linspace(-1, 1, 11)  # every joint at the same share of its range
BLIND_ROWS = 2  # environments of the baselines that look at nothing
MOST_CONSTANTS = 64  # choices that are each tried as a constant action

Returns = dict[str, list[float]]  # baseline: return by episode


def simple_baselines(
    settings: Settings,
    spec: EnvSpec,
    episodes: int,
    on_stage: Callable[[str], None],
    on_progress: OnProgress,
) -> Returns:
    """Measure the baselines that look at nothing, in environments that render nothing."""
    blind = settings.env.model_copy(update={"renderer": "none"})
    returns: Returns = {}
    with EnvPool(blind, BLIND_ROWS) as pool:

        def measure(name: str, policy: Policy) -> list[float]:
            on_stage(name)
            played = play(pool, policy, episode_seeds(episodes), None, None, on_progress)
            return [result.episode_return for result in played]

        seed = stream_seed(settings.seed, Stream.RANDOM_ACTIONS)
        returns["random"] = measure("random", RandomPolicy(spec.action_size, seed, spec.groups))
        nothing, constants = constant_actions(spec)
        returns["zero"] = measure("zero", ConstantPolicy(nothing))
        constants_returns = [
            measure(name, ConstantPolicy(action)) for name, action in constants.items()
        ]
    returns["constant"] = max(constants_returns, key=lambda values: float(np.mean(values)))
    return returns


def constant_actions(spec: EnvSpec) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the action that stands for doing nothing, and the constant ones by name.

    Of choices, the first of each group stands for doing nothing.
    """
    if not spec.groups:
        constants = {
            f"constant {value:+.1f}": np.full(spec.action_size, value, np.float32)
            for value in CONSTANTS
        }
        return spec.nothing(), constants
    chosen = constant_choices(spec.groups)
    names = [f"choice {' '.join(map(str, one))}" for one in chosen]
    return spec.nothing(), dict(zip(names, from_places(np.array(chosen), spec.groups), strict=True))


def constant_choices(groups: Groups) -> list[tuple[int, ...]]:
    """Return the choices, one a group, that are tried as constant actions.

    Up to `MOST_CONSTANTS` combinations, all are tried. Of more, every group is tried at the same
    share of its range, as joints are, and, if that is no more than `MOST_CONSTANTS`, each choice of
    one group with the first choice of all others.
    """
    if math.prod(groups) <= MOST_CONSTANTS:
        return list(itertools.product(*map(range, groups)))
    chosen = [
        tuple(round((share + 1) / 2 * (size - 1)) for size in groups)
        for share in CONSTANTS.tolist()
    ]
    if sum(groups) <= MOST_CONSTANTS:
        first = (0,) * len(groups)
        chosen += [
            (*first[:at], one, *first[at + 1 :])
            for at, size in enumerate(groups)
            for one in range(size)
        ]
    return list(dict.fromkeys(chosen))
