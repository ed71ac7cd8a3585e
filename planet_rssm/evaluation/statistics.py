"""What is said of returns: mean, spread, interquartile mean, bootstrap intervals, probability of improvement.

On equal arrays these are the numbers of rliable (Agarwal et al. 2021, arXiv 2108.13264); beyond it, the intervals
resample the episodes within a run too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from planet_rssm.errors import PlanetError

LEVEL = 0.95
RESAMPLES = 2000
ENOUGH = 5  # seeds; with fewer the intervals are too narrow to be believed

Returns = Sequence[Sequence[float] | np.ndarray]  # one inner sequence a training seed, one value an episode
Runs = list[np.ndarray]  # the same, checked
Statistic = Callable[..., Any]  # of values, and of an `axis` of them, as np.mean


def iqm(values: np.ndarray, axis: int | None = None) -> Any:  # noqa: ANN401 (a float, or an array of them)
    """Return the mean of the middle half of the values (Agarwal et al. 2021)."""
    ordered = np.sort(values, axis=axis)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


STATISTICS: dict[str, Statistic] = {"mean": np.mean, "median": np.median, "iqm": iqm}


def interval(returns: Returns, statistic: Statistic = np.mean) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of a statistic of all episodes; equal returns give equal numbers.

    Seeds are resampled first, then the episodes of each drawn seed, because episodes of one seed share its model. With
    one seed only episodes are resampled: that interval says nothing about other seeds and is named `episode_ci95`.
    With a handful of seeds or episodes percentile intervals are too narrow; show the single values too.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    return intervals(returns, {"": statistic})[""]


def intervals(returns: Returns, statistics: Mapping[str, Statistic]) -> dict[str, tuple[float, float]]:
    """Return the intervals of several statistics by name, from the same draws; see `interval`."""
    runs, rng = checked(returns), np.random.default_rng(0)
    draws: dict[int, list[np.ndarray]] = {}  # by size, where runs have different numbers of episodes
    for _ in range(RESAMPLES):
        episodes = np.concatenate(_resampled(runs, rng))
        draws.setdefault(episodes.size, []).append(episodes)
    stacks = [np.stack(alike) for alike in draws.values()]
    return {
        name: _ends(np.concatenate([statistic(stack, axis=-1) for stack in stacks]))
        for name, statistic in statistics.items()
    }


def summary(returns: Returns) -> dict[str, Any]:
    """Return mean, std (of the episodes, about their mean), median, iqm and their intervals, ready for `--json`.

    The mean's interval is called `ci95`, with a single seed `episode_ci95`; the others' `median_ci95` and so on.
    """
    runs = checked(returns)
    episodes = np.concatenate(runs)
    told = {name: float(statistic(episodes)) for name, statistic in STATISTICS.items()}
    return told | {"std": float(episodes.std())} | _named(intervals(runs, STATISTICS), len(runs))


def across_tasks(tasks: Sequence[Returns]) -> dict[str, Any]:
    """Return mean, median and iqm over tasks and their intervals; the returns must be on a common scale.

    A run's score is the mean of its episodes. `mean` and `median` are of the tasks' mean scores, `iqm` of the scores of
    all runs of all tasks, as in rliable. Draws are made within each task.

    Args:
        tasks: the returns of each.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    runs = [checked(returns) for returns in tasks]

    def of(drawn: Sequence[Runs]) -> list[float]:
        scores = [_means(task) for task in drawn]
        means = [float(score.mean()) for score in scores]
        return [float(np.mean(means)), float(np.median(means)), float(iqm(np.concatenate(scores)))]

    found = dict(zip(STATISTICS, of(runs), strict=True))
    spread = _bootstrap(lambda rng: of([_resampled(task, rng) for task in runs]))
    fewest = min(len(task) for task in runs)
    return found | _named(dict(zip(STATISTICS, spread, strict=True)), fewest)


def improvement(first: Sequence[Returns], second: Sequence[Returns]) -> dict[str, Any]:
    """Return the probability that a run of `first` scores more than one of `second`, and its interval.

    A tie counts half, and tasks count alike (Agarwal et al. 2021, section 4.3). A run's score is the mean of its
    episodes; where a side has a single run, `of` says that single episodes were compared instead, which says nothing
    about other seeds.

    Args:
        first: the returns of each task.
        second: those of the others, of the same tasks.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    sides = [[checked(returns) for returns in side] for side in (first, second)]
    single = any(len(runs) == 1 for side in sides for runs in side)
    score = np.concatenate if single else _means

    def of(ours: Sequence[Runs], theirs: Sequence[Runs]) -> float:
        return float(np.mean([_above(score(a), score(b)) for a, b in zip(ours, theirs, strict=True)]))

    (spread,) = _bootstrap(lambda rng: [of(*([_resampled(runs, rng) for runs in side] for side in sides))])
    return {"probability": of(*sides), "ci95": list(spread), "of": "episodes" if single else "runs"}


def checked(returns: Returns) -> Runs:
    """Return the returns as arrays, one a seed.

    Raises:
        PlanetError: there is none, of some seed, or one is not finite.
    """
    runs = [np.asarray(run, np.float64) for run in returns]
    if not runs or not all(run.size for run in runs):
        raise PlanetError(f"returns of {[run.size for run in runs]} episodes: every seed needs at least one episode")
    if not all(np.isfinite(run).all() for run in runs):
        raise PlanetError("returns: one is not finite; look for the episode whose rewards are broken")
    return runs


def _bootstrap(of: Callable[[np.random.Generator], list[float]]) -> list[tuple[float, float]]:
    """Return the percentile interval of each number that `of` returns of a draw."""
    rng = np.random.default_rng(0)
    values = np.array([of(rng) for _ in range(RESAMPLES)])
    return [_ends(column) for column in values.T]


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(runs: Runs, rng: np.random.Generator) -> Runs:
    """Draw seeds, then the episodes of each."""
    drawn = [runs[k] for k in rng.integers(len(runs), size=len(runs))]
    return [run[rng.integers(run.size, size=run.size)] for run in drawn]


def _means(runs: Runs) -> np.ndarray:
    return np.array([run.mean() for run in runs])


def _above(first: np.ndarray, second: np.ndarray) -> float:
    """Return how often a value of `first` is above one of `second`, ties counted half: Mann and Whitney's U, scaled."""
    difference = first[:, None] - second
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def _named(spread: Mapping[str, tuple[float, float]], seeds: int) -> dict[str, list[float]]:
    kind = "episode_ci95" if seeds == 1 else "ci95"
    return {kind if name == "mean" else f"{name}_{kind}": list(ends) for name, ends in spread.items()}
