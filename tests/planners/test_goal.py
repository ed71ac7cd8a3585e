import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import CEM, FunctionDynamics, Objective, goal_reward

NOTHING = torch.zeros(1, 1)


def test_a_point_goes_to_its_goal():
    settings = PlannerSettings(horizon=2, candidates=200, iterations=8, elites=20)
    planner = CEM(settings, 2)
    rng = torch.Generator().manual_seed(0)
    dynamics = FunctionDynamics(lambda s, a: s + a, goal_reward(torch.tensor([0.5, 0.1])))
    state = torch.tensor([[0.0, 0.0], [1.0, 0.3]])
    plan, _ = planner.plan(
        dynamics, Objective(), state, planner.initial(2), torch.tensor([True, True]), rng
    )
    assert (plan.action - torch.tensor([[0.5, 0.1], [-0.5, -0.2]])).abs().max() < 0.03


def test_weights_by_hand():
    following = {"x": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([3.0])}
    goal = {"x": torch.zeros(2), "v": torch.tensor(1.0)}
    assert goal_reward(goal)(None, NOTHING, following).tolist() == [-(1 + 4 + 4)]
    assert goal_reward(goal, 0.5)(None, NOTHING, following).tolist() == [-4.5]
    weight = {"x": torch.tensor([2.0, 0.0]), "v": 0.5}
    assert goal_reward(goal, weight)(None, NOTHING, following).tolist() == [-(2 + 2)]


def test_a_goal_of_another_shape_is_one_line():
    line = r"^goal of shape \(1, 2\): must be \(2,\), as one row of the state is; goals that differ"
    with pytest.raises(PlanetError, match=line):
        goal_reward(torch.zeros(1, 2))(None, NOTHING, torch.zeros(1, 2))
