"""What a world model believes of recorded frames, and what it decodes from its beliefs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from planet_rssm.types import State
from planet_rssm.world_model import WorldModel
from planet_rssm.world_model.observations import preprocess


def filtered(
    model: WorldModel, observation: Mapping[str, Tensor], action: Tensor, rng: torch.Generator
) -> State:
    """Return the beliefs [R, T, ...] of observations [R, T, ...], from the initial state on."""
    rows, length = action.shape[:2]
    first = torch.zeros(rows, length, dtype=torch.bool, device=action.device)
    first[:, 0] = True
    embed = model.encode(observation, model.draw_pixels((rows, length), rng, action.device))
    return model.rssm.observe(
        embed, action, first, latent_noise(model, (rows, length), "filter_by", rng)
    )[0]


def decoded(model: WorldModel, states: State) -> dict[str, Tensor]:
    """Return mean observations [R, T, ...] of states [R, T, ...], as `decoder_targets`."""
    rows = states.deter.shape[:2]
    flat = model.decode(State(states.deter.flatten(0, 1), states.stoch.flatten(0, 1)))
    return {key: value.unflatten(0, rows) for key, value in flat.items()}


def decoder_targets(model: WorldModel, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a decoder should predict of observations [*B, ...].

    Images are less 0.5, at the middle of their level.
    """
    levels = model.encoder.image_keys if model.settings.pixels == "quantised" else []
    return preprocess(
        observation,
        {key: torch.full_like(observation[key], 0.5, dtype=torch.float32) for key in levels},
    )


def latent_noise(
    model: WorldModel, lead: tuple[int, ...], way: str, rng: torch.Generator
) -> Tensor | None:
    """Return noise [*lead, noise_size] for latents.

    None where modes are followed by `way`: `filter_by` or `plan_by`.
    """
    if getattr(model.rssm.settings, way) != "sample":
        return None
    return torch.randn((*lead, model.rssm.noise_size), generator=rng, device=rng.device)
