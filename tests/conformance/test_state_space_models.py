"""Every latent x cell x kind x initial state passes the same checks, in float64."""

from itertools import product

import pytest
import torch
from torch import Tensor

from planet_rssm import config
from planet_rssm.config import RSSMSettings
from planet_rssm.types import State
from planet_rssm.world_model import RSSM

B, T, A, E, D = 3, 5, 2, 7, 16
LATENTS = {
    "gaussian": {"stoch": 4},
    "sigmoid2": {"stoch": 4, "std": "sigmoid2"},
    "categorical": {"latent": "categorical", "stoch": 3, "classes": 4, "unimix": 0.01},
}
CELLS = {
    "gru": {},
    "tf_gru": {"cell": "tf_gru", "recurrent_depth": 2},
    "norm_gru": {"cell": "norm_gru", "norm": "layer", "act": "elu"},
    "blocks8": {"blocks": 8, "norm": "rms", "act": "silu", "prior_layers": 2},
    "blocks2_deep": {
        "blocks": 2,
        "norm": "rms",
        "act": "silu",
        "recurrent_depth": 2,
        "posterior_layers": 0,
    },
}
# A memoryless model has no cell: one of them stands for all.
CASES = [case for case in product(LATENTS, CELLS, ("rssm", "ssm", "rnn"), ("zeros", "learned"))]
CASES = [case for case in CASES if case[2] != "ssm" or case[1] == "gru"]
Inputs = dict[str, Tensor]


def test_every_latent_that_settings_may_name_is_among_them() -> None:
    assert {form.get("latent", "gaussian") for form in LATENTS.values()} == set(config.LATENTS)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def rssm(request: pytest.FixtureRequest) -> RSSM:
    latent, cell, kind, initial = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RSSM(
            RSSMSettings(
                **LATENTS[latent], **CELLS[cell], kind=kind, initial=initial, deter=D, hidden=9
            ),
            A,
            E,
        ).double()
        if initial == "learned":
            model.initial_deter.data.normal_()
    return model


def inputs_of(rssm: RSSM) -> Inputs:
    rng = torch.Generator().manual_seed(1)
    sizes = {"embed": E, "action": A, "noise": rssm.noise_size}
    drawn = {
        name: torch.randn(B, T, n, generator=rng, dtype=torch.float64) for name, n in sizes.items()
    }
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    first[1, 3] = True  # one row begins another episode there
    return {**drawn, "is_first": first}


def at(inputs: Inputs, place: object) -> Inputs:
    return {name: value[place] for name, value in inputs.items()}


def assert_same(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> None:
    assert type(left) is type(right)
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def part(values: tuple[Tensor, ...], place: object) -> tuple[Tensor, ...]:
    return type(values)._make(value[place] for value in values)


def test_shapes_dtypes_and_sizes_are_as_told(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, posterior = rssm.observe(**inputs)
    assert states.deter.shape == (B, T, rssm.deter_size) and states.stoch.shape == (
        B,
        T,
        rssm.stoch_size,
    )
    assert rssm.feat(states).shape == (B, T, rssm.feat_size)
    assert {x.dtype for x in (*states, *posterior)} == {torch.float64}
    assert all(
        x.shape[:2] == (B, T) and x.isfinite().all()
        for x in (*posterior, *rssm.prior(states.deter))
    )
    assert rssm.latent.kl(posterior, rssm.prior(states.deter)).shape == (B, T)
    assert [x.shape[0] for x in rssm.initial_state(5)] == [5, 5]


def test_observing_a_sequence_is_observing_its_steps(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, posterior = rssm.observe(**inputs)
    state = rssm.initial_state(B)
    for t in range(T):
        state, params = rssm.observe_step(state, **at(inputs, (slice(None), t)))
        assert_same(state, part(states, (slice(None), t)))
        assert_same(params, part(posterior, (slice(None), t)))


def test_a_sequence_goes_on_from_the_state_it_is_given(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    together, _ = rssm.observe(**inputs)
    head, _ = rssm.observe(**at(inputs, (slice(None), slice(2))))
    tail, _ = rssm.observe(
        **at(inputs, (slice(None), slice(2, None))), state=part(head, (slice(None), -1))
    )
    assert_same(tail, part(together, (slice(None), slice(2, None))))


def test_a_reset_inside_a_chunk_is_two_chunks(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, posterior = rssm.observe(**inputs)
    second, params = rssm.observe(**at(inputs, (slice(1, 2), slice(3, None))))
    assert_same(second, part(states, (slice(1, 2), slice(3, None))))
    assert_same(params, part(posterior, (slice(1, 2), slice(3, None))))
    inputs["action"] = inputs["action"].where(~inputs["is_first"][..., None], inputs["action"] + 1)
    assert_same(rssm.observe(**inputs)[0], states)  # the action at a start leads nowhere


def test_imagining_a_sequence_is_imagining_its_steps(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    start = part(rssm.observe(**inputs)[0], (slice(None), -1))
    states = rssm.imagine(start, inputs["action"], inputs["noise"])
    for t in range(T):
        start = rssm.imagine_step(start, inputs["action"][:, t], inputs["noise"][:, t])
        assert_same(start, part(states, (slice(None), t)))


def test_batched_is_separate(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, _ = rssm.observe(**inputs)
    ahead = rssm.imagine(part(states, (slice(None), -1)), inputs["action"], inputs["noise"])
    for b in range(B):
        row = at(inputs, slice(b, b + 1))
        alone, _ = rssm.observe(**row)
        assert_same(alone, part(states, slice(b, b + 1)))
        alone_ahead = rssm.imagine(part(alone, (slice(None), -1)), row["action"], row["noise"])
        assert_same(alone_ahead, part(ahead, slice(b, b + 1)))


def test_without_noise_every_state_is_the_mode(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    inputs["noise"] = None
    states, posterior = rssm.observe(**inputs)
    torch.testing.assert_close(
        states.stoch, rssm.latent.sample(posterior, None), rtol=0, atol=1e-12
    )
    ahead = rssm.imagine(part(states, (slice(None), -1)), inputs["action"], None)
    torch.testing.assert_close(
        ahead.stoch, rssm.latent.sample(rssm.prior(ahead.deter), None), rtol=0, atol=1e-12
    )


def test_noise_matters_unless_the_model_is_deterministic(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, _ = rssm.observe(**inputs)
    other, _ = rssm.observe(**{**inputs, "noise": inputs["noise"] + 1})
    assert torch.equal(states.stoch, other.stoch) == (rssm.settings.kind == "rnn")


def test_inputs_are_left_alone_and_outputs_share_no_memory(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    untouched = inputs_of(rssm)
    with torch.no_grad():
        start = State(*(x.clone() for x in rssm.initial_state(B)))
        before = State(*(x.clone() for x in start))
        states, posterior = rssm.observe(**inputs, state=start)
        for output in (*states, *posterior):
            output.fill_(float("nan"))
        again, _ = rssm.observe(**inputs, state=start)
    assert all(torch.equal(inputs[name], untouched[name]) for name in inputs)
    assert all(torch.equal(one, other) for one, other in zip(start, before, strict=True))
    assert all(x.isfinite().all() for x in again)


def test_the_bound_teaches_every_parameter(rssm: RSSM) -> None:
    inputs = inputs_of(rssm)
    states, posterior = rssm.observe(**inputs)
    kl = rssm.latent.kl(posterior, rssm.prior(states.deter))
    (kl.sum() + rssm.feat(states).square().sum()).backward()
    for name, parameter in rssm.named_parameters():
        assert (
            parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()
        ), name


def test_filtering_and_imagining_share_the_recurrence(rssm: RSSM) -> None:
    """They differ in `stoch` alone, or planning would start from another recurrence."""
    inputs = inputs_of(rssm)
    start = part(rssm.observe(**inputs)[0], (slice(None), -1))
    step = at(inputs, (slice(None), 1))
    observed, _ = rssm.observe_step(start, **step)
    imagined = rssm.imagine_step(start, step["action"], step["noise"])
    torch.testing.assert_close(observed.deter, imagined.deter, rtol=0, atol=1e-12)
