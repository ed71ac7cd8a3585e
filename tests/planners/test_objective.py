import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import CEM, FunctionDynamics, Objective, score
from planet_rssm.planners.objective import rank, risk_adjusted
from planet_rssm.types import Dynamics, Rollout

FIRST = torch.tensor([True])


def rollout(reward, discount, **more):
    return Rollout(torch.tensor([[reward]]), torch.tensor([[discount]]), **({"last": None} | more))


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


def test_the_last_state_is_worth_what_is_left_after_every_discount():
    objective = Objective(0.5, terminal_value=lambda state: state["x"][:, 0])
    last = {"x": torch.tensor([[[16.0]]])}
    assert (
        objective(rollout([1.0, 2.0], [1.0, 0.5], last=last)).item()
        == 1 + 0.5 * 2 + 0.5 * 0.25 * 16
    )
    assert objective(rollout([1.0, 2.0], [1.0, 0.0], last=last)).item() == 2  # the episode is over


def test_costs_see_the_state_the_action_is_taken_in_and_the_action_before():
    calls = []

    def cost(state, action, previous):
        calls.append((state[:, 0].tolist(), action[:, 0].tolist(), previous[:, 0].tolist()))
        return (action - previous)[:, 0].square()

    dynamics = FunctionDynamics(lambda s, a: s + a, lambda s, a, y: 0 * a[:, 0])
    sequences = torch.tensor([[0.5, 0.5, -0.5], [0.0, 1.0, 1.0]]).reshape(1, 2, 3, 1)
    given = (dynamics, Objective(cost=cost), torch.tensor([[7.0]]), sequences, None)
    assert score(*given, previous=torch.tensor([[0.5]])).tolist() == [[-1.0, -1.25]]
    assert calls[0] == (
        [7.0, 7.5, 8.0, 7.0, 7.0, 8.0],
        [0.5, 0.5, -0.5, 0, 1, 1],
        [0.5, 0.5, 0.5, 0.5, 0, 1],
    )
    assert score(*given).tolist() == [[-1.25, -1.0]]  # before is rest


def test_a_cost_makes_smooth_plans():
    dynamics = FunctionDynamics(
        lambda s, a: -s, lambda s, a, y: 0.1 * s[:, 0] * a[:, 0]
    )  # pays for alternating
    planner = CEM(PlannerSettings(horizon=4, candidates=200, iterations=5, elites=20), 1)

    def sequence(cost):
        rng = torch.Generator().manual_seed(0)
        objective = Objective(cost=cost)
        return planner.plan(dynamics, objective, torch.ones(1, 1), planner.initial(1), FIRST, rng)[
            0
        ].sequence

    assert sequence(None).diff(dim=1).abs().mean() > 1.5
    assert (
        sequence(lambda s, a, before: (a - before).square().sum(1)).diff(dim=1).abs().mean() < 0.3
    )


def test_a_cost_where_no_states_are_told_is_one_line():
    class Silent(Dynamics):
        differentiable = False

        def noise_shape(self, batch, candidates, horizon):
            return None

        def rollout(self, state, actions, noise):
            return Rollout(actions[..., 0], torch.ones_like(actions[..., 0]), state)

    planner = CEM(PlannerSettings(horizon=2, candidates=4, elites=2), 1)
    objective = Objective(cost=lambda s, a, p: a[:, 0])
    with pytest.raises(
        PlanetError, match="^cost: Silent does not return the states on the way; give it a trace"
    ):
        planner.plan(Silent(), objective, torch.zeros(1, 1), planner.initial(1), FIRST)
    with pytest.raises(PlanetError, match="^cost: the rollout has no states"):
        objective(rollout([1.0], [1.0]))


@pytest.mark.parametrize(("name", "rows"), [("cost", 8), ("terminal_value", 4)])
def test_a_column_instead_of_a_row_of_numbers_is_one_line(name, rows):
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: a[:, 0])
    planner = CEM(PlannerSettings(horizon=2, candidates=4, elites=2), 1)
    objective = Objective(**{name: lambda state, *actions: state})
    with pytest.raises(
        PlanetError,
        match=rf"^{name} of shape \({rows}, 1\): must be \({rows},\), one number a row$",
    ):
        planner.plan(dynamics, objective, torch.zeros(1, 1), planner.initial(1), FIRST)


def test_risk_by_hand():
    returns = torch.tensor(
        [[1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, -torch.inf]]
    )  # two candidates of four particles
    assert risk_adjusted(returns, 4, "mean").tolist() == [[3.0, -torch.inf]]
    assert risk_adjusted(returns, 4, "worst").tolist() == [[1.0, -torch.inf]]
    assert risk_adjusted(returns, 4, 0.5).tolist() == [[1.5, -torch.inf]]
    assert risk_adjusted(returns, 4, 0.01).tolist() == [[1.0, -torch.inf]]
    assert torch.equal(risk_adjusted(returns, 1, "worst"), returns)
