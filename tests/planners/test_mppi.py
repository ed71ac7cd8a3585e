import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import MPPI, FunctionDynamics, Objective
from planet_rssm.planners.mppi import softmax

FIRST = torch.tensor([True])
ELITES = PlannerSettings(
    name="mppi", weigh="elites", horizon=1, candidates=4, elites=2, iterations=1, min_std=0.0
)


@pytest.mark.parametrize(
    "form", [{"init_std": 0.2}, {"init_std": 0.2, "temperature": 0.1}, {"weigh": "elites"}]
)
def test_mppi_reaches_the_riccati_cost_of_an_lqr(lqr, form):
    settings = PlannerSettings(
        name="mppi", horizon=20, candidates=500, iterations=20, elites=50, min_std=0.0, **form
    )
    planner = MPPI(settings, 2)
    rng = torch.Generator().manual_seed(0)
    plan, _ = planner.plan(
        lqr.dynamics, Objective(), lqr.start, planner.initial(3), FIRST.expand(3), rng
    )
    optimum, _ = lqr.solve()
    cost = lqr.cost_of(plan.sequence)
    assert plan.sequence.dtype == torch.float64
    assert (cost >= optimum).all() and (cost <= 1.02 * optimum).all()


def test_weights_by_hand():
    returns = torch.tensor([[0.0, 2.0, -torch.inf], [-torch.inf] * 3, [5.0, 5.0, -torch.inf]])
    weights = softmax(returns, 2.0)
    torch.testing.assert_close(weights[0], torch.tensor([0.26894, 0.73106, 0.0]), atol=1e-5, rtol=0)
    assert weights[1:].tolist() == [[0.0] * 3, [0.5, 0.5, 0.0]]
    # without a temperature: the standard deviation of the finite returns, here 1; the scale of
    # rewards does not matter
    torch.testing.assert_close(softmax(returns, None), softmax(returns, 1.0))
    torch.testing.assert_close(softmax(1000 * returns, None), softmax(returns, 1.0))


def test_every_candidate_counts_and_the_spread_stays():
    planner = MPPI(
        ELITES.model_copy(update={"weigh": "all", "temperature": 1.0, "momentum": 0.25}), 1
    )
    sequences = torch.tensor([0.8, -0.4, 0.0, 0.5]).reshape(1, 4, 1, 1)
    search = planner.start(planner.initial(1), FIRST, sequences)
    search = planner.refit(search, sequences, torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf]]))
    torch.testing.assert_close(search.mean.item(), 0.75 * 0.2)
    assert search.std.item() == 0.5 and search.value.item() == 0.0


def test_by_elites_the_spread_is_refitted_within_its_bounds():
    sequences = torch.tensor([0.8, -0.4, 0.0, 0.5]).reshape(1, 4, 1, 1)
    returns = torch.tensor([[1.0, 1.0, 0.0, -torch.inf]])

    def spread(**bounds):
        planner = MPPI(ELITES.model_copy(update=bounds), 1)
        return planner.refit(
            planner.start(planner.initial(1), FIRST, sequences), sequences, returns
        ).std.item()

    torch.testing.assert_close(spread(), (0.36 + 1e-6) ** 0.5)
    assert spread(max_std=0.25) == 0.25 and spread(min_std=0.75) == 0.75
    assert MPPI(ELITES.model_copy(update={"min_std": None}), 1).min_std == 0.05  # TD-MPC2's


def test_an_elite_is_drawn_as_often_as_its_weight_says():
    rows = 20_000
    planner = MPPI(ELITES.model_copy(update={"act_by": "draw", "temperature": 1.0}), 1)
    sequences = torch.tensor([0.8, -0.4, 0.0, 0.5]).reshape(1, 4, 1, 1).expand(rows, 4, 1, 1)
    search = planner.start(planner.initial(rows), FIRST.expand(rows), sequences)
    search = planner.refit(
        search, sequences, torch.tensor([[0.0, 1.0, -9.0, -9.0]]).expand(rows, 4)
    )
    sequence, value, _ = planner.choose(
        search, torch.randn(rows, generator=torch.Generator().manual_seed(0))
    )
    best = sequence[:, 0, 0] == -0.4
    assert set(sequence.unique().tolist()) == {torch.tensor(0.8).item(), torch.tensor(-0.4).item()}
    assert abs(best.double().mean().item() - 0.73106) < 0.01
    assert torch.equal(value == 1.0, best)


def test_a_drawn_elite_is_one_mode_where_the_mean_of_two_is_bad():
    # +0.8 and -0.8 are worth 0, and 0 is worth -0.64: the mean of elites from both sides is the
    # worst of all
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: -(a[:, 0].abs() - 0.8).square())
    settings = ELITES.model_copy(
        update={"candidates": 200, "elites": 40, "act_by": "draw", "temperature": 1.0}
    )
    state = torch.zeros(50, 1)
    rng = torch.Generator().manual_seed(0)
    actions = {}
    for form in ("draw", "mean"):
        planner = MPPI(settings.model_copy(update={"act_by": form}), 1)
        plan, _ = planner.plan(
            dynamics, Objective(), state, planner.initial(50), FIRST.expand(50), rng
        )
        actions[form] = plan.action
    assert actions["mean"].abs().mean() < 0.3
    assert (actions["draw"].abs() > 0.5).all()
