"""Scored candidates whose result is known: the simulator, its negative, a biased model."""

import numpy as np
import pytest
import torch

from planet_rssm.config import Settings
from planet_rssm.diagnosis.diagnose_run import limit
from planet_rssm.diagnosis.model_accuracy import (
    Bin,
    Moment,
    ScoredCandidates,
    by_episode,
    calibration,
    horizons_of,
    model_accuracy,
    reached,
    returns_by_horizon,
    spearman,
)
from planet_rssm.evaluation.statistics import Estimate
from planet_rssm.planners import Objective

HORIZON = Settings().planner.horizon


def moments(said, count=3, claimed=0.0) -> list[Moment]:
    """Moments of random real rewards; the model predicts `said(real)` in each of two futures."""
    rng = np.random.default_rng(0)

    def candidates(sequences):
        real, discount = rng.normal(size=(sequences, HORIZON)), np.ones((sequences, HORIZON))
        return ScoredCandidates(
            np.stack([said(real)] * 2), np.stack([discount] * 2), real, discount
        )

    return [
        Moment(
            episode,
            claimed,
            {"random": candidates(20), "planned": candidates(10), "chosen": candidates(1)},
        )
        for episode in range(count)
    ]


def accuracy(moments, settings, terminates) -> dict:
    return model_accuracy(moments, settings, terminates).to_json()


def means(cells) -> list[float]:
    return [cell["mean"] for cell in cells]


def test_a_model_that_is_the_simulator_ranks_all_right_and_expects_what_comes():
    result = accuracy(moments(lambda real: real), Settings(), False)
    assert result["horizons"] == [1, 2, 4, 8, 12]
    for kind in ("random", "planned"):
        for futures in ("one", "mean"):
            assert means(result["rank_correlation"][kind][futures]) == pytest.approx([1.0] * 5)
    assert means(result["optimism"]) == pytest.approx([0.0] * 5)
    for part in result["reward_calibration"]:
        assert part["predicted"] == pytest.approx(part["real"])
    assert result["continue_calibration"] is None
    assert result["moments"] == 3


def test_a_model_of_negated_rewards_ranks_all_wrong():
    result = accuracy(moments(lambda real: -real), Settings(), False)
    assert means(result["rank_correlation"]["planned"]["one"]) == pytest.approx([-1.0] * 5)
    calibrated = result["reward_calibration"]
    assert [part["real"] for part in calibrated] == pytest.approx(
        [-part["predicted"] for part in calibrated]
    )


def test_a_model_that_promises_half_more_a_step_is_that_optimistic_and_ranks_right():
    result = accuracy(moments(lambda real: real + 0.5), Settings(), False)
    assert means(result["optimism"]) == pytest.approx([0.5, 1, 2, 4, 6])
    assert means(result["rank_correlation"]["random"]["mean"]) == pytest.approx([1.0] * 5)


def test_what_the_simulator_broke_on_does_not_count():
    scored = moments(lambda real: real)
    scored[0].candidates["planned"].real_reward[0, 3:] = np.nan
    scored[1].candidates["chosen"].real_reward[0, 3:] = np.nan
    result = accuracy(scored, Settings(), False)
    assert means(result["rank_correlation"]["planned"]["one"]) == pytest.approx([1.0] * 5)
    assert means(result["optimism"]) == pytest.approx([0.0] * 5)
    assert sum(part["count"] for part in result["reward_calibration"]) == 3 * 30 * HORIZON - (
        HORIZON - 3
    )


def test_ends_are_calibrated_where_there_are_any_and_nothing_after_them_counts():
    scored = moments(lambda real: real, count=1)
    for kind, sequences in (("random", 20), ("planned", 10)):
        scored[0].candidates[kind].real_discount[:, 4] = 0
        scored[0].candidates[kind].discount[:] = 0.5
        assert reached(scored[0].candidates[kind].real_discount).sum() == 5 * sequences
    [part] = accuracy(scored, Settings(), True)["continue_calibration"]
    assert part == {"predicted": 0.5, "real": pytest.approx(0.8), "count": 150}


def test_rank_correlation_by_hand():
    one = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 1, 2, 2], [5, 5, 5, 5]])
    other = np.array([[10.0, 20, 30, 1000], [4, 3, 2, 1], [3, 3, 9, 9], [1, 2, 3, 4]])
    np.testing.assert_allclose(spearman(one, other), [1, -1, 1, np.nan])
    np.testing.assert_allclose(
        spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])), 0.5
    )  # 1 - 6·2 / (3·8)


def test_returns_are_those_of_the_objective_cut_short():
    reward = torch.tensor([[1.0, 2, 4, 8]])
    ends = torch.tensor([[1.0, 0, 1, 1]])
    worth = returns_by_horizon(reward, ends, [1, 2, 4], Objective(0.5))
    torch.testing.assert_close(worth, torch.tensor([[1.0, 2.0, 2.0]]))


@pytest.mark.parametrize(
    ("longest", "horizons"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_horizons_double_up_to_the_planners(longest, horizons):
    assert horizons_of(longest) == horizons


def test_intervals_keep_an_episodes_numbers_together():
    estimate = by_episode([1.0, 1.0, np.nan, 3.0], [0, 0, 0, 1])
    assert estimate.mean == pytest.approx(5 / 3)
    assert estimate.episode_ci95 == [1.0, 3.0]
    assert by_episode([np.nan], [0]) is None


def test_bins_hold_equal_shares_and_equal_numbers_stay_together():
    predicted = np.arange(100.0)
    parts = calibration(predicted, predicted + 1, bins=4)
    assert [part.count for part in parts] == [25] * 4
    assert all(part.real == part.predicted + 1 for part in parts)
    [alone] = calibration(np.zeros(7), np.arange(7.0))
    assert alone == Bin(predicted=0.0, real=3.0, count=7)


def test_the_sentence_names_the_largest_gain_or_says_that_none_is_certain():
    gains = {
        "planner": Estimate(20.0, [-5.0, 44.0]),
        "model": Estimate(310.4, [250.0, 370.0]),
    }
    assert limit(gains) == "what limits this run: the model (+310, 95 % 250 to 370)"
    del gains["model"]
    assert limit(gains).startswith(
        "no part limits this run beyond the chance of its episodes; nearest to it: the pla"
    )
