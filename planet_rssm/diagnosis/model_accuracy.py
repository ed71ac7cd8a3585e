"""How well a model predicts what sequences of actions are worth, beside the simulator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings
from planet_rssm.evaluation.statistics import Estimate, interval
from planet_rssm.planners import Objective
from planet_rssm.types import Rollout

BINS = 10
KINDS = ("random", "planned", "chosen")  # of candidates

ByHorizon = list[Estimate | None]
Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rewards and discounts, by horizon


class ScoredCandidates(NamedTuple):
    """N sequences from one state of an episode, by the model and by the simulator; all float64.

    The model imagines S futures of each.
    """

    reward: np.ndarray  # [S, N, H], the model's
    discount: np.ndarray  # [S, N, H], the model's
    real_reward: np.ndarray  # [N, H]
    real_discount: np.ndarray  # [N, H]


class Moment(NamedTuple):
    """What was scored at one decision."""

    episode: int  # as they began
    claimed: float  # the return that the planner expected of its plan; NaN: not comparable
    # by KINDS: random sequences, the last round's or the actor's, and the chosen plan alone
    candidates: dict[str, ScoredCandidates]


@dataclass(frozen=True)
class Bin:
    """The mean of some predictions, and of what was real."""

    predicted: float
    real: float
    count: int

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class ModelAccuracy:
    """How well a model ranks and values candidates; lists are by horizon."""

    moments: int
    horizons: list[int]  # agent steps
    # Spearman's, of random and of planned candidates: with `one` future of each, as the planner has
    # it, and with the `mean` of all futures
    rank_correlation: dict[str, dict[str, ByHorizon]]
    optimism: ByHorizon  # return of the chosen plan in the model, less the real one
    claimed: Estimate | None  # return that the planner expected, less the real one
    reward_calibration: list[Bin]
    continue_calibration: list[Bin] | None  # None: episodes do not terminate

    def to_json(self) -> Json:
        """Return the part of what `planet diagnose --json` prints."""
        continues = self.continue_calibration
        return {
            "moments": self.moments,
            "horizons": self.horizons,
            "rank_correlation": {
                kind: {name: _cells(row) for name, row in rows.items()}
                for kind, rows in self.rank_correlation.items()
            },
            "optimism": _cells(self.optimism),
            "claimed": None if self.claimed is None else self.claimed.to_json(),
            "reward_calibration": _bins(self.reward_calibration),
            "continue_calibration": None if continues is None else _bins(continues),
        }


def _cells(row: ByHorizon) -> list[Json | None]:
    return [None if cell is None else cell.to_json() for cell in row]


def _bins(bins: list[Bin]) -> list[dict[str, float]]:
    return [one.to_json() for one in bins]


def model_accuracy(
    moments: Sequence[Moment], settings: Settings, terminates: bool
) -> ModelAccuracy:
    """Return how well the model ranks and values the candidates of the scored moments.

    Args:
        moments: at least one.
        settings: of the run: its planner's horizon and discount count.
        terminates: whether its episodes may end by themselves.
    """
    horizons = horizons_of(settings.planner.horizon)
    objective = Objective(settings.planner.discount)

    def worth(reward: np.ndarray, discount: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(reward)
        return returns_by_horizon(given, torch.from_numpy(discount), horizons, objective).numpy()

    episodes = [moment.episode for moment in moments]
    claimed, optimism = [], []
    for moment in moments:
        predicted, real = _worths(moment.candidates["chosen"], worth)
        known = len(real) > 0  # else the simulator broke down
        claimed.append(moment.claimed - real[0, -1] if known else np.nan)
        optimism.append((predicted.mean(0) - real)[0] if known else np.full(len(horizons), np.nan))
    return ModelAccuracy(
        moments=len(moments),
        horizons=horizons,
        rank_correlation={
            kind: _rank_correlation(moments, kind, worth) for kind in ("random", "planned")
        },
        optimism=_by_horizon(optimism, episodes),
        claimed=by_episode(claimed, episodes),
        reward_calibration=_calibration(moments, "reward"),
        continue_calibration=_calibration(moments, "discount") if terminates else None,
    )


def _rank_correlation(moments: Sequence[Moment], kind: str, worth: Worth) -> dict[str, ByHorizon]:
    episodes = [moment.episode for moment in moments]
    one, mean = [], []
    for moment in moments:
        predicted, real = _worths(moment.candidates[kind], worth)
        futures = predicted.swapaxes(1, 2)  # [S, K, N]
        one.append(spearman(futures, np.broadcast_to(real.T, futures.shape)).mean(0))
        mean.append(spearman(predicted.mean(0).T, real.T))
    return {"one": _by_horizon(one, episodes), "mean": _by_horizon(mean, episodes)}


def _worths(candidates: ScoredCandidates, worth: Worth) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted [S, N, K] and real returns [N, K] of candidates.

    Sequences on which the simulator broke down are left out.
    """
    real = worth(candidates.real_reward, candidates.real_discount)
    finite = np.isfinite(real).all(-1)
    return worth(candidates.reward, candidates.discount)[:, finite], real[finite]


def _by_horizon(values: Sequence[np.ndarray], episodes: Sequence[int]) -> ByHorizon:
    """Return for each horizon the mean and interval of numbers [K], one array a moment."""
    return [by_episode(list(column), episodes) for column in zip(*values, strict=True)]


def _calibration(moments: Sequence[Moment], name: str) -> list[Bin]:
    """Return bins of a head's mean over futures beside the truth, at every step that is reached."""
    predicted, real = [], []
    for moment in moments:
        for kind in ("random", "planned"):
            candidates = moment.candidates[kind]
            counts = reached(candidates.real_discount) & np.isfinite(candidates.real_reward)
            predicted.append(getattr(candidates, name).mean(0)[counts])
            real.append(getattr(candidates, f"real_{name}")[counts])
    return calibration(np.concatenate(predicted), np.concatenate(real))


def horizons_of(longest: int) -> list[int]:
    """Return 1, 2, 4, … below `longest`, and `longest` itself."""
    return [2**power for power in range(longest.bit_length()) if 2**power < longest] + [longest]


def returns_by_horizon(
    reward: Tensor, discount: Tensor, horizons: Sequence[int], objective: Objective
) -> Tensor:
    """Return what the first steps of sequences [..., H] are worth, [..., K], one a horizon."""
    parts = (Rollout(reward[..., :horizon], discount[..., :horizon], None) for horizon in horizons)
    return torch.stack([objective(part) for part in parts], -1)


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the rank correlations [...] of numbers [..., N]; NaN where all are equal.

    Ties share their mean rank.
    """
    ranks = [stats.rankdata(values, axis=-1) for values in (one, other)]
    first, second = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.divide(
        (first * second).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0
    )


def by_episode(values: Sequence[np.ndarray | float], episodes: Sequence[int]) -> Estimate | None:
    """Return the mean of numbers that belong to episodes, and its 95 % interval.

    NaN do not count; None if all are. Numbers of one episode go together: the interval resamples
    episodes, then the numbers of each.
    """
    groups: dict[int, list[float]] = {}
    for value, episode in zip(values, episodes, strict=True):
        if np.isfinite(value):
            groups.setdefault(episode, []).append(float(value))
    if not groups:
        return None
    mean = np.mean([value for group in groups.values() for value in group])
    return Estimate(float(mean), list(interval(list(groups.values()))))


def calibration(predicted: np.ndarray, real: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Return the means of both by bins of the predictions, as many in each as ties allow.

    Args:
        predicted: numbers [M].
        real: [M].
        bins: at most so many.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="right")
    return [
        Bin(float(predicted[inside].mean()), float(real[inside].mean()), int(inside.sum()))
        for inside in (place == index for index in range(len(edges) + 1))
        if inside.any()
    ]


def reached(discount: np.ndarray) -> np.ndarray:
    """Return which steps of sequences [..., H] are reached before the episode ends."""
    continues = discount.cumprod(-1) > 0
    return np.concatenate([np.ones_like(continues[..., :1]), continues[..., :-1]], -1)
