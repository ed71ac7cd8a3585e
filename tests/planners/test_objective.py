import torch

from planet_rssm.planners import Objective
from planet_rssm.planners.objective import rank
from planet_rssm.types import Rollout


def rollout(reward, discount):
    return Rollout(torch.tensor([[reward]]), torch.tensor([[discount]]), None)


def test_a_reward_counts_by_the_discounts_before_it():
    returns = Objective()(rollout([1.0, 10.0, 100.0], [0.5, 0.2, 0.0]))
    assert torch.equal(returns, torch.tensor([[1.0 + 0.5 * 10 + 0.5 * 0.2 * 100]]))


def test_the_last_reward_of_an_episode_counts_and_nothing_after_it():
    assert Objective()(rollout([1.0, 2.0, 4.0, 8.0], [1.0, 0.0, 1.0, 1.0])).item() == 3.0


def test_the_planner_discount_multiplies_by_step():
    returns = Objective(discount=0.5)(rollout([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]))
    assert returns.item() == 1.75


def test_everything_not_finite_ranks_last():
    ranked = rank(torch.tensor([[torch.nan, torch.inf, -torch.inf, -5.0]]))
    assert ranked.tolist() == [[-torch.inf, -torch.inf, -torch.inf, -5.0]]
