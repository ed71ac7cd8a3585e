"""What is said of a set of returns: mean, spread, interquartile mean and bootstrap intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from planet_rssm.errors import PlanetError

LEVEL = 0.95
RESAMPLES = 2000

Returns = Sequence[Sequence[float]]  # one inner sequence a training seed, one value an episode


def iqm(values: np.ndarray) -> float:
    """Return the mean of the middle half of the values (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(values, 0.25))


def interval(returns: Returns, statistic: Callable[[np.ndarray], float] = np.mean) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of a statistic of all episodes; equal returns give equal numbers.

    Seeds are resampled first, then the episodes of each drawn seed, because episodes of one seed share its model. With
    one seed only episodes are resampled: that interval says nothing about other seeds and is named `episode_ci95`.
    With a handful of seeds or episodes percentile intervals are too narrow; show the single values too.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    runs = _checked(returns)
    rng = np.random.default_rng(0)
    values = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = [runs[k] for k in rng.integers(len(runs), size=len(runs))]
        values[i] = statistic(np.concatenate([run[rng.integers(run.size, size=run.size)] for run in drawn]))
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def summary(returns: Returns) -> dict[str, float | list[float]]:
    """Return mean, std (of the episodes, about their mean), median, iqm and the mean's interval, ready for `--json`.

    The interval is called `ci95`, with a single seed `episode_ci95`.
    """
    episodes = np.concatenate(_checked(returns))
    return {
        "mean": float(episodes.mean()),
        "std": float(episodes.std()),
        "median": float(np.median(episodes)),
        "iqm": iqm(episodes),
        "episode_ci95" if len(returns) == 1 else "ci95": list(interval(returns)),
    }


def _checked(returns: Returns) -> list[np.ndarray]:
    runs = [np.asarray(run, np.float64) for run in returns]
    if not runs or not all(run.size for run in runs):
        raise PlanetError(f"returns of {[run.size for run in runs]} episodes: every seed needs at least one episode")
    if not all(np.isfinite(run).all() for run in runs):
        raise PlanetError("returns: one is not finite; look for the episode whose rewards are broken")
    return runs
