"""Loss terms as plain functions, each [B, T] before the masked mean."""

from torch import Tensor

from planet_rssm.config import ModelSettings
from planet_rssm.world_model.latents import Gaussian, GaussianLatent


def half_squared_error(prediction: Tensor, target: Tensor, event_dims: int) -> Tensor:
    """Return -log N(target; prediction, 1) without its constant, [*B] of [*B, *event], summed over the event's axes."""
    error = 0.5 * (prediction.float() - target).square()
    return error.flatten(-event_dims).sum(-1) if event_dims else error


def plain_kl(latent: GaussianLatent, posterior: Gaussian, prior: Gaussian, settings: ModelSettings) -> Tensor:
    """Return max(0, KL(posterior || prior) - free_nats) a step, [B, T] (PlaNet, equation 3 with free nats)."""
    return (latent.kl(posterior, prior) - settings.free_nats).clamp(min=0)


def balanced_kl(latent: GaussianLatent, posterior: Gaussian, prior: Gaussian, settings: ModelSettings) -> Tensor:
    """Return the KL split by who learns from it, [B, T] (DreamerV3, arXiv 2301.04104, equation 5).

    kl_dyn * max(free, KL(sg posterior || prior)) trains the prior, kl_rep * max(free, KL(posterior || sg prior)) the
    posterior; each is free below `free_nats`.
    """
    dyn = latent.kl(_stopped(posterior), prior).clamp(min=settings.free_nats)
    rep = latent.kl(posterior, _stopped(prior)).clamp(min=settings.free_nats)
    return settings.kl_dyn * dyn + settings.kl_rep * rep


KL_LOSSES = {"plain": plain_kl, "balanced": balanced_kl}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` [B, T] where `mask` [B, T] is set; padding contributes neither value nor gradient."""
    return values.where(mask, values.new_zeros(())).sum() / mask.sum()


def _stopped(params: Gaussian) -> Gaussian:
    return Gaussian(params.mean.detach(), params.std.detach())
