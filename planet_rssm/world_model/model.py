"""The world model: encoder, RSSM, decoder and heads behind one loss."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from planet_rssm.config import ModelSettings, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.types import Batch, State
from planet_rssm.world_model.losses import KL_LOSSES, half_squared_error, masked_mean
from planet_rssm.world_model.networks import mlp
from planet_rssm.world_model.observations import Decoder, Encoder, preprocess, summed_error
from planet_rssm.world_model.rssm import RSSM


class LossNoise(NamedTuple):
    """All the randomness of one loss: nothing inside the loss draws."""

    pixels: dict[str, Tensor]  # uniform [B, T, size, size, 3] by image key, dequantisation
    latent: Tensor  # standard normal [B, T, S]
    frames: Tensor  # int64 [K], which of the B * T frames are decoded


class WorldModel(nn.Module):
    """Learns p(observation, reward | actions) by the bound of PlaNet's equation 3.

    Where the environment ends episodes by itself (`spec.terminates`), a third head foretells whether the state is one
    after which it goes on.
    """

    def __init__(self, settings: ModelSettings, spec: EnvSpec) -> None:
        super().__init__()
        self.settings, self.spec = settings, spec
        feat = settings.deter + settings.stoch
        self.encoder = Encoder(spec, settings)
        self.rssm = RSSM(settings, spec.action_size, self.encoder.embed_size)
        self.decoder = Decoder(feat, spec, settings)
        self.reward = mlp(feat, settings.reward_units, settings.reward_layers, 1)
        self.goes_on = mlp(feat, settings.reward_units, settings.reward_layers, 1) if spec.terminates else None

    def encode(self, observation: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        """Encode observations [*B, ...] as the environment gives them, with `draw_pixels` noise, into [*B, E]."""
        return self.encoder(preprocess(observation, noise))

    def decode(self, state: State) -> dict[str, Tensor]:
        """Return the mean observations of states [M, ...] in preprocessed units, by key."""
        feat = state.feat
        return self.decoder.decode_images(feat) | self.decoder.decode_vectors(feat)

    def predict_reward(self, state: State) -> Tensor:
        """Return the mean reward that comes with states [*B, ...], [*B], float32."""
        return self.reward(state.feat).squeeze(-1).float()

    def predict_continue(self, state: State) -> Tensor:
        """Return the probability that the episode goes on after states [*B, ...], [*B], float32."""
        if self.goes_on is None:
            return torch.ones_like(state.deter[..., 0], dtype=torch.float32)
        return self.goes_on(state.feat).squeeze(-1).float().sigmoid()

    def draw_pixels(self, lead: tuple[int, ...], generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Draw the dequantisation noise of images [*lead, ...] by key, on the generator's device, moved to `device`."""
        shapes = {key: (*lead, *self.spec.observation[key][0]) for key in self.encoder.image_keys}
        where = generator.device
        return {key: torch.rand(shape, generator=generator, device=where).to(device) for key, shape in shapes.items()}

    def draw(self, batch: int, length: int, generator: torch.Generator, device: torch.device) -> LossNoise:
        """Draw the randomness of one loss over [batch, length] steps, on the generator's device, moved to `device`."""
        frames = batch * length
        decoded = round(self.settings.decode_fraction * frames)
        where = generator.device
        chosen = torch.randperm(frames, generator=generator, device=where)[:decoded].sort().values
        pixels = self.draw_pixels((batch, length), generator, device)
        latent = torch.randn(batch, length, self.rssm.stoch_size, generator=generator, device=where)
        return LossNoise(pixels, latent.to(device), chosen.to(device))

    def loss(self, batch: Batch, noise: LossNoise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise, a scalar, and its parts by name (detached scalars).

        Observation and reward terms are half squared errors (a unit Gaussian without its constant), summed over pixels
        and entries; every term is averaged over the unmasked steps.
        """
        seen = preprocess(batch.observation, noise.pixels)
        states, posterior = self.rssm.observe(self.encoder(seen), batch.action, batch.is_first, noise.latent)
        prior = self.rssm.prior(states.deter)
        kl = KL_LOSSES[self.settings.kl](self.rssm.latent, posterior, prior, self.settings)
        terms = self._prediction_losses(batch, states, seen, noise.frames) | {"kl": masked_mean(kl, batch.mask)}
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

    def _prediction_losses(
        self, batch: Batch, states: State, seen: dict[str, Tensor], frames: Tensor
    ) -> dict[str, Tensor]:
        """Return what each prediction from `states` [B, T, ...] costs, a scalar each; only what there is to predict."""
        scale, feat = self.settings, states.feat
        terms = {}
        if self.decoder.image_keys:
            terms["image"] = scale.image_scale * self._image_loss(feat, seen, batch.mask, frames)
        if self.decoder.vector_keys:
            error = summed_error(self.decoder.decode_vectors(feat), seen, 1)
            terms["vector"] = scale.vector_scale * masked_mean(error, batch.mask)
        reward = half_squared_error(self.predict_reward(states), batch.reward, 0)
        terms["reward"] = scale.reward_scale * masked_mean(reward, batch.mask)
        if self.goes_on is not None:
            logit = self.goes_on(feat).squeeze(-1).float()
            error = binary_cross_entropy_with_logits(logit, (~batch.is_terminal).float(), reduction="none")
            terms["continue"] = scale.continue_scale * masked_mean(error, batch.mask)
        return terms

    def _image_loss(self, feat: Tensor, seen: dict[str, Tensor], mask: Tensor, frames: Tensor) -> Tensor:
        """Estimate the mean over steps from the chosen frames alone; decoding is the most expensive part."""
        chosen = {key: seen[key].flatten(0, 1)[frames] for key in self.decoder.image_keys}
        error = summed_error(self.decoder.decode_images(feat.flatten(0, 1)[frames]), chosen, 3)
        kept = mask.flatten()[frames]
        return error.where(kept, error.new_zeros(())).sum() / kept.sum().clamp(min=1)


def untrained_model(settings: Settings, spec: EnvSpec) -> WorldModel:
    """Return the model as a run of these settings starts with it; the same weights at every call."""
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator, which is put back
        torch.manual_seed(stream_seed(settings.seed, Stream.INIT))
        return WorldModel(settings.model, spec)
