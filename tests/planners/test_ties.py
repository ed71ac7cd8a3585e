"""Ties among returns go to what was handed in, then to what was drawn first, everywhere."""

import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.planners import FunctionDynamics, Objective, planner_from_settings
from planet_rssm.planners.gaussian import top
from planet_rssm.types import Rollout

FIRST, LATER = torch.tensor([True, True]), torch.tensor([False, False])
STATE = torch.zeros(2, 1)
SMALL = {"horizon": 3, "candidates": 1000, "iterations": 2, "elites": 100}


class Flat(FunctionDynamics):
    """Every sequence is worth nothing; what was asked about is kept."""

    def __init__(self):
        super().__init__(None, None)
        self.asked = []

    def rollout(self, state, actions, noise):
        self.asked.append(actions.clone())
        nothing = torch.zeros(actions.shape[:3])
        return Rollout(nothing, torch.ones_like(nothing), state)


def made(name, discrete=False, **settings):
    return planner_from_settings(
        PlannerSettings(**{**SMALL, "name": name, **settings}), 2, discrete
    )


def decide(planner, carry=None, first=FIRST, proposals=None):
    """Decide where every return is the same; also return the candidates of each round."""
    flat = Flat()
    carry = planner.initial(2) if carry is None else carry
    generator = torch.Generator().manual_seed(0)
    plan, carry = planner.plan(
        flat, Objective(), STATE, carry, first, generator, proposals=proposals
    )
    return plan, carry, flat.asked


def some(count=5):
    """Sequences from elsewhere, [B, K, H, A]."""
    return torch.rand(2, count, 3, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("size", "count"), [(10, 3), (1000, 10), (1000, 100), (1001, 100), (5000, 100)]
)
@pytest.mark.parametrize("values", [1, 2])
def test_the_first_of_equals_are_the_best_at_every_size(size, count, values):
    places = torch.arange(float(size)).reshape(1, size, 1, 1)
    returns = (torch.arange(size) % values).float()[
        None
    ]  # of two values the greater stands at odd places
    elites, best = top(places, returns, count)
    assert elites.flatten().tolist() == [values * i + values - 1 for i in range(count)]
    assert (best == values - 1).all()


def test_a_precedence_decides_between_equals_only():
    places = torch.arange(5.0).reshape(1, 5, 1, 1)
    returns = torch.tensor([[1.0, 2.0, 1.0, 3.0, 1.0]])
    elites, best = top(places, returns, 4, torch.tensor([4, 2, 0, 1, 3]))
    assert elites.flatten().tolist() == [3, 1, 4, 2] and best.tolist() == [[3, 2, 1, 1]]


@pytest.mark.parametrize("form", [{"name": "cem"}, {"name": "mppi", "weigh": "elites"}])
def test_elites_are_the_proposals_and_then_the_first_drawn(form):
    planner = made(**form, iterations=1, init_std=0.1)
    for proposals in (None, some()):
        plan, _, [drawn] = decide(planner, proposals=proposals)
        chosen = drawn[:, :100] if proposals is None else torch.cat([proposals, drawn[:, :95]], 1)
        torch.testing.assert_close(plan.sequence, chosen.mean(1))


@pytest.mark.parametrize("proposed", [False, True])
def test_choices_are_counted_of_the_proposals_and_the_first_drawn(proposed):
    proposals = torch.eye(2)[torch.ones(2, 60, 3, dtype=torch.long)] if proposed else None
    plan, _, [drawn] = decide(
        made("cem", discrete=True, iterations=1, elites=99), proposals=proposals
    )
    chosen = torch.cat([proposals, drawn[:, :39]], 1) if proposed else drawn[:, :99]
    assert torch.equal(plan.sequence.argmax(-1), chosen.mean(1).argmax(-1))


def test_icem_keeps_to_the_sequence_that_it_has_begun():
    planner = made("icem", candidates=40, elites=10)
    plan, carry, asked = decide(planner)
    assert torch.equal(plan.sequence, asked[0][:, 0])  # nothing was handed in: the first drawn
    assert torch.equal(
        carry.elites[:, 0], asked[-1][:, 3]
    )  # the last round's mean, which stands after three elites
    again, _, (first, last) = decide(planner, carry, LATER)
    assert torch.equal(
        again.sequence[:, :2], carry.elites[:, 0, 1:]
    )  # what is left of the best elite
    assert torch.equal(again.sequence, first[:, 0])
    kept = planner.plan(Flat(), Objective(), STATE, carry, LATER, rounds=1)[1].elites
    assert torch.equal(
        kept[:, 1:, :2], carry.elites[:, :2, 1:]
    )  # after the mean, shifted, in their order
    assert torch.equal(last[:, :3], first[:, :3])  # from round to round


@pytest.mark.parametrize("later", [False, True])
def test_icem_prefers_proposals_to_kept_elites(later):
    planner = made("icem", candidates=40, elites=10)
    proposals = some()
    _, carry, _ = decide(planner)
    plan, _, _ = decide(planner, carry, LATER if later else FIRST, proposals)
    assert torch.equal(plan.sequence, proposals[:, 0])


def test_icem_takes_the_mean_before_all_else_in_its_only_round():
    planner = made("icem", candidates=40, elites=10, iterations=1)
    for proposals in (None, some()):
        plan, carry, _ = decide(planner, proposals=proposals)
        assert not plan.sequence.any()
        assert not carry.elites[:, 0].any()


def test_shooting_takes_its_last_best_or_a_proposal_or_the_first_drawn():
    planner = made("shooting", warm_start=True)
    plan, carry, asked = decide(planner)
    assert torch.equal(plan.sequence, asked[0][:, 0])
    again, _, _ = decide(planner, carry, LATER)
    assert torch.equal(again.sequence[:, :2], plan.sequence[:, 1:])
    proposals = some()
    plan, _, _ = decide(made("shooting"), proposals=proposals)
    assert torch.equal(plan.sequence, proposals[:, 0])
    plan, _, asked = decide(made("shooting", discrete=True))
    assert torch.equal(plan.sequence, asked[0][:, 0])


def test_where_every_return_is_broken_the_order_is_the_same():
    elites, best = top(
        torch.arange(1000.0).reshape(1, 1000, 1, 1), torch.full((1, 1000), -torch.inf), 3
    )
    assert elites.flatten().tolist() == [0, 1, 2] and best.isinf().all()
