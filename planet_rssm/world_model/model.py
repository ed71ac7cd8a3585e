"""The world model: encoder, RSSM, decoder and reward head behind one loss."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from planet_rssm.config import Settings
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.types import Batch, State
from planet_rssm.world_model.losses import KL_LOSSES, half_squared_error, masked_mean
from planet_rssm.world_model.networks import ConvDecoder, ConvEncoder, mlp, preprocess
from planet_rssm.world_model.rssm import RSSM


class LossNoise(NamedTuple):
    """All the randomness of one loss: nothing inside the loss draws."""

    pixels: Tensor  # uniform [B, T, size, size, 3], dequantisation
    latent: Tensor  # standard normal [B, T, S]
    frames: Tensor  # int64 [K], which of the B * T frames are decoded


class WorldModel(nn.Module):
    """Learns p(image, reward | actions) by the bound of PlaNet's equation 3."""

    def __init__(self, settings: Settings, action_size: int) -> None:
        super().__init__()
        model = settings.model
        self.settings = model
        self.image_size = settings.env.size
        feat = model.deter + model.stoch
        self.encoder = ConvEncoder(self.image_size, model.depth)
        self.rssm = RSSM(model, action_size, self.encoder.embed_size)
        self.decoder = ConvDecoder(feat, self.image_size, model.depth)
        self.reward = mlp(feat, model.reward_units, model.reward_layers, 1)

    def encode(self, image: Tensor, noise: Tensor) -> Tensor:
        """Encode uint8 images [*B, size, size, 3] with uniform `noise` of their shape into embeddings [*B, E]."""
        return self.embed(preprocess(image, noise))

    def embed(self, pixels: Tensor) -> Tensor:
        """Encode preprocessed images [*B, size, size, 3] into embeddings [*B, E]."""
        return self.encoder(pixels.flatten(0, -4)).unflatten(0, pixels.shape[:-3])

    def decode(self, state: State) -> Tensor:
        """Return the mean image of states [M, ...] in preprocessed units, [M, size, size, 3]."""
        return self.decoder(state.feat)

    def predict_reward(self, state: State) -> Tensor:
        """Return the mean reward that comes with states [*B, ...], [*B], float32."""
        return self.reward(state.feat).squeeze(-1).float()

    def draw(self, batch: int, length: int, generator: torch.Generator, device: torch.device) -> LossNoise:
        """Draw the randomness of one loss over [batch, length] steps, on the generator's device, moved to `device`."""
        frames = batch * length
        decoded = round(self.settings.decode_fraction * frames)
        where = generator.device
        chosen = torch.randperm(frames, generator=generator, device=where)[:decoded].sort().values
        shape = (batch, length, self.image_size, self.image_size, 3)
        pixels = torch.rand(shape, generator=generator, device=where)
        latent = torch.randn(batch, length, self.rssm.stoch_size, generator=generator, device=where)
        return LossNoise(pixels.to(device), latent.to(device), chosen.to(device))

    def loss(self, batch: Batch, noise: LossNoise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, a scalar, and its parts by name (detached scalars).

        Image and reward terms are half squared errors (a unit Gaussian without its constant), summed over pixels; every
        term is averaged over the unmasked steps.
        """
        pixels = preprocess(batch.observation["image"], noise.pixels)
        states, posterior = self.rssm.observe(self.embed(pixels), batch.action, batch.is_first, noise.latent)
        prior = self.rssm.prior(states.deter)
        reward = half_squared_error(self.predict_reward(states), batch.reward, 0)
        kl = KL_LOSSES[self.settings.kl](self.rssm.latent, posterior, prior, self.settings)
        terms = {
            "image": self.settings.image_scale * self._image_loss(states, pixels, batch.mask, noise.frames),
            "reward": self.settings.reward_scale * masked_mean(reward, batch.mask),
            "kl": masked_mean(kl, batch.mask),
        }
        total = torch.stack(list(terms.values())).sum()
        metrics = {f"loss/{name}": term.detach() for name, term in terms.items()} | {"loss/total": total.detach()}
        with torch.no_grad():
            metrics["kl"] = masked_mean(self.rssm.latent.kl(posterior, prior), batch.mask)
            metrics["entropy/prior"] = masked_mean(self.rssm.latent.entropy(prior), batch.mask)
            metrics["entropy/posterior"] = masked_mean(self.rssm.latent.entropy(posterior), batch.mask)
        return total, metrics

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters by part, and their total."""
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        return counts | {"total": sum(counts.values())}

    def _image_loss(self, states: State, pixels: Tensor, mask: Tensor, frames: Tensor) -> Tensor:
        """Estimate the mean over steps from the chosen frames alone; decoding is the most expensive part."""
        chosen = State(*(part.flatten(0, 1)[frames] for part in states))
        error = half_squared_error(self.decode(chosen), pixels.flatten(0, 1)[frames], 3)
        kept = mask.flatten()[frames]
        return error.where(kept, error.new_zeros(())).sum() / kept.sum().clamp(min=1)


def untrained_model(settings: Settings, action_size: int) -> WorldModel:
    """Return the model as a run of these settings starts with it; the same weights at every call."""
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator, which is put back
        torch.manual_seed(stream_seed(settings.seed, Stream.INIT))
        return WorldModel(settings, action_size)
