"""CEM over choices."""

import pytest
import torch

from planet_rssm.config import PlannerSettings
from planet_rssm.errors import PlanetError
from planet_rssm.planners import CategoricalCEM, FunctionDynamics, Objective, planner_from_settings
from planet_rssm.planners.categorical import SMOOTHING, CategoricalSearch

H, A = 6, 3
SETTINGS = PlannerSettings(horizon=H, candidates=200, iterations=5, elites=20)
# Choice c is worth something only where the place, which counts the steps, says so: no constant will do.
WANTED = torch.tensor([2, 0, 1, 1, 0, 2])


def lock(offset: int = 0) -> FunctionDynamics:
    def reward(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        wanted = WANTED[(state[:, 0].long() + offset) % H]
        return action.gather(1, wanted[:, None]).squeeze(1)

    return FunctionDynamics(lambda state, action: state + 1, reward)


def decide(batch: int, seed: int = 0, dynamics: FunctionDynamics | None = None):
    planner = planner_from_settings(SETTINGS, A, discrete=True)
    state, first = torch.zeros(batch, 1), torch.ones(batch, dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    return planner.plan(dynamics or lock(), Objective(), state, planner.initial(batch), first, rng)[0]


def test_it_opens_the_lock_and_acts_by_whole_choices() -> None:
    plan = decide(batch=4)
    assert plan.sequence.argmax(-1).tolist() == [WANTED.tolist()] * 4
    assert set(plan.sequence.unique().tolist()) == {0.0, 1.0} and (plan.sequence.sum(-1) == 1).all()
    assert (plan.value > H - 1).all()


def test_choices_come_as_often_as_their_probabilities_say() -> None:
    planner = CategoricalCEM(SETTINGS, A)
    probs = torch.tensor([0.1, 0.6, 0.3]).expand(1, H, A)
    noise = torch.randn(1, 20_000, H, 1, generator=torch.Generator().manual_seed(0))
    drawn = planner.propose(CategoricalSearch(probs, torch.zeros(1)), noise, last=False)
    torch.testing.assert_close(drawn.mean((0, 1)), probs[0], atol=0.01, rtol=0)


def test_a_refit_counts_the_elites_and_leaves_every_choice_possible() -> None:
    planner = CategoricalCEM(SETTINGS.model_copy(update={"candidates": 4, "elites": 2}), A)
    sequences = torch.eye(A)[torch.tensor([0, 0, 1, 2])][None, :, None].expand(1, 4, H, A)
    search = planner.start(planner.initial(1), torch.ones(1, dtype=torch.bool), torch.zeros(1, 4, H, 1))
    search = planner.refit(search, sequences, torch.tensor([[5.0, 1.0, 3.0, -torch.inf]]))
    expected = (1 - SMOOTHING) * torch.tensor([0.5, 0.5, 0.0]) + SMOOTHING / A
    torch.testing.assert_close(search.probs, expected.expand(1, H, A))
    assert search.value.item() == 4


def test_batched_equals_separate_on_the_same_noise() -> None:
    planner, dynamics, state = CategoricalCEM(SETTINGS, A), lock(1), torch.arange(3.0)[:, None]
    noise = planner.draw(dynamics, state, torch.Generator().manual_seed(1))
    first = torch.ones(3, dtype=torch.bool)
    whole, _ = planner.solve(dynamics, Objective(), state, planner.initial(3), first, noise)
    for row in range(3):
        one = tuple(drawn._replace(actions=drawn.actions[row : row + 1]) for drawn in noise)
        alone, _ = planner.solve(dynamics, Objective(), state[row : row + 1], planner.initial(1), first[:1], one)
        assert torch.equal(alone.sequence[0], whole.sequence[row])


def test_icem_says_that_it_does_not_choose() -> None:
    with pytest.raises(PlanetError, match="planner.name = 'icem': not for discrete actions; use 'cem'"):
        planner_from_settings(SETTINGS.model_copy(update={"name": "icem"}), A, discrete=True)
