"""How well a model foretells what sequences of actions are worth: pure functions of what it said and what was real."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from torch import Tensor, stack

from planet_rssm.evaluation.statistics import interval
from planet_rssm.planners import Objective
from planet_rssm.types import Rollout

BINS = 10


class Foretold(NamedTuple):
    """N sequences from one state of an episode: S futures that a model imagines of each, and what really came of them.

    float64: `reward` and `discount` [S, N, H], `real_reward` and `real_discount` [N, H].
    """

    reward: np.ndarray
    discount: np.ndarray
    real_reward: np.ndarray
    real_discount: np.ndarray


def horizons_of(longest: int) -> list[int]:
    """Return 1, 2, 4, … below `longest`, and `longest` itself."""
    return [2**power for power in range(longest.bit_length()) if 2**power < longest] + [longest]


def returns_by_horizon(
    reward: Tensor, discount: Tensor, horizons: Sequence[int], objective: Objective
) -> Tensor:
    """Return what the first steps of sequences [..., H] are worth, [..., K], one column a horizon."""
    parts = (Rollout(reward[..., :horizon], discount[..., :horizon], None) for horizon in horizons)
    return stack([objective(part) for part in parts], -1)


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the rank correlations [...] of numbers [..., N], ties sharing their mean rank; NaN where all are equal."""
    ranks = [stats.rankdata(values, axis=-1) for values in (one, other)]
    first, second = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.divide(
        (first * second).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0
    )


def by_episode(
    values: Sequence[np.ndarray | float], episodes: Sequence[int]
) -> dict[str, Any] | None:
    """Return the mean of numbers that belong to episodes, and its 95 % interval; NaN do not count, None if all are.

    Numbers of one episode go together: the interval resamples episodes, then the numbers of each.
    """
    groups: dict[int, list[float]] = {}
    for value, episode in zip(values, episodes, strict=True):
        if np.isfinite(value):
            groups.setdefault(episode, []).append(float(value))
    if not groups:
        return None
    mean = np.mean([value for group in groups.values() for value in group])
    return {"mean": float(mean), "episode_ci95": list(interval(list(groups.values())))}


def calibration(
    predicted: np.ndarray, real: np.ndarray, bins: int = BINS
) -> list[dict[str, float]]:
    """Return by bins of what was predicted, as many numbers in each as ties allow, the means of both.

    Args:
        predicted: numbers [M].
        real: [M].
        bins: at most so many.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="right")
    return [
        {
            "predicted": float(predicted[inside].mean()),
            "real": float(real[inside].mean()),
            "count": int(inside.sum()),
        }
        for inside in (place == index for index in range(len(edges) + 1))
        if inside.any()
    ]


def reached(discount: np.ndarray) -> np.ndarray:
    """Return which steps of sequences [..., H] really come: those before which the episode has not ended, bool."""
    goes_on = discount.cumprod(-1) > 0
    return np.concatenate([np.ones_like(goes_on[..., :1]), goes_on[..., :-1]], -1)
