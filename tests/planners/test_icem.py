import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import ICEM, FunctionDynamics, Objective
from planet_rssm.planners.carry import Carry
from planet_rssm.planners.icem import coloured

SMALL = PlannerSettings(
    name="icem", init_std=1.0, horizon=4, candidates=40, iterations=3, elites=10
)


def test_icem_comes_near_the_riccati_cost_of_an_lqr_with_few_samples(lqr):
    settings = PlannerSettings(
        name="icem", horizon=lqr.horizon, candidates=400, iterations=10, elites=40
    )
    planner = ICEM(settings, 2)
    assert sum(planner.populations) < 2000  # a tenth of what CEM spends on it
    plan, _ = planner.plan(
        lqr.dynamics, Objective(), lqr.start, planner.initial(3), torch.ones(3, dtype=torch.bool),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    optimum, _ = lqr.solve()
    cost = lqr.cost_of(plan.sequence)
    assert (cost >= optimum).all() and (cost <= 1.05 * optimum).all()
    torch.testing.assert_close(-plan.value, cost)


@pytest.mark.parametrize("exponent", [0.0, 0.25, 2.5])
@pytest.mark.parametrize("horizon", [1, 12, 15])
def test_coloured_noise_has_unit_variance_at_every_step(horizon, exponent):
    white = torch.randn(1, 40000, horizon, 1, generator=torch.Generator().manual_seed(0))
    noise = coloured(white, exponent)
    assert noise.shape == white.shape
    torch.testing.assert_close(noise.var(1), torch.ones(1, horizon, 1), rtol=0.04, atol=0)
    torch.testing.assert_close(noise.mean(1), torch.zeros(1, horizon, 1), rtol=0, atol=0.03)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_coloured_noise_has_the_spectrum_asked_for(exponent):
    white = torch.randn(
        1, 4000, 64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    power = torch.fft.rfft(coloured(white, exponent), dim=2).abs().square().mean((0, 1, 3))[1:]
    frequency = torch.fft.rfftfreq(64, dtype=torch.float64)[1:]
    design = torch.stack([frequency.log(), torch.ones_like(frequency)], 1)
    slope = torch.linalg.lstsq(design, power.log()[:, None]).solution[0].item()
    assert abs(slope + exponent) < 0.05


def test_white_noise_stays_as_it_is():
    white = torch.randn(2, 3, 12, 2)
    torch.testing.assert_close(coloured(white, 0.0), white)


def test_the_population_shrinks_to_twice_the_elites():
    assert ICEM(SMALL, 1).populations == (40, 32, 25)  # the authors' 97
    assert ICEM(SMALL.model_copy(update={"iterations": 6}), 1).populations == (
        40,
        32,
        25,
        20,
        20,
        20,
    )


def test_a_warm_start_shifts_mean_and_elites_by_one_step():
    planner = ICEM(SMALL, 1)
    mean = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1).repeat(2, 1, 1)
    elites = 0.5 + mean[:, None].repeat(1, 3, 1, 1)
    noise = torch.randn(2, 40, 4, 1)
    search = planner.start(
        Carry(mean, elites, torch.tensor([True, True])), torch.tensor([False, True]), noise
    )
    torch.testing.assert_close(
        search.mean[:, :, 0], torch.tensor([[0.2, 0.3, 0.4, 0.4], [0.0] * 4])
    )
    assert torch.equal(search.std, torch.ones(2, 4, 1))
    sequences = planner.propose(search, noise, last=False)
    torch.testing.assert_close(sequences[0, :3, :3, 0], torch.tensor([[0.7, 0.8, 0.9]] * 3))
    # the last step is sampled anew, the forgotten row and the other places wholly so
    fresh = (search.mean[:, None] + noise).clamp(-1, 1)
    torch.testing.assert_close(sequences[0, :3, 3], fresh[0, :3, 3])
    torch.testing.assert_close(sequences[0, 3:], fresh[0, 3:])
    torch.testing.assert_close(sequences[1], fresh[1])


def test_elites_stay_for_the_next_round_and_the_mean_joins_the_last(still_walk):
    planner = ICEM(SMALL, 2)
    first = torch.tensor([True, True])
    state = {"x": torch.tensor([[1.0, -1.0], [0.0, 2.0]])}
    noise = planner.draw(still_walk, state)
    search = planner.start(planner.initial(2), first, noise[0].actions)
    for index in range(3):
        sequences = planner.propose(search, noise[index].actions, last=index == 2)
        if index > 0:
            assert torch.equal(sequences[:, :3], search.kept)
        assert torch.equal(sequences[:, 3], search.mean) == (index == 2)
        returns = Objective()(still_walk.rollout(state, sequences))
        search = planner.refit(search, sequences, returns)
        best = returns.topk(3, 1).indices
        assert torch.equal(search.kept, sequences[torch.arange(2)[:, None], best])


def test_momentum_keeps_a_share_of_the_old_gaussian():
    planner = ICEM(
        SMALL.model_copy(update={"candidates": 2, "elites": 1, "horizon": 1, "reuse": 1.0}), 1
    )
    sequences = torch.tensor([0.5, -0.5]).reshape(1, 2, 1, 1)
    search = planner.start(planner.initial(1), torch.tensor([True]), sequences)
    search = planner.refit(search, sequences, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(search.mean.item(), 0.9 * 0.5 + 0.1 * 0.0)
    torch.testing.assert_close(search.std.item(), 0.9 * 1e-3 + 0.1 * 1.0)


def test_the_best_sequence_seen_is_executed_whichever_round_saw_it():
    planner = ICEM(SMALL.model_copy(update={"reuse": 0.0}), 1)
    scored = []

    def objective(rollout):
        returns = rollout.reward.sum(-1) + (
            100.0 if not scored else 0.0
        )  # the first round is paid more
        scored.append((returns, rollout.last))
        return returns

    dynamics = FunctionDynamics(lambda s, a: a, lambda s, a, y: a[:, 0])
    plan, carry = planner.plan(
        dynamics, objective, torch.zeros(1, 1), planner.initial(1), torch.tensor([True])
    )
    returns, last = scored[0]
    assert plan.value == returns.max()
    assert torch.equal(plan.sequence[0, -1], last[0, returns.argmax()])
    assert carry.elites.shape == (1, 0, 4, 1)


def test_warm_starts_pay_when_acting_in_closed_loop(lqr):
    settings = SMALL.model_copy(
        update={"horizon": 12, "candidates": 20, "iterations": 1, "elites": 5}
    )

    def closed_loop(warm):
        planner = ICEM(settings, 2)
        generator = torch.Generator().manual_seed(3)
        x = lqr.start
        carry = planner.initial(3)
        cost = torch.zeros(3, dtype=torch.float64)
        for t in range(30):
            is_first = torch.full((3,), t == 0 or not warm)
            plan, carry = planner.plan(lqr.dynamics, Objective(), x, carry, is_first, generator)
            cost += lqr.cost(x, plan.action)
            x = x @ lqr.a.T + plan.action @ lqr.b.T
        return cost.sum()

    assert closed_loop(warm=True) < 0.8 * closed_loop(warm=False)
