"""Returns and their scale, by hand."""

import pytest
import torch

from planet_rssm.behavior.returns import lambda_return, range_after, scale_of


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_lambda_returns_by_hand():
    returns = lambda_return(row(1, 2, 3), row(10, 20, 30), row(0.9, 0.5, 1), 0.8)
    # 3 + 30; 2 + 0.5 (0.2 * 20 + 0.8 * 33); 1 + 0.9 (0.2 * 10 + 0.8 * 17.2)
    torch.testing.assert_close(returns, row(15.184, 17.2, 33.0))


def test_a_trace_of_0_looks_one_step_ahead_and_1_at_all_rewards():
    reward = row(1, 2, 3)
    value = row(10, 20, 30)
    discount = row(0.9, 0.9, 0.9)
    torch.testing.assert_close(lambda_return(reward, value, discount, 0.0), row(10, 20, 30))
    torch.testing.assert_close(lambda_return(reward, value, discount, 1.0), row(27.1, 29, 30))


def test_nothing_is_seen_beyond_an_end():
    returns = lambda_return(row(1, 2, 3), row(10, 20, 30), row(0.9, 0, 0.9), 0.5)
    torch.testing.assert_close(returns[:, :2], row(1 + 0.9 * (5 + 1), 2))


def test_a_trace_of_its_own_for_each_step():
    returns = lambda_return(row(1, 2), row(10, 20), row(1, 1), row(0, 1))
    torch.testing.assert_close(returns, row(11, 22))


def test_the_range_moves_a_hundredth_of_the_way_to_the_percentiles():
    returns = torch.arange(101.0)[:, None]  # 5 and 95 are its percentiles
    bounds = range_after(torch.zeros(2), returns, torch.ones(101, dtype=torch.bool))
    torch.testing.assert_close(bounds, torch.tensor([0.05, 0.95]))
    torch.testing.assert_close(
        range_after(bounds, returns, torch.ones(101, dtype=torch.bool)), bounds * 1.99
    )


def test_rows_that_do_not_count_are_not_in_the_range():
    returns = torch.arange(101.0)[:, None]
    counted = torch.ones(102, dtype=torch.bool)
    counted[-1] = False
    bounds = range_after(torch.zeros(2), torch.cat([returns, torch.full((1, 1), 1e9)]), counted)
    torch.testing.assert_close(bounds, torch.tensor([0.05, 0.95]))


@pytest.mark.parametrize(("bounds", "scale"), [((0.0, 0.5), 1.0), ((-3.0, 4.0), 7.0)])
def test_small_returns_are_not_blown_up(bounds, scale):
    assert float(scale_of(torch.tensor(bounds))) == scale
