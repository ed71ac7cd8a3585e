"""Properties of any shape, over shapes that hypothesis picks; the same ones in every run."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planet_rssm.config import RSSMSettings
from planet_rssm.types import State
from planet_rssm.world_model import RSSM, TwohotEncoder
from planet_rssm.world_model.latents import CategoricalLatent, GaussianLatent, Latent
from planet_rssm.world_model.networks import BlockLinear

few = settings(derandomize=True, max_examples=15, deadline=None, database=None)
small = st.integers(1, 5)
leads = st.lists(st.integers(1, 3), min_size=1, max_size=3)
latents = st.one_of(
    st.builds(GaussianLatent, small, st.floats(0.01, 1), st.sampled_from(["softplus", "sigmoid2"])),
    st.builds(CategoricalLatent, small, st.integers(2, 6), st.floats(0, 0.5)),
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@few
@given(latent=latents, lead=leads)
def test_latents_keep_leading_axes(latent: Latent, lead: list[int]) -> None:
    params, other = (
        latent.params(drawn(*lead, latent.raw_size)),
        latent.params(drawn(*lead, latent.raw_size).flip(-1)),
    )
    for noise in (drawn(*lead, latent.noise_size), None):
        assert latent.sample(params, noise).shape == (*lead, latent.size)
    kl = latent.kl(params, other)
    assert kl.shape == latent.entropy(params).shape == tuple(lead)
    assert (kl >= -1e-12).all()
    assert all(value.shape == tuple(lead) for value in latent.diagnostics(params).values())
    flat = latent.params(drawn(*lead, latent.raw_size).flatten(0, -2))
    torch.testing.assert_close(latent.entropy(flat).reshape(lead), latent.entropy(params))


@few
@given(blocks=small, inputs=small, outputs=small, lead=leads)
def test_each_block_sees_its_own_inputs_alone(
    blocks: int, inputs: int, outputs: int, lead: list[int]
) -> None:
    layer = BlockLinear(blocks * inputs, blocks * outputs, blocks).double()
    x = drawn(*lead, blocks * inputs)
    changed = x.clone()
    changed[..., :inputs] += 1
    moved = (layer(changed) - layer(x)).detach()
    assert moved.shape == (*lead, blocks * outputs)
    assert not moved[..., outputs:].any() and moved[..., :outputs].any()


@few
@given(
    latent=st.sampled_from(["gaussian", "categorical"]),
    deter=st.integers(1, 3),
    blocks=st.integers(0, 3),
    sizes=st.tuples(small, small, small, small, st.integers(1, 4)),
)
def test_state_space_models_of_any_size_filter_and_imagine(
    latent: str, deter: int, blocks: int, sizes: tuple[int, ...]
) -> None:
    stoch, hidden, action, batch, length = sizes
    deter *= max(blocks, 1)
    rssm = RSSM(
        RSSMSettings(
            latent=latent, stoch=stoch, classes=3, deter=deter, hidden=hidden, blocks=blocks
        ),
        action,
        4,
    ).double()
    first = torch.zeros(batch, length, dtype=torch.bool)
    noise, actions = drawn(batch, length, rssm.noise_size), drawn(batch, length, action)
    states, _ = rssm.observe(drawn(batch, length, 4), actions, first, noise)
    ahead = rssm.imagine(State(states.deter[:, -1], states.stoch[:, -1]), actions, noise)
    for states_of_both in (states, ahead):
        assert states_of_both.deter.shape == (
            batch,
            length,
            deter,
        ) and states_of_both.stoch.shape == (
            batch,
            length,
            rssm.stoch_size,
        )
        assert rssm.feat(states_of_both).isfinite().all()
    alone, _ = rssm.observe(drawn(batch, length, 4)[:1], actions[:1], first[:1], noise[:1])
    torch.testing.assert_close(rssm.feat(alone), rssm.feat(states)[:1])


@few
@given(
    half=st.integers(1, 20),
    limit=st.floats(0.1, 10),
    shares=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
)
def test_any_number_within_the_bins_comes_back(
    half: int, limit: float, shares: list[float]
) -> None:
    encoder = TwohotEncoder(2 * half + 1, limit)
    values = torch.tensor(shares, dtype=torch.float64) * encoder.bins[-1].double()
    weights = encoder.encode(values)
    torch.testing.assert_close(
        (weights * encoder.bins.double()).sum(-1), values, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(encoder.decode(weights.log()), values, rtol=1e-9, atol=1e-9)
