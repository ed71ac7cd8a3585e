import json

import numpy as np
import pytest
from scipy import stats

from planet_rssm.errors import PlanetError
from planet_rssm.evaluation.statistics import interval, iqm, summary


def test_one_seed_gives_the_closed_form_of_the_mean():
    values = np.random.default_rng(0).normal(100, 20, 400)
    low, high = interval([values])
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half)


def test_seeds_are_resampled_first():
    """Two seeds far apart, equal episodes each: a quarter of the draws is all low, a quarter all high."""
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


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([1000.0, 1, 2, 3, 4, -50, 5, 6])) == 3.5
    assert interval([[1.0, 2, 3, 4, 1e9]], iqm)[0] >= 1


def test_the_summary_is_json_and_names_its_interval():
    one, two = summary([[1.0, 2, 3]]), summary([[1.0, 2, 3], [2.0, 3, 4]])
    assert (one["mean"], one["median"], one["iqm"]) == (2, 2, 2)
    assert one["std"] == pytest.approx(np.sqrt(2 / 3))
    assert one["episode_ci95"][0] <= 2 <= one["episode_ci95"][1]
    assert "ci95" not in one and "ci95" in two and "episode_ci95" not in two
    assert json.loads(json.dumps(two)) == two == summary([[1.0, 2, 3], [2.0, 3, 4]])
    assert summary([[5.0]])["episode_ci95"] == [5.0, 5.0]


@pytest.mark.parametrize("returns", [[], [[]], [[1.0], []], [[1.0, np.nan]]])
def test_no_number_is_made_of_nothing(returns):
    with pytest.raises(PlanetError, match="returns"):
        summary(returns)
