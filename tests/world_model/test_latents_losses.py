"""Closed forms in float64."""

import torch
from torch.distributions import Normal, kl_divergence

from planet_rssm.config import KLSettings
from planet_rssm.world_model.latents import Gaussian, GaussianLatent
from planet_rssm.world_model.losses import free_mean, half_squared_error, kl_balanced_loss, kl_terms, masked_mean

LATENT = GaussianLatent(5, 0.1)


def gaussian(seed: int, requires_grad: bool = False) -> Gaussian:
    rng = torch.Generator().manual_seed(seed)
    mean = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64)
    std = torch.rand(2, 3, 5, generator=rng, dtype=torch.float64) + 0.1
    return Gaussian(mean.requires_grad_(requires_grad), std.requires_grad_(requires_grad))


def test_kl_and_entropy_agree_with_torch_distributions() -> None:
    left, right = gaussian(0), gaussian(1)
    expected = kl_divergence(Normal(*left), Normal(*right)).sum(-1)
    torch.testing.assert_close(LATENT.kl(left, right), expected)
    torch.testing.assert_close(LATENT.entropy(left), Normal(*left).entropy().sum(-1))


def test_kl_of_unit_steps_by_hand() -> None:
    """KL(N(1, 1) || N(0, 1)) = 1/2 a dimension."""
    ones, zeros = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    assert LATENT.kl(Gaussian(ones, ones), Gaussian(zeros, ones)).item() == 2.5


def test_sample_has_the_given_moments_and_min_std_holds() -> None:
    params = LATENT.params(torch.full((1, 10), -50.0))
    torch.testing.assert_close(params.std, torch.full((1, 5), 0.1))
    noise = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(0))
    drawn = LATENT.sample(Gaussian(torch.tensor(2.0), torch.tensor(3.0)), noise)
    assert abs(drawn.mean() - 2) < 0.05
    assert abs(drawn.std() - 3) < 0.05


def test_plain_kl_is_free_below_its_nats() -> None:
    posterior, prior = gaussian(0, requires_grad=True), gaussian(1)
    values = LATENT.kl(posterior, prior)
    free = float(values.detach().max()) + 1
    mask = torch.ones(2, 3, dtype=torch.bool)
    for how in ("step", "mean"):
        settings = KLSettings(free=how, free_nats=free)
        [(weight, kl)] = kl_terms(LATENT, posterior, prior, settings)
        assert weight == 1 and torch.equal(kl, values)
        loss = free_mean(kl, mask, settings)
        assert loss.item() == free
        loss.backward(retain_graph=True)
        assert not posterior.mean.grad.any()
    half = KLSettings(free_nats=float(values.detach().median()))
    torch.testing.assert_close(free_mean(values, mask, half), values.clamp(min=half.free_nats).mean())
    torch.testing.assert_close(free_mean(values, mask, KLSettings(free="mean", free_nats=0)), values.mean())


def test_balanced_kl_weights_who_learns() -> None:
    """With rep = 0 only the prior learns, with dyn = 0 only the posterior; both see the same value."""
    for dyn, rep in ((1.0, 0.0), (0.0, 0.5)):
        posterior, prior = gaussian(0, requires_grad=True), gaussian(1, requires_grad=True)
        loss = kl_balanced_loss(LATENT, posterior, prior, free_nats=0.0, dyn=dyn, rep=rep)
        torch.testing.assert_close(loss, (dyn + rep) * LATENT.kl(posterior, prior))
        loss.sum().backward()
        assert (posterior.mean.grad is not None and posterior.mean.grad.any().item()) == (rep > 0)
        assert (prior.mean.grad is not None and prior.mean.grad.any().item()) == (dyn > 0)


def test_half_squared_error_sums_over_the_event() -> None:
    prediction, target = torch.ones(2, 3, 4, 4, 3), torch.zeros(2, 3, 4, 4, 3)
    torch.testing.assert_close(half_squared_error(prediction, target, 3), torch.full((2, 3), 24.0))
    torch.testing.assert_close(half_squared_error(prediction, target, 0), torch.full((2, 3, 4, 4, 3), 0.5))


def test_masked_mean_ignores_even_nan_padding() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, float("nan")]], requires_grad=True)
    mean = masked_mean(values, torch.tensor([[True, True], [True, False]]))
    assert mean.item() == 3.0
    mean.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[1.0, 1.0], [1.0, 0.0]]) / 3)
