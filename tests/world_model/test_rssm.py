"""Sequences equal their steps, resets cut, batched equals separate: all on the same noise, in float64."""

import pytest
import torch

from planet_rssm.config import RSSMSettings
from planet_rssm.types import State
from planet_rssm.world_model import RSSM

B, T, A, E, S, D = 3, 6, 2, 7, 4, 8


@pytest.fixture
def rssm() -> RSSM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RSSM(RSSMSettings(deter=D, stoch=S, hidden=9), A, E).double()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    return {"embed": normal(B, T, E), "action": normal(B, T, A), "is_first": first, "noise": normal(B, T, S)}


def assert_states_equal(left: State, right: State) -> None:
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_observe_equals_observe_steps(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    states, posterior = rssm.observe(**inputs)
    assert states.deter.shape == (B, T, D)
    assert states.stoch.shape == (B, T, S)
    state = rssm.initial_state(B)
    for t in range(T):
        step = {name: value[:, t] for name, value in inputs.items()}
        state, params = rssm.observe_step(state, **step)
        assert_states_equal(state, State(states.deter[:, t], states.stoch[:, t]))
        torch.testing.assert_close(params.mean, posterior.mean[:, t])


def test_imagine_equals_imagine_steps(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    start = State(torch.randn(B, D, dtype=torch.float64), torch.randn(B, S, dtype=torch.float64))
    states = rssm.imagine(start, inputs["action"], inputs["noise"])
    for t in range(T):
        start = rssm.imagine_step(start, inputs["action"][:, t], inputs["noise"][:, t])
        assert_states_equal(start, State(states.deter[:, t], states.stoch[:, t]))


def test_a_reset_inside_a_chunk_equals_two_chunks(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    inputs["is_first"][:, 4] = True
    whole, _ = rssm.observe(**inputs)
    second, _ = rssm.observe(**{name: value[:, 4:] for name, value in inputs.items()})
    assert_states_equal(State(whole.deter[:, 4:], whole.stoch[:, 4:]), second)


def test_the_action_at_is_first_does_not_matter(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    before, _ = rssm.observe(**inputs)
    inputs["action"][:, 0] += 1
    after, _ = rssm.observe(**inputs)
    assert_states_equal(before, after)


def test_batched_equals_separate(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    together, _ = rssm.observe(**inputs)
    for b in range(B):
        alone, _ = rssm.observe(**{name: value[b : b + 1] for name, value in inputs.items()})
        assert_states_equal(alone, State(together.deter[b : b + 1], together.stoch[b : b + 1]))


def test_without_an_observation_posterior_and_prior_share_deter(rssm: RSSM, inputs: dict[str, torch.Tensor]) -> None:
    """Filtering and imagining differ in `stoch` alone, or planning would start from another recurrence."""
    start = State(torch.randn(B, D, dtype=torch.float64), torch.randn(B, S, dtype=torch.float64))
    step = {name: value[:, 1] for name, value in inputs.items()}
    observed, _ = rssm.observe_step(start, **step)
    imagined = rssm.imagine_step(start, step["action"], step["noise"])
    torch.testing.assert_close(observed.deter, imagined.deter)
    assert not torch.allclose(observed.stoch, imagined.stoch)
