"""The randomness of a filter step: the belief's sample and the pixels' quantisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from planet_rssm.world_model import RSSM, WorldModel


def latent_noise(rssm: RSSM, rows: int, rngs: Sequence[torch.Generator]) -> Tensor | None:
    """Return standard normal noise for a belief, or None if it is the posterior's mode.

    Each generator draws an equal share of the rows.
    """
    share = rows // len(rngs)
    noise = [torch.randn(share, rssm.noise_size, generator=rng, device=rng.device) for rng in rngs]
    return torch.cat(noise) if rssm.settings.filter_by == "sample" else None


def filter_noise(
    model: WorldModel, rows: int, rngs: Sequence[torch.Generator]
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Return the noise of the belief, and of the pixels by key.

    Each generator draws an equal share of the rows.
    """
    share = rows // len(rngs)
    latents = []
    pixels = []
    for rng in rngs:
        latents.append(latent_noise(model.rssm, share, [rng]))
        pixels.append(model.draw_pixels((share,), rng, rng.device))
    joined = {key: torch.cat([part[key] for part in pixels]) for key in pixels[0]}
    drawn = [latent for latent in latents if latent is not None]
    return torch.cat(drawn) if drawn else None, joined
