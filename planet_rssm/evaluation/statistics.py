"""Statistics of returns: mean, spread, interquartile mean, intervals, probability of improvement.

On equal arrays these are the numbers of rliable (Agarwal et al. 2021, arXiv 2108.13264). Beyond it,
the intervals resample the episodes within a run too. Percentile intervals of a few seeds are too
narrow, see COVERAGE, so Student's stand beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit  # Student's quantiles, without the weight of scipy.stats

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json

LEVEL = 0.95
RESAMPLES = 2000

# How often, in per cent, the bootstrap's 95 % interval of the mean contains the true mean, by the
# number of seeds: counted in thousands of evaluations of normal seeds. With 10 it is 89, with 20 it
# is 92. It is more at any number where the episodes of a seed differ more than the seeds do.
COVERAGE = {2: 49, 3: 75, 4: 80, 5: 83, 6: 86, 7: 87, 8: 89, 9: 89}

# one inner sequence a training seed, one value an episode
Returns = Sequence[Sequence[float] | np.ndarray]
Runs = list[np.ndarray]  # the same, checked
Statistic = Callable[..., "float | np.ndarray"]  # of values, and of an `axis` of them, as np.mean


@dataclass(frozen=True)
class Summary:
    """Mean, median and interquartile mean of returns, with two 95 % intervals of each."""

    mean: float
    median: float
    iqm: float
    std: float | None  # of the episodes about their mean; None over several tasks
    ci95: dict[str, list[float]]  # the bootstrap's, by statistic
    t95: dict[str, list[float] | None]  # Student's, by statistic; None: too few values
    seeds: int  # 1: the intervals are of episodes, and say nothing about other seeds

    def to_json(self) -> Json:
        """Return the numbers by name.

        The mean's interval is `ci95`, of a single seed `episode_ci95`; the others are `median_ci95`
        and so on.
        """
        values = {name: getattr(self, name) for name in STATISTICS}
        spread = {} if self.std is None else {"std": self.std}
        return values | spread | self._named(self.ci95, "ci95") | self._named(self.t95, "t95")

    def _named(self, intervals: Mapping[str, list[float] | None], kind: str) -> Json:
        kind = f"episode_{kind}" if self.seeds == 1 else kind
        return {
            kind if name == "mean" else f"{name}_{kind}": ends for name, ends in intervals.items()
        }


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes, and its 95 % interval by resampling them."""

    mean: float
    episode_ci95: list[float]

    def to_json(self) -> dict[str, float | list[float]]:
        """Return the numbers by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class Improvement:
    """How probably a run of one group scores more than one of another; see `improvement`."""

    probability: float
    ci95: list[float]
    of: str  # what was compared: runs, or episodes

    def to_json(self) -> dict[str, float | list[float] | str]:
        """Return the numbers by name."""
        return dict(vars(self))


def iqm(values: np.ndarray, axis: int | None = None) -> Any:  # noqa: ANN401 (float or array)
    """Return the mean of the middle half of the values (Agarwal et al. 2021)."""
    ordered = np.sort(values, axis=axis)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


STATISTICS: dict[str, Statistic] = {"mean": np.mean, "median": np.median, "iqm": iqm}


def interval(returns: Returns, statistic: Statistic = np.mean) -> tuple[float, float]:
    """Return the 95 % bootstrap percentile interval of a statistic of all episodes.

    Equal returns give equal numbers. Seeds are resampled first, then the episodes of each drawn
    seed, because episodes of one seed share its model. With one seed only episodes are resampled:
    that interval says nothing about other seeds and is named `episode_ci95`. With a handful of
    seeds or episodes percentile intervals are too narrow; show the single values too.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    return intervals(returns, {"": statistic})[""]


def intervals(
    returns: Returns, statistics: Mapping[str, Statistic]
) -> dict[str, tuple[float, float]]:
    """Return the intervals of several statistics by name, from the same draws; see `interval`."""
    return {name: _ends(values) for name, values in _draws(checked(returns), statistics).items()}


def _draws(runs: Runs, statistics: Mapping[str, Statistic]) -> dict[str, np.ndarray]:
    """Return the values of each statistic in all draws."""
    rng = np.random.default_rng(0)
    # by size: draws differ in it where runs have different numbers of episodes
    draws: dict[int, list[np.ndarray]] = {}
    for _ in range(RESAMPLES):
        episodes = np.concatenate(_resampled(runs, rng))
        draws.setdefault(episodes.size, []).append(episodes)
    stacks = [np.stack(alike) for alike in draws.values()]
    return {
        name: np.concatenate([statistic(stack, axis=-1) for stack in stacks])
        for name, statistic in statistics.items()
    }


def summary(returns: Returns) -> Summary:
    """Return what is known of the returns of the seeds of one group.

    Raises:
        PlanetError: there is no return, or one is not finite.
    """
    runs = checked(returns)
    episodes = np.concatenate(runs)
    values = {name: float(statistic(episodes)) for name, statistic in STATISTICS.items()}
    return _summary(values, float(episodes.std()), _draws(runs, STATISTICS), [runs])


def _summary(
    values: Mapping[str, float],
    std: float | None,
    draws: Mapping[str, np.ndarray],
    tasks: Sequence[Runs],
) -> Summary:
    return Summary(
        **values,
        std=std,
        ci95={name: list(_ends(drawn)) for name, drawn in draws.items()},
        t95=student(values, draws, tasks),
        seeds=min(len(runs) for runs in tasks),
    )


def student(
    values: Mapping[str, float], draws: Mapping[str, np.ndarray], tasks: Sequence[Runs]
) -> dict[str, list[float] | None]:
    """Return 95 % intervals by Student's t, which contain the true value at few seeds too.

    The mean's is the exact one of normal seeds: of the runs' means, with several tasks by Welch and
    Satterthwaite. The others have t times the bootstrap's deviation, which is too small by sqrt((K
    - 1) / K) of K seeds, about the number itself: they contain it at least as often as they say. A
    task of a single run counts its episodes as seeds; where there is only one episode there is no
    interval, None.

    Args:
        values: mean, median and iqm.
        draws: the bootstrap's of each.
        tasks: the runs of each task.
    """
    units = [_means(runs) if len(runs) > 1 else runs[0] for runs in tasks]
    fewest = min(one.size for one in units)
    if fewest < 2:
        return dict.fromkeys(values, None)
    beyond = (1 + LEVEL) / 2
    stretch = stdtrit(fewest - 1, beyond) * np.sqrt(fewest / (fewest - 1))
    halves = {name: float(stretch * draws[name].std()) for name in values}
    halves["mean"] = _half(tasks, units, beyond)
    return {name: [value - halves[name], value + halves[name]] for name, value in values.items()}


def _half(tasks: Sequence[Runs], units: Sequence[np.ndarray], beyond: float) -> float:
    """Return half the interval of the mean of the tasks' means.

    The `units` of each task are independent draws.
    """
    parts = []
    for runs, values in zip(tasks, units, strict=True):
        sizes = np.ones(values.size)
        if len(runs) > 1:
            sizes = np.array([run.size for run in runs], float)
        weights = np.square(sizes / sizes.sum()).sum()  # of one task, as the mean weighs its runs
        share = weights if len(tasks) == 1 else 1 / values.size
        parts.append((values.var(ddof=1) * share, values.size - 1))
    total = sum(part for part, _ in parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(part**2 / of for part, of in parts)
    return float(stdtrit(freedom, beyond) * np.sqrt(total) / len(tasks))


def across_tasks(tasks: Sequence[Returns]) -> Summary:
    """Return mean, median and iqm over tasks and their intervals.

    The returns must be on a common scale. A run's score is the mean of its episodes. `mean` and
    `median` are of the tasks' mean scores, `iqm` of the scores of all runs of all tasks, as in
    rliable. Draws are made within each task.

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

    values = dict(zip(STATISTICS, of(runs), strict=True))
    columns = _bootstrap(lambda rng: of([_resampled(task, rng) for task in runs])).T
    draws = dict(zip(STATISTICS, columns, strict=True))
    return _summary(values, None, draws, runs)


def improvement(first: Sequence[Returns], second: Sequence[Returns]) -> Improvement:
    """Return the probability that a run of `first` scores more than one of `second`.

    A tie counts half, and tasks count alike (Agarwal et al. 2021, section 4.3). A run's score is
    the mean of its episodes; where a side has a single run, `of` says that single episodes were
    compared instead, which says nothing about other seeds.

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
        return float(
            np.mean([_above(score(a), score(b)) for a, b in zip(ours, theirs, strict=True)])
        )

    def of_draw(rng: np.random.Generator) -> list[float]:
        ours, theirs = ([_resampled(runs, rng) for runs in side] for side in sides)
        return [of(ours, theirs)]

    draws = _bootstrap(of_draw)
    return Improvement(
        probability=of(sides[0], sides[1]),
        ci95=list(_ends(draws[:, 0])),
        of="episodes" if single else "runs",
    )


def checked(returns: Returns) -> Runs:
    """Return the returns as arrays, one a seed.

    Raises:
        PlanetError: there is none, of some seed, or one is not finite.
    """
    runs = [np.asarray(run, np.float64) for run in returns]
    if not runs or not all(run.size for run in runs):
        sizes = [run.size for run in runs]
        raise PlanetError(f"returns of {sizes} episodes: every seed needs at least one episode")
    if not all(np.isfinite(run).all() for run in runs):
        raise PlanetError(
            "returns: one is not finite; look for the episode whose rewards are broken"
        )
    return runs


def _bootstrap(of: Callable[[np.random.Generator], list[float]]) -> np.ndarray:
    """Return the numbers that `of` returns of each draw, [RESAMPLES, numbers]."""
    rng = np.random.default_rng(0)
    return np.array([of(rng) for _ in range(RESAMPLES)])


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
    """Return how often a value of `first` is above one of `second`, a tie counted as half.

    This is Mann and Whitney's U, scaled.
    """
    difference = first[:, None] - second
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
