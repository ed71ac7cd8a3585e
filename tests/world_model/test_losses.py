"""Loss terms in float64. KL: free nats below the bound, who learns how much, for both latents."""

import pytest
import torch
from torch import Tensor

from planet_rssm.config import KLSettings
from planet_rssm.world_model.latents import CategoricalLatent, GaussianLatent, Latent
from planet_rssm.world_model.losses import (
    free_mean,
    half_squared_error,
    kl_balanced_loss,
    kl_terms,
    masked_mean,
)

B, T = 2, 4
LATENTS = {"gaussian": GaussianLatent(5, 0.1), "categorical": CategoricalLatent(3, 4, 0.01)}
FORMS = [
    KLSettings(),
    KLSettings(form="balanced", dyn=0.8, rep=0.2),
    KLSettings(form="balanced", dyn=1.0, rep=0.1),
]
every = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
forms = pytest.mark.parametrize("form", FORMS, ids=["plain", "v2", "v3"])


class Case:
    """Posterior and prior of one latent, their true divergence and its gradients."""

    def __init__(self, latent: Latent) -> None:
        rng = torch.Generator().manual_seed(0)
        self.raw = [
            torch.randn(B, T, latent.raw_size, generator=rng, dtype=torch.float64).requires_grad_()
            for _ in range(2)
        ]
        self.posterior, self.prior = (latent.params(raw) for raw in self.raw)
        self.kl = latent.kl(self.posterior, self.prior)
        self.mask = torch.ones(B, T, dtype=torch.bool)
        self.mask[1, 2:] = False

    def gradients(self, loss: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, self.raw, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(raw) if g is None else g
            for g, raw in zip(gradients, self.raw, strict=True)
        ]

    def mean(self, values: Tensor) -> Tensor:
        return values[self.mask].mean()


def loss_of(latent: Latent, case: Case, settings: KLSettings) -> Tensor:
    terms = kl_terms(latent, case.posterior, case.prior, settings)
    return torch.stack([weight * free_mean(kl, case.mask, settings) for weight, kl in terms]).sum()


def weights_of(settings: KLSettings) -> tuple[float, float, float]:
    """The share of the true gradient of the posterior, of the prior, and the value's weight."""
    return (
        (1, 1, 1)
        if settings.form == "plain"
        else (settings.rep, settings.dyn, settings.dyn + settings.rep)
    )


@every
@forms
def test_without_free_nats_each_side_gets_its_weight_of_the_true_gradient(
    latent: Latent, form: KLSettings
) -> None:
    case, settings = Case(latent), form.model_copy(update={"free_nats": 0.0})
    loss = loss_of(latent, case, settings)
    rep, dyn, total = weights_of(form)
    torch.testing.assert_close(loss, total * case.mean(case.kl))
    posterior, prior = case.gradients(case.mean(case.kl))
    torch.testing.assert_close(case.gradients(loss), [rep * posterior, dyn * prior])


@every
@forms
@pytest.mark.parametrize("free", ["step", "mean"])
def test_below_the_bound_the_loss_is_flat(latent: Latent, form: KLSettings, free: str) -> None:
    case = Case(latent)
    above = float(case.kl.detach().max()) + 1
    loss = loss_of(latent, case, form.model_copy(update={"free": free, "free_nats": above}))
    assert loss.item() == pytest.approx(weights_of(form)[2] * above)
    assert not any(gradient.any() for gradient in case.gradients(loss))


@every
@forms
def test_free_steps_are_single_steps(latent: Latent, form: KLSettings) -> None:
    """Steps below the bound cost it and are flat; the others are as if there were none."""
    case = Case(latent)
    bound = float(case.kl.detach()[case.mask].median())
    loss = loss_of(latent, case, form.model_copy(update={"free_nats": bound}))
    free = case.kl < bound
    assert (free & case.mask).any() and (~free & case.mask).any()
    expected = torch.where(free, torch.full_like(case.kl, bound), case.kl)
    rep, dyn, total = weights_of(form)
    torch.testing.assert_close(loss, total * case.mean(expected))
    posterior, prior = case.gradients(case.mean(expected))
    torch.testing.assert_close(case.gradients(loss), [rep * posterior, dyn * prior])
    assert not case.gradients(loss)[0][free].any()


@every
@forms
def test_free_means_let_single_steps_be_below(latent: Latent, form: KLSettings) -> None:
    case = Case(latent)
    kl = case.kl.detach()
    mean, least = float(case.mean(kl)), float(kl[case.mask].min())
    bound = (mean + least) / 2
    settings = form.model_copy(update={"free": "mean", "free_nats": bound})
    unbound = form.model_copy(update={"free": "mean", "free_nats": 0.0})
    torch.testing.assert_close(loss_of(latent, case, settings), loss_of(latent, case, unbound))
    assert case.gradients(loss_of(latent, case, settings))[1][case.mask].abs().sum(-1).all()


@every
def test_the_public_balanced_loss_is_what_the_model_takes(latent: Latent) -> None:
    case = Case(latent)
    settings = KLSettings(
        form="balanced", dyn=0.7, rep=0.3, free_nats=float(case.kl.detach().mean())
    )
    loss = kl_balanced_loss(
        latent, case.posterior, case.prior, settings.free_nats, dyn=0.7, rep=0.3
    )
    assert loss.shape == (B, T)
    torch.testing.assert_close(case.mean(loss), loss_of(latent, case, settings))


def test_half_squared_error_sums_over_the_event() -> None:
    prediction, target = torch.ones(2, 3, 4, 4, 3), torch.zeros(2, 3, 4, 4, 3)
    torch.testing.assert_close(half_squared_error(prediction, target, 3), torch.full((2, 3), 24.0))
    torch.testing.assert_close(
        half_squared_error(prediction, target, 0), torch.full((2, 3, 4, 4, 3), 0.5)
    )


def test_masked_mean_ignores_even_nan_padding() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, float("nan")]], requires_grad=True)
    mean = masked_mean(values, torch.tensor([[True, True], [True, False]]))
    assert mean.item() == 3.0
    mean.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[1.0, 1.0], [1.0, 0.0]]) / 3)
