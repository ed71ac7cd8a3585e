import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import CEM, Objective


def test_cem_reaches_the_riccati_cost_of_an_lqr(lqr):
    settings = PlannerSettings(horizon=lqr.horizon, candidates=1000, iterations=20, elites=100)
    optimum, actions = lqr.solve()
    assert actions.abs().max() < 0.8, "the bounds would bind"
    torch.testing.assert_close(lqr.cost_of(actions), optimum)
    plan, _ = CEM(settings, 2).plan(
        lqr.dynamics,
        Objective(),
        lqr.start,
        CEM(settings, 2).initial(3),
        torch.ones(3, dtype=torch.bool),
        torch.Generator().manual_seed(0),
    )
    cost = lqr.cost_of(plan.sequence)
    assert plan.sequence.dtype == torch.float64
    assert (cost >= optimum).all() and (cost <= 1.02 * optimum).all()
    torch.testing.assert_close(-plan.value, cost, rtol=0.01, atol=0)


def test_every_decision_starts_from_the_same_gaussian(still_walk):
    planner = CEM(PlannerSettings(horizon=5, init_std=0.7), 2)
    assert planner.populations == (1000,) * 10
    noise = torch.randn(4, 1000, 5, 2)
    search = planner.start(planner.initial(4), torch.zeros(4, dtype=torch.bool), noise)
    assert torch.equal(planner.propose(search, noise, last=False), (0.7 * noise).clamp(-1, 1))


def test_refit_by_hand():
    # the two best of four candidates are 0.2 and 0.6: mean 0.4, population variance 0.04
    planner = CEM(PlannerSettings(horizon=1, candidates=4, elites=2), 1)
    sequences = torch.tensor([0.9, 0.2, -0.3, 0.6]).reshape(1, 4, 1, 1)
    search = planner.start(planner.initial(1), torch.tensor([True]), sequences)
    search = planner.refit(search, sequences, torch.tensor([[-torch.inf, -1.0, -7.0, -2.0]]))
    torch.testing.assert_close(search.mean.item(), 0.4)
    torch.testing.assert_close(search.std.item(), (0.04 + 1e-6) ** 0.5)
    assert planner.choose(search)[1].item() == -1.5
