"""The options of `plan`, and other settings that every planner has."""

import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import (
    CEM,
    CategoricalCEM,
    FunctionDynamics,
    Objective,
    RandomShooting,
    planner_from_settings,
)
from planet_rssm.planners.box import Box
from planet_rssm.types import Dynamics, Rollout

FIRST, LATER = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
ORIGIN = torch.zeros(2, 1)
SMALL = {"horizon": 4, "candidates": 30, "iterations": 3, "elites": 6}
NAMES = ["cem", "icem", "mppi", "shooting"]


def made(name: str = "cem", *box, size: int = 1, **settings):
    return planner_from_settings(
        PlannerSettings(name=name, **(SMALL | settings)), size, False, *box
    )


def paid_by(reward) -> FunctionDynamics:
    return FunctionDynamics(lambda s, a: s + a.sum(1, keepdim=True), lambda s, a, y: reward(a))


def decide(planner, dynamics, carry=None, first=FIRST, **options):
    rng = torch.Generator().manual_seed(0)
    carry = planner.initial(2) if carry is None else carry
    return planner.plan(dynamics, Objective(), ORIGIN, carry, first, rng, **options)


# the box


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_sample_leaves_a_box_of_any_range_and_its_corners_are_reached(name, dtype):
    low = torch.tensor([0.1, -7.3], dtype=dtype)
    high = torch.tensor([0.3, 1000.1], dtype=dtype)
    asked = []

    def reward(action):
        asked.append(action)
        return (action / high).sum(1)

    planner = made(name, low, high, size=2, init_std=4.0, candidates=300, iterations=6)
    rng = torch.Generator().manual_seed(0)
    dynamics = FunctionDynamics(lambda s, a: s, lambda s, a, y: reward(a))
    plan, _ = planner.plan(dynamics, Objective(), ORIGIN.to(dtype), planner.initial(2), FIRST, rng)
    asked.append(plan.sequence.flatten(0, 1))
    actions = torch.cat(asked)
    assert actions.dtype == dtype and (actions >= low).all() and (actions <= high).all()
    if name != "shooting":  # which never draws a corner
        assert (actions == low).any(0).all() and (actions == high).any(0).all()


def test_the_same_plan_is_made_in_other_units():
    narrow = made("icem")
    wide = made("icem", -10.0, 30.0)
    plan, carry = decide(narrow, paid_by(lambda a: -(a[:, 0] - 0.3).square()))
    scaled, other = decide(wide, paid_by(lambda a: -((a[:, 0] - 10) / 20 - 0.3).square()))
    torch.testing.assert_close(scaled.sequence, 10 + 20 * plan.sequence, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        other.mean, carry.mean, atol=1e-4, rtol=0
    )  # the carry is in units of the box


@pytest.mark.parametrize(
    ("low", "high", "line"),
    [
        (-torch.inf, 1.0, "low = -inf: actions need finite bounds to be searched; give some"),
        (
            -1.0,
            [1.0, torch.nan],
            "high = .*nan.*: actions need finite bounds to be searched; give some",
        ),
        (
            torch.zeros(3),
            1.0,
            r"low of shape \(3,\): must be a number or \(2,\), one for each action",
        ),
        (1.0, 1.0, "low = 1.0, high = 1.0: every low must be below its high; change one of them"),
    ],
)
def test_a_box_that_cannot_be_searched_is_one_line(low, high, line):
    with pytest.raises(PlanetError, match=f"^{line}$"):
        made("cem", low, high, size=2)


def test_the_box_there_and_back():
    box = Box([0.0, -2.0], 4.0, 2)
    actions = torch.tensor([[0.0, -2.0], [4.0, 4.0], [1.0, 1.0]])
    torch.testing.assert_close(box.actions(box.sequences(actions)), actions)
    assert box.sequences(torch.tensor([[-9.0, torch.nan], [9.0, 9.0]])).tolist() == [
        [-1, 0],
        [1, 1],
    ]


# warm starts


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_a_warm_start_begins_with_the_last_plan_shifted_and_a_fresh_spread(name):
    planner = made(name, warm_start=True)
    plan, carry = decide(planner, paid_by(lambda a: -(a[:, 0] - 0.5).square()))
    assert plan.sequence.unique().numel() > 4
    for executed, steps in ((1, [1, 2, 3, 3]), (3, [3, 3, 3, 3]), (9, [3, 3, 3, 3])):
        noise = torch.randn(2, 30, 4, 1)
        search = planner.start(carry, torch.tensor([True, False]), noise, executed)
        assert search.mean[0].tolist() == [[0.0]] * 4
        assert torch.equal(search.mean[1], carry.mean[1, steps])
        assert (search.std == planner.init_std).all()


def test_without_a_warm_start_nothing_is_remembered():
    for name in NAMES:
        planner = made(name, warm_start=False)
        dynamics = paid_by(lambda a: -(a[:, 0] - 0.5).square())
        plan, carry = decide(planner, dynamics)
        again, _ = decide(planner, dynamics, carry, LATER)
        assert torch.equal(plan.sequence, again.sequence)


def test_choices_begin_half_way_between_the_last_ones_and_equal_chances():
    planner = CategoricalCEM(PlannerSettings(**SMALL, warm_start=True), 2)
    carry = planner.initial(2)._replace(
        mean=torch.tensor([[[1.0, 0.0]] * 3 + [[0.2, 0.8]]] * 2), known=FIRST
    )
    search = planner.start(carry, torch.tensor([False, True]), torch.zeros(2, 30, 4, 1), 2)
    torch.testing.assert_close(search.mean[0, :, 0], torch.tensor([0.75, 0.35, 0.35, 0.35]))
    assert (search.mean[1] == 0.5).all()


def test_shooting_begins_with_its_last_best():
    planner = RandomShooting(PlannerSettings(**SMALL, name="shooting", warm_start=True), 1)
    _, carry = decide(planner, paid_by(lambda a: a[:, 0]))
    noise = torch.randn(2, 30, 4, 1)
    sequences = planner.propose(planner.start(carry, LATER, noise), noise, last=False)
    assert torch.equal(sequences[:, 0], carry.mean[:, [1, 2, 3, 3]])


# refits


def test_momentum_and_the_bounds_of_the_spread():
    sequences = torch.tensor([0.9, 0.2, -0.3, 0.6]).reshape(1, 4, 1, 1)
    returns = torch.tensor(
        [[-9.0, -1.0, -7.0, -2.0]]
    )  # the elites 0.2 and 0.6: mean 0.4, deviation 0.2

    def refitted(**settings):
        planner = CEM(PlannerSettings(horizon=1, candidates=4, elites=2, **settings), 1)
        return planner.refit(
            planner.start(planner.initial(1), FIRST[:1], sequences), sequences, returns
        )

    search = refitted(momentum=0.5)
    torch.testing.assert_close(search.mean.item(), 0.5 * 0.4)
    torch.testing.assert_close(search.std.item(), 0.5 * (0.04 + 1e-6) ** 0.5 + 0.5 * 1.0)
    assert refitted(min_std=0.5).std.item() == 0.5 and refitted(max_std=0.125).std.item() == 0.125


# proposals


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_that_no_sample_comes_near_is_found(name):
    # all that is not within 0.01 of a certain sequence is worth nothing
    wanted = torch.tensor([0.9, -0.8, 0.7, -0.6])

    class Needle(FunctionDynamics):
        def rollout(self, state, actions, noise):
            hit = ((actions[..., 0] - wanted).abs() < 0.01).all(-1)
            reward = hit.to(actions)[..., None].expand(actions.shape[:3])
            return Rollout(reward, torch.ones_like(reward), state)

    planner = made(name, warm_start=False, temperature=0.05)
    proposals = torch.stack([torch.zeros(4), wanted])[None, :, :, None].expand(2, 2, 4, 1)
    without, _ = decide(planner, Needle(None, None))
    plan, _ = decide(planner, Needle(None, None), proposals=proposals)
    assert (without.diagnostics["returns_max"] == 0).all()
    assert (plan.diagnostics["returns_max"] == 4).all()  # in every round
    if name in ("icem", "shooting", "mppi"):  # those that act by the best, or weigh it most
        torch.testing.assert_close(plan.sequence[:, :, 0], wanted.expand(2, 4), atol=1e-3, rtol=0)


def test_proposals_come_in_actions_and_are_moved_inside_the_box():
    planner = made("shooting", 0.0, 10.0)
    asked = []
    proposals = torch.tensor([-5.0, 3.0, 99.0, 10.0]).reshape(1, 1, 4, 1).expand(2, 1, 4, 1)
    decide(planner, paid_by(lambda a: asked.append(a) or a[:, 0]), proposals=proposals.double())
    last = torch.stack(asked[:4], 1)[:, :, 0].unflatten(0, (2, 30))[:, -1]
    torch.testing.assert_close(last, torch.tensor([[0.0, 3.0, 10.0, 10.0]] * 2))


@pytest.mark.parametrize(
    "shape", [(2, 4, 1), (1, 2, 4, 1), (2, 2, 3, 1), (2, 2, 4, 2), (2, 0, 4, 1), (2, 12, 4, 1)]
)
def test_proposals_of_a_wrong_shape_are_one_line(shape):
    planner = made("icem", decay=2.0)  # 30, 15 and 12 candidates, of them two elites and the mean
    with pytest.raises(
        PlanetError, match=r"must be \(B, K, H, A\) = \(2, K, 4, 1\) with K from 1 to 9$"
    ) as caught:
        decide(planner, paid_by(lambda a: a[:, 0]), proposals=torch.zeros(shape))
    assert str(caught.value).startswith(f"proposals of shape {shape}: ")


def test_returns_of_a_wrong_shape_are_one_line():
    planner = made()
    with pytest.raises(
        PlanetError,
        match=r"^returns of shape \(2,\): the objective must give \(2, 30\), one number a",
    ):
        planner.plan(
            paid_by(lambda a: a[:, 0]),
            lambda r: r.reward.sum((1, 2)),
            ORIGIN,
            planner.initial(2),
            FIRST,
        )


# particles


class Gamble(Dynamics[torch.Tensor]):
    """Whoever acts above 0 wins or loses by chance, 0.5 on average; below 0 there is a safe 0.2."""

    differentiable = False

    def noise_shape(self, batch, candidates, horizon):
        return (batch, candidates, horizon)

    def rollout(self, state, actions, noise):
        reward = torch.where(actions[..., 0] > 0, 0.5 + 3 * noise.sign(), 0.2)
        return Rollout(reward, torch.ones_like(reward), state)


def test_who_fears_the_worst_does_not_gamble():
    def chosen(**settings):
        planner = made(
            "cem", horizon=1, candidates=400, iterations=4, elites=20, particles=16, **settings
        )
        return decide(planner, Gamble())[0].action

    assert (chosen() > 0).all()
    assert (chosen(risk="worst") < 0).all() and (chosen(risk=0.25) < 0).all()


# diagnostics


@pytest.mark.parametrize("name", NAMES)
def test_diagnostics_tell_of_each_round(name):
    planner = made(name)
    plan, _ = decide(
        planner, paid_by(lambda a: torch.where(a[:, 0] > 1.5, torch.nan, -a[:, 0].square()))
    )
    diagnostics = plan.diagnostics
    assert all(
        diagnostics[key].shape == (2, 3)
        for key in ("returns_max", "returns_mean", "elite_std", "entropy")
    )
    assert (diagnostics["returns_mean"] < diagnostics["returns_max"]).all()
    narrower = diagnostics["elite_std"].diff(dim=1) < 0
    assert (narrower.all() and (diagnostics["entropy"].diff(dim=1) < 0).all()) == (
        name in ("cem", "icem")
    )


def test_entropy_by_hand():
    gaussian = made(init_std=2.0)
    search = gaussian.start(gaussian.initial(2), FIRST, torch.zeros(2, 30, 4, 1))
    by_torch = torch.distributions.Normal(0.0, torch.full((2, 1), 2.0)).entropy()
    torch.testing.assert_close(gaussian.entropies([search]), by_torch)
    choices = CategoricalCEM(PlannerSettings(**SMALL), 3)
    search = choices.start(choices.initial(2), FIRST, torch.zeros(2, 30, 4, 1))
    torch.testing.assert_close(choices.entropies([search]), torch.log(torch.full((2, 1), 3.0)))
    sure = torch.tensor([1.0, 0.0, 0.0]).expand(2, 4, 3)
    assert choices.distribution.entropy(sure, search.std).tolist() == [0, 0]


def test_a_decision_may_stop_after_fewer_rounds():
    for name in NAMES:
        plan, _ = decide(made(name), paid_by(lambda a: a[:, 0]), rounds=2)
        assert plan.diagnostics["entropy"].shape == (2, 2)
        with pytest.raises(
            PlanetError, match=r"^rounds 0: must be at least 1; leave it out for all \d+$"
        ):
            decide(made(name), paid_by(lambda a: a[:, 0]), rounds=0)
