"""What `WorldModel.loss` takes and returns, and its terms: plain functions, each [B, T]."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from planet_rssm import ranks
from planet_rssm.config import KLSettings
from planet_rssm.types import Batch, State
from planet_rssm.world_model.latents import Latent, stopped

if TYPE_CHECKING:
    from planet_rssm.world_model.rssm import RSSM

Params = Any  # of a latent; opaque outside latents.py


class LossNoise(NamedTuple):
    """All the randomness of one loss: nothing inside the loss draws."""

    pixels: dict[str, Tensor]  # uniform [0, 1) [B, T, size, size, 3], of quantised images
    latent: Tensor  # standard normal [B, T, noise_size]
    frames: Tensor  # int64 [K], which of the B * T frames are decoded
    overshooting: Tensor  # standard normal [D, B, T, noise_size]

    def of_rows(self, rows: range) -> "LossNoise":
        """Return what of it belongs to these rows of the batch."""
        length = self.latent.shape[1]
        part = slice(rows.start, rows.stop)
        decoded = (self.frames >= rows.start * length) & (self.frames < rows.stop * length)
        return LossNoise(
            {key: value[part] for key, value in self.pixels.items()},
            self.latent[part],
            self.frames[decoded] - rows.start * length,
            self.overshooting[:, part],
        )


class Context(NamedTuple):
    """What a loss starts from, and behaviour that learns from the states."""

    observation: dict[str, Tensor]  # preprocessed [B, T, ...], by key
    embed: Tensor  # [B, T, E]
    states: State  # posterior states [B, T, ...]
    posterior: Params  # [B, T, ...]
    prior: Params  # [B, T, ...]


class LossOutput(NamedTuple):
    """What `WorldModel.loss` returns."""

    total: Tensor  # a scalar, to minimise
    metrics: dict[str, Tensor]  # detached scalars by name: each term, KL, entropies, predictions
    context: Context  # what it was computed from


def half_squared_error(prediction: Tensor, target: Tensor, event_dims: int) -> Tensor:
    """Return -log N(target; prediction, 1) without its constant, [*B] of [*B, *event].

    It is summed over the event's axes.
    """
    error = (prediction - target).square()
    return 0.5 * (error.flatten(-event_dims).sum(-1) if event_dims else error)


def kl_balanced_loss(
    latent: Latent[Any],
    posterior: Params,
    prior: Params,
    free_nats: float = 1.0,
    dyn: float = 1.0,
    rep: float = 0.1,
) -> Tensor:
    """Return the KL split by who learns from it, [B, T] (DreamerV3, arXiv 2301.04104, equation 5).

    dyn * max(free, KL(sg posterior || prior)) trains the prior, rep * max(free, KL(posterior || sg
    prior)) the posterior. DreamerV2's balance of 0.8 (2010.02193, algorithm 2) is dyn=0.8, rep=0.2.
    """
    terms = kl_terms(latent, posterior, prior, KLSettings(form="balanced", dyn=dyn, rep=rep))
    return torch.stack([weight * kl.clamp(min=free_nats) for weight, kl in terms]).sum(0)


def kl_terms(
    latent: Latent[Any], posterior: Params, prior: Params, settings: KLSettings
) -> list[tuple[float, Tensor]]:
    """Return the weighted divergences [B, T] that make up the KL loss, before free nats.

    `plain` is KL(posterior || prior), which trains both (PlaNet, equation 3); `balanced` see
    `kl_balanced_loss`.
    """
    if settings.form == "plain":
        return [(1.0, latent.kl(posterior, prior))]
    return [
        (settings.dyn, latent.kl(stopped(posterior), prior)),
        (settings.rep, latent.kl(posterior, stopped(prior))),
    ]


def free_mean(kl: Tensor, mask: Tensor, settings: KLSettings) -> Tensor:
    """Return the masked mean of `kl` [B, T], with no gradient where it is below free_nats.

    That is a step's KL, or with `free="mean"` the mean.
    """
    if settings.free == "mean":
        mean = masked_mean(kl, mask)
        if ranks.shared() is None:
            return mean.clamp(min=settings.free_nats)
        return ranks.at_least(mean, settings.free_nats)
    return masked_mean(kl.clamp(min=settings.free_nats), mask)


def overshooting(
    rssm: "RSSM",
    states: State,
    posterior: Params,
    batch: Batch,
    noise: Tensor,
    settings: KLSettings,
) -> Tensor:
    """Return latent overshooting, a scalar: multi-step priors are drawn to the posteriors.

    PlaNet, equation 7.

    From the posterior state of every step at once the prior is followed for d = 2 ... D steps; the
    posterior there is a target and learns nothing from it. A distance counts where chunk, mask and
    episode reach that far; d = 1 is the ordinary KL and is left out.

    Args:
        rssm: the model.
        states: posterior states [B, T, ...].
        posterior: their parameters [B, T, ...].
        batch: the chunks [B, T] that they were filtered from.
        noise: standard normal [D, B, T, noise_size], for the states at each distance.
        settings: D and the free nats.
    """
    length = batch.mask.shape[1]
    distance = min(settings.overshooting, length - 1)
    target = stopped(posterior)
    state = states
    alive = torch.ones_like(batch.mask)
    terms = []
    for d in range(1, distance + 1):
        left = length - d  # starts 0 ... left - 1 have a step d ahead
        alive = alive[:, :left] & batch.mask[:, d:] & ~batch.is_first[:, d:]
        before = State(*(part[:, :left].flatten(0, 1) for part in state))
        after = rssm.imagine_step(
            before, batch.action[:, d:].flatten(0, 1), noise[d - 1, :, :left].flatten(0, 1)
        )
        state = State(*(part.unflatten(0, (-1, left)) for part in after))
        if d > 1:
            ahead = type(target)._make(part[:, d:] for part in target)
            kl = rssm.latent.kl(ahead, rssm.prior(state.deter)).clamp(min=settings.free_nats)
            counted = ranks.count(alive).clamp(min=1)
            terms.append(kl.where(alive, kl.new_zeros(())).sum() / counted)
    return torch.stack(terms).mean() if terms else states.deter.new_zeros(())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` [B, T] where `mask` [B, T] is set.

    Padding contributes neither value nor gradient. Where ranks share a batch it is a rank's share
    of the mean over all of it; see ranks.py.
    """
    counted = mask.sum() if ranks.shared() is None else ranks.count(mask)
    return values.where(mask, values.new_zeros(())).sum() / counted
