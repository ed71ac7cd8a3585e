import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import (
    ICEM,
    FunctionDynamics,
    Objective,
    RandomShooting,
    planner_from_settings,
)

SETTINGS = PlannerSettings(name="shooting", horizon=2, candidates=500, iterations=4)
FIRST = torch.ones(3, dtype=torch.bool)


def test_it_draws_uniformly_over_the_box_and_over_choices():
    noise = torch.randn(1, 50_000, 2, 1, generator=torch.Generator().manual_seed(0))
    planner = RandomShooting(SETTINGS, 1)
    drawn = planner.propose(planner.start(planner.initial(1), FIRST[:1], noise), noise, last=False)
    assert drawn.abs().max() <= 1
    quarters = torch.histc(drawn, 4, -1, 1) / drawn.numel()
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.01, rtol=0)
    chooser = RandomShooting(SETTINGS, 5, discrete=True)
    search = chooser.start(chooser.initial(1), FIRST[:1], noise)
    chosen = chooser.propose(search, noise, last=False)
    torch.testing.assert_close(chosen.mean((0, 1)), torch.full((2, 5), 0.2), atol=0.01, rtol=0)
    torch.testing.assert_close(search.std, chosen.std(1, correction=0), atol=0.01, rtol=0)


def test_the_best_of_all_rounds_is_acted_by():
    rounds = []

    def objective(rollout):
        rounds.append((rollout.reward.sum(-1), rollout.last))
        return rounds[-1][0]

    dynamics = FunctionDynamics(lambda s, a: a, lambda s, a, y: -(a[:, 0] - s[:, 0]).square())
    planner = RandomShooting(SETTINGS, 1)
    plan, _ = planner.plan(
        dynamics, objective, torch.tensor([[0.3], [0.0], [-1.0]]), planner.initial(3), FIRST
    )
    returns, last = (torch.cat(parts, 1) for parts in zip(*rounds, strict=True))
    assert returns.shape == (3, 2000)
    value, index = returns.max(1)
    assert torch.equal(plan.value, value) and torch.equal(
        plan.sequence[:, -1], last[torch.arange(3), index]
    )


@pytest.mark.parametrize("name", ["cem", "shooting"])
def test_the_best_arm_of_a_discrete_bandit_is_pulled(name):
    arms = torch.tensor([0.1, 0.9, 0.4, 0.85, -2.0])
    bandit = FunctionDynamics(lambda s, a: s, lambda s, a, y: a @ arms)
    planner = planner_from_settings(
        SETTINGS.model_copy(update={"name": name, "elites": 50}), 5, discrete=True
    )
    plan, _ = planner.plan(bandit, Objective(), torch.zeros(3, 1), planner.initial(3), FIRST)
    assert plan.sequence.argmax(-1).tolist() == [[1, 1]] * 3


def test_a_warm_start_never_forgets_a_better_plan():
    # a place that only the sequence +0.5, +0.5, ... is paid for: what was chosen once goes on being
    # followed
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: -(a[:, 0] - 0.5).abs())
    settings = SETTINGS.model_copy(
        update={"warm_start": True, "candidates": 20, "iterations": 1, "horizon": 3}
    )
    planner = RandomShooting(settings, 1)
    rng = torch.Generator().manual_seed(0)
    carry = planner.initial(3)
    values = []
    for t in range(20):
        plan, carry = planner.plan(
            dynamics, Objective(), torch.zeros(3, 1), carry, FIRST & (t == 0), rng
        )
        values.append(plan.value)
    assert torch.stack(values[10:]).mean() > 0.5 * torch.stack(values[:5]).mean()


def test_icem_finds_one_of_two_modes():
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: -(a[:, 0].abs() - 0.8).square())
    settings = PlannerSettings(name="icem", horizon=1, candidates=40, iterations=1, elites=10)
    for planner in (ICEM(settings, 1), RandomShooting(settings, 1)):
        plan, _ = planner.plan(dynamics, Objective(), torch.zeros(3, 1), planner.initial(3), FIRST)
        assert ((plan.action.abs() - 0.8).abs() < 0.15).all()
