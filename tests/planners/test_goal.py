import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.errors import PlanetError
from planet_rssm.planners import CEM, FunctionDynamics, Objective, goal_reward


def test_every_row_goes_to_its_goal():
    goals = torch.tensor([[0.5, 0.0], [-0.3, 0.2]])
    settings = PlannerSettings(horizon=2, candidates=200, iterations=8, elites=20)
    planner, rng = CEM(settings, 2), torch.Generator().manual_seed(0)
    state, first = torch.zeros(2, 2), torch.tensor([True, True])
    for goal, expected in ((goals, goals), (goals[0], goals[:1].expand(2, 2))):
        dynamics = FunctionDynamics(lambda s, a: s + a, goal_reward(goal))
        plan, _ = planner.plan(dynamics, Objective(), state, planner.initial(2), first, rng)
        torch.testing.assert_close(plan.action, expected, atol=0.03, rtol=0)


def test_weights_by_hand():
    following = {"x": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([3.0])}
    goal = {"x": torch.zeros(2), "v": torch.tensor(1.0)}
    none = torch.zeros(1, 1)
    assert goal_reward(goal)(None, none, following).tolist() == [-(1 + 4 + 4)]
    weight = {"x": torch.tensor([2.0, 0.0]), "v": torch.tensor(0.5)}
    assert goal_reward(goal, weight)(None, none, following).tolist() == [-(2 + 2)]
    with pytest.raises(PlanetError, match="^weight of a goal: .*must be built as the goal is$"):
        goal_reward(goal, torch.ones(2))
