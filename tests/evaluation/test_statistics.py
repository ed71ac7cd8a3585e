import json

import numpy as np
import pytest
from scipy import stats

from planet_rssm.base.errors import PlanetError
from planet_rssm.evaluation import statistics
from planet_rssm.evaluation.statistics import across_tasks, improvement, interval, iqm, summary


@pytest.fixture(autouse=True)
def as_many_draws_as_users_have(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 2000)


def test_one_seed_gives_the_closed_form_of_the_mean():
    values = np.random.default_rng(0).normal(100, 20, 400)
    low, high = interval([values])
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    np.testing.assert_allclose(
        [low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half
    )


def test_seeds_are_resampled_first():
    """Two seeds far apart, equal episodes each: a quarter of the draws is low, a quarter high."""
    assert interval([[0.0] * 10, [100.0] * 10]) == (0.0, 100.0)
    low, high = interval([[0.0] * 10 + [100.0] * 10])  # the same episodes of one seed
    assert 20 < low < 40 and 60 < high < 80


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        low, high = interval([rng.normal(5, 1, 30)])
        covered += low < 5 < high
    assert covered >= 52


def test_students_interval_holds_the_truth_as_often_as_it_says_and_the_bootstraps_does_not(
    monkeypatch,
):
    """Of 200 evaluations of 5 normal seeds that each have two like episodes: 95 %, against 83 %."""
    monkeypatch.setattr(statistics, "RESAMPLES", 150)  # quicker, and percentiles are rougher
    rng, worlds = np.random.default_rng(0), 200
    hits = dict.fromkeys(("ci95", "t95", "median_t95", "iqm_t95"), 0)
    for _ in range(worlds):
        result = json_of(summary, rng.normal(5, 1, 5)[:, None] + np.zeros((1, 2)))
        for kind in hits:
            hits[kind] += result[kind][0] < 5 < result[kind][1]
    share = {kind: 100 * count / worlds for kind, count in hits.items()}
    assert (
        all(share[kind] >= 92 for kind in ("t95", "median_t95", "iqm_t95")) and share["t95"] <= 98
    )
    assert share["ci95"] < 88  # COVERAGE has 83


def test_students_interval_of_a_mean_is_scipys():
    runs = np.random.default_rng(0).normal(700, 50, (4, 10))
    wanted = stats.t.interval(0.95, 3, runs.mean(), stats.sem(runs.mean(1)))
    np.testing.assert_allclose(json_of(summary, runs)["t95"], wanted)
    one = json_of(summary, runs[:1])["episode_t95"]  # of its episodes
    np.testing.assert_allclose(one, stats.t.interval(0.95, 9, runs[0].mean(), stats.sem(runs[0])))


def test_students_interval_over_tasks_is_welchs():
    """Two tasks of 3 and 5 runs: half the sum of two means, of variances s^2 / K each.

    The degrees of freedom are Satterthwaite's.
    """
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.1, (3, 1)), rng.normal(0.8, 0.3, (5, 1))
    welch = stats.ttest_ind(first[:, 0], -second[:, 0], equal_var=False).confidence_interval(
        0.95
    )  # of the sum
    np.testing.assert_allclose(
        json_of(across_tasks, [first, second])["t95"], [welch.low / 2, welch.high / 2]
    )


def test_of_one_episode_there_is_no_interval_by_t():
    assert json_of(summary, [[5.0]])["episode_t95"] is None
    assert json_of(summary, [[5.0], [5.0]])["t95"] == [5.0, 5.0]
    assert json_of(across_tasks, [[[5.0]], [[1.0, 2.0], [3.0]]])["episode_t95"] is None


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([1000.0, 1, 2, 3, 4, -50, 5, 6])) == 3.5
    assert interval([[1.0, 2, 3, 4, 1e9]], iqm)[0] >= 1


def test_the_summary_is_json_and_names_its_interval():
    one, two = json_of(summary, [[1.0, 2, 3]]), json_of(summary, [[1.0, 2, 3], [2.0, 3, 4]])
    assert (one["mean"], one["median"], one["iqm"]) == (2, 2, 2)
    assert one["std"] == pytest.approx(np.sqrt(2 / 3))
    assert one["episode_ci95"][0] <= 2 <= one["episode_ci95"][1]
    assert "ci95" not in one and "ci95" in two and "episode_ci95" not in two
    assert json.loads(json.dumps(two)) == two == json_of(summary, [[1.0, 2, 3], [2.0, 3, 4]])
    assert json_of(summary, [[5.0]])["episode_ci95"] == [5.0, 5.0]


@pytest.mark.parametrize("returns", [[], [[]], [[1.0], []], [[1.0, np.nan]]])
def test_no_number_is_made_of_nothing(returns):
    with pytest.raises(PlanetError, match="returns"):
        json_of(summary, returns)


# Scores of 10 runs on 3 tasks, drawn at random; and what rliable 1.2.0 says of them:
# aggregate_mean, aggregate_median, aggregate_iqm, probability_of_improvement, and the ends of
# get_interval_estimates with 20 000 resamples (4000 for the last).
A = np.array([
    [0.6842, 0.8711, -0.0064], [0.589, 0.8405, 0.4623], [0.6523, 0.8599, 0.3348],
    [0.6441, 0.8071, 0.1711], [0.5323, 0.8152, 0.2304], [0.7017, 0.8517, 0.5159],
    [0.5979, 0.8553, 0.1913], [0.5347, 0.8033, 0.3338], [0.4721, 0.7308, 0.3426],
    [0.531, 0.8483, 0.3473],
])  # fmt: skip
B = np.array([
    [0.5846, 0.8283, 0.4575], [0.5478, 0.8634, 0.2869], [0.542, 0.7928, 0.4217],
    [0.5629, 0.7855, 0.5902], [0.5309, 0.8153, 0.3973], [0.6998, 0.8141, 0.4344],
    [0.5679, 0.7614, 0.445], [0.6417, 0.8104, 0.3481], [0.4399, 0.7591, 0.303],
    [0.6101, 0.8012, 0.385],
])  # fmt: skip
RLIABLE = {"mean": 0.57152, "median": 0.59393, "iqm": 0.600375}
RLIABLE_ENDS = {
    "ci95": (0.53616, 0.60434),
    "median_ci95": (0.54957, 0.63834),
    "iqm_ci95": (0.56389, 0.63424),
}
RLIABLE_IMPROVEMENT, RLIABLE_IMPROVEMENT_ENDS = 0.52, (0.37992, 0.66333)


def json_of(statistic, *returns) -> dict:
    return statistic(*returns).to_json()


def by_task(scores: np.ndarray) -> list[list[list[float]]]:
    """Each run's score as that of its only episode."""
    return [[[score] for score in task] for task in scores.T]


def test_over_tasks_the_numbers_are_rliables():
    result = json_of(across_tasks, by_task(A))
    assert {name: result[name] for name in RLIABLE} == pytest.approx(RLIABLE, abs=1e-12)
    for name, ends in RLIABLE_ENDS.items():
        np.testing.assert_allclose(
            result[name], ends, atol=0.005
        )  # both are drawn: 0.005 is 7 % of an interval
    assert iqm(A) == pytest.approx(RLIABLE["iqm"], abs=1e-12)
    assert json_of(summary, A)["iqm"] == pytest.approx(RLIABLE["iqm"], abs=1e-12)


def test_the_probability_of_improvement_is_rliables():
    result = json_of(improvement, by_task(A), by_task(B))
    assert result["of"] == "runs"
    assert result["probability"] == pytest.approx(RLIABLE_IMPROVEMENT, abs=1e-12)
    np.testing.assert_allclose(result["ci95"], RLIABLE_IMPROVEMENT_ENDS, atol=0.02)


def test_improvement_by_hand():
    """One task, two runs a side of two episodes: means 2, 5 against 2, 3; a tie counts half."""
    result = json_of(improvement, [[[1.0, 3.0], [5.0, 5.0]]], [[[2.0, 2.0], [0.0, 6.0]]])
    assert (result["probability"], result["of"]) == ((0.5 + 0 + 1 + 1) / 4, "runs")
    single = json_of(improvement, [[[1.0, 3.0]]], [[[2.0, 2.0], [0.0, 6.0]]])
    assert (single["probability"], single["of"]) == ((0.25 + 0.75) / 2, "episodes")


def test_runs_of_different_lengths_count_by_episode():
    result = json_of(summary, [[1.0], [2.0, 3.0, 4.0]])
    assert (result["mean"], result["median"], result["iqm"]) == (2.5, 2.5, 2.5)
    assert result["ci95"][0] == 1.0 and result["iqm_ci95"][0] == 1.0
