"""Imagined frames beside the true ones, for a video."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.base.device import generator
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.data.episode import Episode
from planet_rssm.openloop.imagination import decoded, decoder_targets, filtered, latent_noise
from planet_rssm.types import State
from planet_rssm.world_model import WorldModel


class DreamFrames(NamedTuple):
    """R imagined sequences of T frames, in pixels of 0 to 1; the first `context` were observed."""

    truth: np.ndarray  # [R, T, size, size, 3]
    prediction: np.ndarray  # [R, T, size, size, 3]
    context: int


@torch.inference_mode()
def dream_frames(
    model: WorldModel,
    episodes: Sequence[Episode],
    horizon: int,
    context: int,
    device: torch.device,
    rows: int = 3,
) -> DreamFrames:
    """Return what a model imagines from the first frames of a few episodes, beside the truth.

    They are the frames of its first image key.

    Args:
        model: on `device`; it observes images.
        episodes: `rows` at most are taken of those with `context + horizon` frames, evenly spread;
            there must be one.
        horizon: agent steps that are imagined.
        context: frames that are filtered first; there the prediction is what the belief decodes to.
        device: where the model is.
        rows: sequences at most.
    """
    length = context + horizon
    key = model.encoder.image_keys[0]
    long = [episode for episode in episodes if episode.length >= length]
    chosen = [long[at] for at in np.unique(np.linspace(0, len(long) - 1, rows).astype(int))]
    observation = {
        name: torch.from_numpy(
            np.stack([episode.observation[name][:length] for episode in chosen])
        ).to(device)
        for name in chosen[0].observation
    }
    action = torch.from_numpy(np.stack([episode.action[:length] for episode in chosen])).to(device)
    rng = generator(stream_seed(0, Stream.DREAM, 0), device)
    past = {name: value[:, :context] for name, value in observation.items()}
    belief = filtered(model, past, action[:, :context], rng)
    last = State(belief.deter[:, -1], belief.stoch[:, -1])
    ahead = model.rssm.imagine(
        last, action[:, context:], latent_noise(model, (len(chosen), horizon), "plan_by", rng)
    )
    prediction = [decoded(model, states)[key] for states in (belief, ahead)]
    truth = decoder_targets(model, observation)[key]
    return DreamFrames(_pixels(truth), _pixels(torch.cat(prediction, 1)), context)


def _pixels(image: Tensor) -> np.ndarray:
    return (image + 0.5).clamp(0, 1).float().cpu().numpy()
