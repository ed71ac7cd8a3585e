"""The planners over choices: one group, and several at once."""

import math

import pytest
import torch
from torch.special import ndtri

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import (
    CEM,
    MPPI,
    CategoricalCEM,
    FunctionDynamics,
    Objective,
    planner_from_settings,
)
from planet_rssm.planners.categorical import RESTART, SMOOTHING, Categorical
from planet_rssm.planners.choices import each_entry, groups_of, likeliest, one_hots, runs, uniform

H, A = 6, 3
SETTINGS = PlannerSettings(horizon=H, candidates=200, iterations=5, elites=20)
# Choice c is worth something only where the place, which counts the steps, says so: no constant
# will do.
WANTED = torch.tensor([2, 0, 1, 1, 0, 2])
GROUPS = (3, 2, 2, 4)  # of two runs of one group each, and one of two
CODE = torch.tensor(
    [[2, 0, 1, 3], [0, 1, 1, 0], [1, 1, 0, 2], [1, 0, 0, 1], [0, 0, 1, 3], [2, 1, 0, 0]]
)  # [H, G]


def lock(offset: int = 0) -> FunctionDynamics:
    def reward(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        wanted = WANTED[(state[:, 0].long() + offset) % H]
        return action.gather(1, wanted[:, None]).squeeze(1)

    return FunctionDynamics(lambda state, action: state + 1, reward)


def locks() -> FunctionDynamics:
    """Pay for each group's right choice, which differs from step to step."""
    codes = one_hots(CODE, GROUPS, torch.float32)
    return FunctionDynamics(
        lambda s, a: s + 1, lambda s, a, y: (a * codes[s[:, 0].long() % H]).sum(1)
    )


def decide(batch: int, seed: int = 0, dynamics: FunctionDynamics | None = None):
    planner = planner_from_settings(SETTINGS, A, discrete=True)
    state = torch.zeros(batch, 1)
    first = torch.ones(batch, dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    return planner.plan(dynamics or lock(), Objective(), state, planner.initial(batch), first, rng)[
        0
    ]


def test_it_opens_the_lock_and_acts_by_whole_choices() -> None:
    plan = decide(batch=4)
    assert plan.sequence.argmax(-1).tolist() == [WANTED.tolist()] * 4
    assert set(plan.sequence.unique().tolist()) == {0.0, 1.0} and (plan.sequence.sum(-1) == 1).all()
    assert (plan.value > H - 1).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cem", {}),
        ("icem", {}),
        ("mppi", {"temperature": 0.3}),
        ("mppi", {"weigh": "elites", "temperature": 1.0}),
        ("mppi", {"weigh": "elites", "act_by": "draw", "temperature": 0.2}),
    ],
    ids=["cem", "icem", "mppi", "mppi-elites", "mppi-draw"],
)
def test_every_planner_opens_a_lock_of_several_groups(name, options) -> None:
    """The optimum is known: 48 choices a step, over 10^10 sequences, one of them worth H * G."""
    settings = PlannerSettings(
        name=name, horizon=H, candidates=400, iterations=8, elites=30, **options
    )
    planner = planner_from_settings(settings, sum(GROUPS), GROUPS)
    state = torch.zeros(3, 1)
    rng = torch.Generator().manual_seed(0)
    plan, carry = planner.plan(
        locks(), Objective(), state, planner.initial(3), torch.ones(3).bool(), rng
    )
    assert torch.equal(plan.sequence, one_hots(CODE, GROUPS, torch.float32).expand(3, H, -1))
    # and goes on where it is, a step later
    plan, _ = planner.plan(locks(), Objective(), state + 1, carry, torch.zeros(3).bool(), rng)
    assert torch.equal(
        plan.sequence[:, :-1], one_hots(CODE[1:], GROUPS, torch.float32).expand(3, H - 1, -1)
    )


def test_shooting_finds_the_best_of_what_it_can_draw() -> None:
    settings = PlannerSettings(name="shooting", horizon=1, candidates=300, iterations=4)
    planner = planner_from_settings(settings, sum(GROUPS), GROUPS)
    first = torch.ones(3).bool()
    rng = torch.Generator().manual_seed(0)
    plan, _ = planner.plan(locks(), Objective(), torch.zeros(3, 1), planner.initial(3), first, rng)
    assert torch.equal(plan.action, one_hots(CODE[0], GROUPS, torch.float32).expand(3, -1))
    torch.testing.assert_close(
        plan.diagnostics["entropy"], torch.full((3, 4), math.log(3 * 2 * 2 * 4) / 4)
    )
    spread = torch.cat([torch.full((size,), math.sqrt(size - 1) / size) for size in GROUPS]).mean()
    torch.testing.assert_close(plan.diagnostics["elite_std"], spread.expand(3, 4))


def test_choices_come_as_often_as_their_probabilities_say() -> None:
    probs = torch.tensor([0.1, 0.6, 0.3]).expand(1, H, A)
    noise = torch.randn(1, 20_000, H, 1, generator=torch.Generator().manual_seed(0))
    drawn = Categorical((A,)).sample(probs, probs, noise)
    torch.testing.assert_close(drawn.mean((0, 1)), probs[0], atol=0.01, rtol=0)


def test_each_group_is_drawn_by_its_own_noise_alone() -> None:
    """All pairs of two grids of quantiles: the shares of groups and of pairs are exact."""
    steps = ndtri((torch.arange(40) + 0.5) / 40)
    noise = torch.cartesian_prod(steps, steps)[None, :, None]  # [1, 1600, 1, 2]
    probs = torch.tensor([[[0.2, 0.5, 0.3, 0.75, 0.25]]])
    drawn = Categorical((3, 2)).sample(probs, probs, noise)[0, :, 0]
    torch.testing.assert_close(drawn.mean(0), probs[0, 0], atol=1e-6, rtol=0)
    pairs = (drawn[:, :3, None] * drawn[:, None, 3:]).mean(0)
    torch.testing.assert_close(
        pairs, probs[0, 0, :3, None] * probs[0, 0, None, 3:], atol=1e-6, rtol=0
    )


def test_choices_at_any_noise_are_choices() -> None:
    probs = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]).expand(1, 1, 7)
    for value in (-50.0, 0.0, 50.0):
        drawn = Categorical((3, 3, 1)).sample(probs, probs, torch.full((1, 1, 1, 3), value))
        assert torch.equal(drawn, likeliest(drawn, (3, 3, 1)))


def test_a_refit_counts_the_elites_and_leaves_every_choice_possible() -> None:
    planner = CategoricalCEM(SETTINGS.model_copy(update={"candidates": 4, "elites": 2}), A)
    sequences = torch.eye(A)[torch.tensor([0, 0, 1, 2])][None, :, None].expand(1, 4, H, A)
    search = planner.start(
        planner.initial(1), torch.ones(1, dtype=torch.bool), torch.zeros(1, 4, H, 1)
    )
    search = planner.refit(search, sequences, torch.tensor([[5.0, 1.0, 3.0, -torch.inf]]))
    expected = (1 - SMOOTHING) * torch.tensor([0.5, 0.5, 0.0]) + SMOOTHING / A
    torch.testing.assert_close(search.mean, expected.expand(1, H, A))
    assert planner.choose(search)[1].item() == 4


def test_a_refit_of_groups_by_hand() -> None:
    chosen = one_hots(torch.tensor([[0, 1], [2, 1], [0, 0], [1, 0]]), (3, 2), torch.float32)[
        None, :, None
    ]
    returns = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    first = torch.ones(1).bool()
    equal = torch.tensor([1 / 3] * 3 + [1 / 2] * 2)
    settings = PlannerSettings(horizon=1, candidates=4, elites=2, momentum=0.25)
    planner = CEM(settings, 5, discrete=(3, 2))
    search = planner.start(planner.initial(1), first, torch.zeros(1, 4, 1, 2))
    torch.testing.assert_close(search.mean[0, 0], equal)
    search = planner.refit(search, chosen, returns)
    counted = 0.75 * torch.tensor([0.5, 0, 0.5, 0, 1]) + 0.25 * equal
    expected = (1 - SMOOTHING) * counted + SMOOTHING * equal
    torch.testing.assert_close(search.mean[0, 0], expected)
    torch.testing.assert_close(search.std[0, 0], (expected * (1 - expected)).sqrt())
    by_hand = -(expected * expected.log()).sum() / 2  # of one of the two choices
    torch.testing.assert_close(planner.entropies([search]), by_hand[None, None])
    mppi = MPPI(
        PlannerSettings(name="mppi", horizon=1, candidates=4, temperature=1.0), 5, discrete=(3, 2)
    )
    search = mppi.refit(
        mppi.start(mppi.initial(1), first, torch.zeros(1, 4, 1, 2)), chosen, returns
    )
    weights = returns[0].softmax(0)
    counted = torch.stack(
        [weights[0] + weights[2], weights[3], weights[1], weights[2:].sum(), weights[:2].sum()]
    )
    torch.testing.assert_close(search.mean[0, 0], (1 - SMOOTHING) * counted + SMOOTHING * equal)


def test_a_warm_start_loosens_each_group_towards_its_own_equal_chances() -> None:
    planner = CEM(
        SETTINGS.model_copy(update={"warm_start": True, "horizon": 2}), 5, discrete=(3, 2)
    )
    before = torch.tensor([[[1.0, 0, 0, 0, 1], [0, 1, 0, 0.5, 0.5]]])
    carry = planner.initial(1)._replace(mean=before, known=torch.ones(1).bool())
    search = planner.start(carry, torch.zeros(1).bool(), torch.zeros(1, 4, 2, 2))
    equal = torch.tensor([1 / 3] * 3 + [1 / 2] * 2)
    expected = (1 - RESTART) * before[0, 1] + RESTART * equal
    torch.testing.assert_close(search.mean[0], expected.expand(2, 5))


def test_choices_as_tensors() -> None:
    assert runs(GROUPS) == [(1, 3), (2, 2), (1, 4)]
    index = torch.tensor([[2, 0, 1, 3], [0, 1, 1, 0]])
    actions = one_hots(index, GROUPS, torch.float32)
    assert actions.tolist() == [
        [0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0],
    ]
    assert torch.equal(likeliest(actions * 0.3 - 5, GROUPS), actions)
    drawn = uniform(torch.tensor([0.0, 0.5, 0.49, 1.0]), GROUPS, torch.float32)
    assert drawn.nonzero().flatten().tolist() == [0, 4, 5, 10]
    flags = each_entry(torch.tensor([True, False, True, False]), GROUPS)
    assert flags.tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False] * 4


def test_groups_of_another_size_are_one_line() -> None:
    assert groups_of(True, 4) == (4,) and groups_of(False, 4) == groups_of((), 4) == ()
    with pytest.raises(
        PlanetError, match=r"^discrete = \[3, 2\]: sizes of groups .* must add up to the 4 entries"
    ):
        planner_from_settings(SETTINGS, 4, (3, 2))


def test_candidates_that_take_too_much_are_refused_before_any_is_made() -> None:
    settings = PlannerSettings(candidates=20_000, horizon=12, elites=100)
    line = (
        r"^planner.candidates = 20000: with horizon 12 and 8192 choices a .* 7.3 GiB .* "
        "planner.candidates=2730 or"
    )
    with pytest.raises(PlanetError, match=line):
        planner_from_settings(settings, 8192, True)
    assert planner_from_settings(settings.model_copy(update={"candidates": 2730}), 8192, True)
    assert planner_from_settings(settings, 8192)  # numbers are the user's own affair


def test_batched_equals_separate_on_the_same_noise() -> None:
    planner = CategoricalCEM(SETTINGS, A)
    dynamics = lock(1)
    state = torch.arange(3.0)[:, None]
    noise = planner.draw(dynamics, state, torch.Generator().manual_seed(1))
    first = torch.ones(3, dtype=torch.bool)
    together, _ = planner.plan(dynamics, Objective(), state, planner.initial(3), first, noise=noise)
    for row in range(3):
        one = tuple(drawn._replace(actions=drawn.actions[row : row + 1]) for drawn in noise)
        alone, _ = planner.plan(
            dynamics, Objective(), state[row : row + 1], planner.initial(1), first[:1], noise=one
        )
        assert torch.equal(alone.sequence[0], together.sequence[row])
