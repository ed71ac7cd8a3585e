from typing import NamedTuple

import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.planners import FunctionDynamics


class Place(NamedTuple):
    x: torch.Tensor
    extra: dict[str, tuple[torch.Tensor, ...]]


def add(state, action):
    return Place(state.x + action, {"count": (state.extra["count"][0] + 1,)})


def test_each_candidate_starts_from_the_state_of_its_own_row():
    # the original PlaNet tiles states amount-major under batch-major actions, which is wrong for B
    # > 1
    state = Place(torch.tensor([[10.0], [20.0]]), {"count": (torch.tensor([0, 100]),)})
    actions = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(2, 3, 4, 1)
    rollout = FunctionDynamics(add, lambda s, a, y: y.x[:, 0]).rollout(state, actions)
    assert rollout.reward[0, :, 0].tolist() == [11.0, 12.0, 13.0]
    assert rollout.reward[1, 2].tolist() == [23.0, 26.0, 29.0, 32.0]
    assert rollout.last.x.tolist() == [[[14.0], [18.0], [22.0]], [[24.0], [28.0], [32.0]]]
    assert rollout.last.extra["count"][0].tolist() == [[4, 4, 4], [104, 104, 104]]
    assert torch.equal(rollout.discount, torch.ones(2, 3, 4))


def test_reward_and_discount_see_the_state_before_the_action_and_the_one_after():
    def reward(state, action, following):
        return 100 * state[:, 0] + 10 * action[:, 0] + following[:, 0]

    dynamics = FunctionDynamics(
        lambda s, a: s + a, reward, discount=lambda s, a, y: (y[:, 0] < 5).float()
    )
    rollout = dynamics.rollout(torch.tensor([[1.0]]), torch.full((1, 1, 2, 1), 2.0))
    assert rollout.reward.tolist() == [[[123.0, 325.0]]]
    assert rollout.discount.tolist() == [[[1.0, 0.0]]]


def test_gradients_reach_the_actions():
    actions = torch.zeros(1, 2, 3, 1, requires_grad=True)
    dynamics = FunctionDynamics(lambda s, a: s + a, lambda s, a, y: y[:, 0])
    dynamics.rollout(torch.zeros(1, 1), actions).reward.sum().backward()
    assert actions.grad[0, 0, :, 0].tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("name", ["reward", "discount"])
def test_a_column_instead_of_a_row_of_numbers_is_refused(name):
    functions = {
        "reward": lambda s, a, y: y[:, 0],
        "discount": lambda s, a, y: y[:, 0],
        name: lambda s, a, y: y,
    }
    dynamics = FunctionDynamics(lambda s, a: s + a, **functions)
    with pytest.raises(PlanetError, match=rf"{name} of shape \(6, 1\): must be \(6,\)"):
        dynamics.rollout(torch.zeros(2, 1), torch.zeros(2, 3, 4, 1))
