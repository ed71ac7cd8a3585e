"""What every planner must do."""

import doctest

import pytest
import torch
from torch.utils import _pytree as pytree

import planet_rssm.planners
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import CEM, ICEM, FunctionDynamics, Objective, planner_from_settings
from planet_rssm.types import Rollout

FIRST = torch.tensor([True, True, True])
LATER = ~FIRST


def places(rows=3, dtype=torch.float64):
    return {"x": torch.linspace(-2, 2, 2 * rows, dtype=dtype).reshape(rows, 2)}


def row(tree, index):
    return pytree.tree_map(lambda leaf: None if leaf is None else leaf[index : index + 1], tree)


def near(left, right, tolerance):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def test_the_settings_name_the_planner():
    assert isinstance(planner_from_settings(PlannerSettings(), 1), CEM)
    assert isinstance(planner_from_settings(PlannerSettings(name="icem"), 1), ICEM)


def test_the_example_runs():
    assert doctest.testmod(planet_rssm.planners, raise_on_error=True).attempted > 5


def test_shapes(settings, walk):
    planner = planner_from_settings(settings, 2)
    plan, _ = planner.plan(
        walk, Objective(), places(dtype=torch.float32), planner.initial(3), FIRST
    )
    assert (
        plan.action.shape == (3, 2)
        and plan.sequence.shape == (3, 6, 2)
        and plan.value.shape == (3,)
    )
    assert torch.equal(plan.action, plan.sequence[:, 0])
    assert plan.sequence.dtype == torch.float32 and plan.sequence.abs().max() <= 1
    shapes = {name: tuple(value.shape) for name, value in plan.diagnostics.items()}
    by_round = dict.fromkeys(["returns_max", "returns_mean", "elite_std", "entropy"], (3, 3))
    assert shapes == by_round | {"nonfinite": (3,)}


def test_a_search_inside_an_autocast_is_the_same(settings, walk):
    """As an agent decides in bfloat16: that is the precision of the model alone."""
    planner, state = planner_from_settings(settings, 2), places(dtype=torch.float32)
    noise = planner.draw(walk, state, torch.Generator().manual_seed(1))
    plans = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            carry = planner.initial(3)
            plans.append(planner.plan(walk, Objective(), state, carry, FIRST, noise=noise)[0])
    assert torch.equal(plans[0].sequence, plans[1].sequence)
    assert torch.equal(plans[0].value, plans[1].value)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_batched_equals_separate_on_the_same_noise(settings, walk, dtype, tolerance):
    planner = planner_from_settings(settings, 2)
    state = places(dtype=dtype)
    carry = planner.initial(3)
    generator = torch.Generator().manual_seed(1)
    alone = [planner.initial(1) for _ in range(3)]
    for is_first in (FIRST, LATER, torch.tensor([False, True, False])):
        noise = planner.draw(walk, state, generator)
        plan, carry = planner.plan(walk, Objective(), state, carry, is_first, noise=noise)
        for b in range(3):
            single, alone[b] = planner.plan(
                walk,
                Objective(),
                row(state, b),
                alone[b],
                is_first[b : b + 1],
                noise=row(noise, b),
            )
            near(row(plan, b), single, tolerance)
            near(row(carry, b), alone[b], tolerance)


def test_the_same_seed_gives_the_same_plan_and_another_another(settings, walk):
    planner = planner_from_settings(settings, 2)

    def act(seed):
        return planner.plan(
            walk,
            Objective(),
            places(),
            planner.initial(3),
            FIRST,
            torch.Generator().manual_seed(seed),
        )[0].action

    assert torch.equal(act(5), act(5))
    assert not torch.equal(act(5), act(6))


def test_a_first_row_forgets_its_carry_and_the_others_keep_theirs(settings, walk):
    planner = planner_from_settings(settings, 2)
    state = places()
    generator = torch.Generator().manual_seed(2)
    _, carry = planner.plan(walk, Objective(), state, planner.initial(3), FIRST, generator)
    noise = planner.draw(walk, state, generator)
    mixed, _ = planner.plan(
        walk, Objective(), state, carry, torch.tensor([False, True, False]), noise=noise
    )
    fresh, _ = planner.plan(walk, Objective(), state, planner.initial(3), LATER, noise=noise)
    kept, _ = planner.plan(walk, Objective(), state, carry, LATER, noise=noise)
    near(row(mixed, 1), row(fresh, 1), 1e-12)
    for b in (0, 2):
        near(row(mixed, b), row(kept, b), 1e-12)


def test_candidates_never_leave_the_bounds(settings):
    largest = []

    def step(state, action):
        largest.append(action.abs().max())
        return state + action

    dynamics = FunctionDynamics(step, lambda s, a, y: y.sum(-1))  # paid for the corner of the box
    settings = settings.model_copy(update={"init_std": 5.0, "iterations": 12})
    planner = planner_from_settings(settings, 2)
    carry = planner.initial(2)
    for is_first in (True, False, False):
        plan, carry = planner.plan(
            dynamics, Objective(), torch.zeros(2, 2), carry, torch.tensor([is_first] * 2)
        )
    assert torch.stack(largest).max() == 1.0
    assert plan.action.abs().max() <= 1 and plan.action.min() > 0.8


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_broken_return_never_wins_and_is_counted(settings, broken):
    # all returns are negative, and the forbidden half would pay best
    dynamics = FunctionDynamics(
        lambda s, a: s,
        lambda s, a, y: torch.where(a[:, 0] > 0.5, broken, a[:, 0] - 10.0),
    )
    settings = settings.model_copy(update={"candidates": 200, "iterations": 6})
    planner = planner_from_settings(settings, 1)
    generator = torch.Generator().manual_seed(0)
    plan, _ = planner.plan(
        dynamics, Objective(), torch.zeros(2, 1), planner.initial(2), FIRST[:2], generator
    )
    assert (plan.sequence <= 0.5).all() and plan.sequence.mean() > 0
    assert plan.value.isfinite().all() and (plan.value < 0).all()
    assert (plan.diagnostics["nonfinite"] > 0).all()
    assert (plan.diagnostics["nonfinite"] < sum(planner.populations)).all()


def test_elites_with_a_broken_return_do_not_count_when_too_few_are_whole(settings):
    actions_that_work = []

    def objective(rollout):
        returns = torch.full(rollout.reward.shape[:2], torch.nan)
        returns[:, -2:] = rollout.reward[:, -2:].sum(-1)
        actions_that_work.append(rollout.last[:, -2:])
        return returns

    class Echo(FunctionDynamics):
        def rollout(self, state, actions, noise):
            reward = -actions.square().sum(-1)
            return Rollout(reward, torch.ones_like(reward), actions)

    planner = planner_from_settings(
        settings.model_copy(update={"iterations": 1, "momentum": 0.0, "temperature": 1e9}), 2
    )
    plan, carry = planner.plan(
        Echo(None, None), objective, torch.zeros(1, 1), planner.initial(1), FIRST[:1]
    )
    near(
        carry.mean, 2 / settings.elites * actions_that_work[0].mean(1), 1e-6
    )  # the rest of the way it stays at zero
    assert plan.diagnostics["nonfinite"].item() == planner.populations[0] - 2


def test_a_model_that_breaks_everywhere_still_gives_an_action(settings):
    planner = planner_from_settings(settings, 1)
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: a[:, 0] * torch.nan)
    plan, carry = planner.plan(
        dynamics, Objective(), torch.zeros(2, 1), planner.initial(2), FIRST[:2]
    )
    assert plan.sequence.isfinite().all() and (plan.sequence.abs() <= 1).all()
    assert plan.value.tolist() == [-torch.inf] * 2
    assert plan.diagnostics["nonfinite"].tolist() == [sum(planner.populations)] * 2
    assert all(leaf.isfinite().all() for leaf in pytree.tree_leaves(carry))


def test_planning_leaves_no_graph_and_no_global_trace(settings, walk):
    planner = planner_from_settings(settings, 2)
    state = places()
    state["x"].requires_grad_()
    before = torch.get_rng_state()
    plan, carry = planner.plan(
        walk, Objective(), state, planner.initial(3), FIRST, torch.Generator().manual_seed(0)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves((plan, carry)))


def test_the_discount_decides_what_is_worth_waiting_for(settings):
    # +1 now costs 3 at the next step; who discounts strongly takes it
    dynamics = FunctionDynamics(lambda s, a: a, lambda s, a, y: a[:, 0] - 3 * s[:, 0])
    planner = planner_from_settings(settings.model_copy(update={"horizon": 2, "iterations": 5}), 1)

    def first_action(discount):
        return planner.plan(
            dynamics,
            Objective(discount),
            torch.zeros(1, 1),
            planner.initial(1),
            FIRST[:1],
            torch.Generator().manual_seed(0),
        )[0].action.item()

    assert first_action(1.0) < -0.8 and first_action(0.1) > 0.8
