"""The world model: encoder, RSSM, decoder and heads behind one loss."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from planet_rssm import ranks
from planet_rssm.base.device import affordable
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.plugins import build
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.config import HEADS, LATENTS, ModelSettings, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch, State
from planet_rssm.world_model.heads import REWARD_HEADS, ContinueHead, GaussianHead, TwohotHead
from planet_rssm.world_model.losses import (
    Context,
    LossNoise,
    LossOutput,
    free_mean,
    half_squared_error,
    kl_terms,
    masked_mean,
    overshooting,
)
from planet_rssm.world_model.networks import initialise, scale_last
from planet_rssm.world_model.observations import (
    Decoder,
    Encoder,
    image_keys,
    preprocess,
    restored_image,
    restored_vector,
    vector_keys,
)
from planet_rssm.world_model.rssm import RSSM


class WorldModel(nn.Module):
    """Learns p(observation, reward | actions) by the bound of PlaNet's equation 3.

    Where the environment ends episodes by itself (`spec.terminates`), a third head predicts whether
    the episode goes on after a state.
    """

    def __init__(self, settings: Settings, spec: EnvSpec) -> None:
        """Build all parts for the observations of `spec`.

        Raises:
            PlanetError: `model.grad_heads` names a head that has nothing to predict here.
        """
        super().__init__()
        _check_heads(settings.model, spec)
        self.settings = settings.model
        self.kl = settings.kl
        self.spec = spec
        self.encoder = Encoder(spec, self.settings)
        self.rssm = RSSM(settings.rssm, spec.action_size, self.encoder.embed_size)
        feat, stoch = self.rssm.feat_size, self.rssm.stoch_size
        self.decoder = Decoder(feat - stoch, stoch, spec, self.settings)
        self.reward: GaussianHead | TwohotHead = REWARD_HEADS[self.settings.reward](
            feat, self.settings
        )
        self.continue_head: ContinueHead | None = (
            ContinueHead(feat, self.settings) if spec.terminates else None
        )
        initialise(self, self.settings.init)
        scale_last(self.reward.net, self.settings.reward_outscale)
        terms = [
            build("model.terms", name, nn.Module, settings, spec, feat)
            for name in self.settings.terms
        ]
        self.terms = nn.ModuleDict({type(term).__name__: term for term in terms})
        if len(self.terms) < len(terms):
            raise PlanetError(
                f"model.terms = {list(self.settings.terms)}: two of one class name; rename one"
            )

    def encode(self, observation: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
        """Encode observations [*B, ...] of the environment into [*B, E].

        `noise` is that of `draw_pixels`.
        """
        return self.encoder(preprocess(observation, noise))

    def decode(self, state: State) -> dict[str, Tensor]:
        """Return the mean observations of states [M, ...] in preprocessed units, by key."""
        feat = self.rssm.feat(state)
        return self.decoder.decode_images(feat) | self.decoder.decode_vectors(feat)

    @torch.no_grad()
    def observations(self, state: State) -> dict[str, Tensor]:
        """Return the observations that the model expects in states [*B, ...], in original units.

        Returns:
            By key: images uint8 [*B, size, size, 3], vectors float32 [*B, n].
        """
        lead = state.deter.shape[:-1]
        feat = self.rssm.feat(state).flatten(0, -2)
        images = self.decoder.decode_images(feat)
        vectors = self.decoder.decode_vectors(feat)
        restored = {key: restored_image(image) for key, image in images.items()}
        restored |= {key: restored_vector(vector) for key, vector in vectors.items()}
        return {key: value.reshape((*lead, *value.shape[1:])) for key, value in restored.items()}

    def predict_reward(self, state: State) -> Tensor:
        """Return the mean reward that comes with states [*B, ...], [*B], float32 at least."""
        return self.reward(self.rssm.feat(state))

    def predict_continue(self, state: State) -> Tensor:
        """Return the probability [*B] that the episode goes on after states [*B, ...].

        It is in float32 at least, and 1 where episodes do not end by themselves.
        """
        if self.continue_head is None:
            return torch.ones_like(state.stoch[..., 0])
        return self.continue_head(self.rssm.feat(state))

    def draw_pixels(
        self, lead: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> dict[str, Tensor]:
        """Draw the noise that images [*lead, ...] are quantised with, by key.

        Images that are only scaled need none. It is drawn on the generator's device and moved to
        `device`.
        """
        keys = self.encoder.image_keys if self.settings.pixels == "quantised" else []
        shapes = {key: (*lead, *self.spec.observation[key][0]) for key in keys}
        return {
            key: uniform_bytes(shape, generator).to(device).float().mul_(1 / 256)
            for key, shape in shapes.items()
        }

    def draw(
        self, batch: int, length: int, generator: torch.Generator, device: torch.device
    ) -> LossNoise:
        """Draw the randomness of one loss over [batch, length] steps.

        It is drawn on the generator's device and moved to `device`.
        """
        frames = batch * length
        size = self.rssm.noise_size
        where = generator.device
        decoded = round(self.settings.decode_fraction * frames)
        chosen = torch.randperm(frames, generator=generator, device=where)[:decoded].sort().values
        pixels = self.draw_pixels((batch, length), generator, device)
        latent = torch.randn(batch, length, size, generator=generator, device=where)
        ahead = torch.randn(
            self.kl.overshooting, batch, length, size, generator=generator, device=where
        )
        return LossNoise(pixels, latent.to(device), chosen.to(device), ahead.to(device))

    def loss(self, batch: Batch, noise: LossNoise) -> LossOutput:
        """Filter the batch, and return the loss to minimise with its metrics and context.

        Every term is averaged over the unmasked steps; observations are summed over pixels and
        entries.
        """
        observation = preprocess(batch.observation, noise.pixels)
        embed = self.encoder(observation)
        states, posterior = self.rssm.observe(embed, batch.action, batch.is_first, noise.latent)
        context = Context(observation, embed, states, posterior, self.rssm.prior(states.deter))
        scale, mask, feat = self.settings, batch.mask, self.rssm.feat(states)
        read = {head: feat if head in scale.grad_heads else feat.detach() for head in HEADS}
        terms: dict[str, Tensor] = {}
        if self.decoder.image_keys:
            # Of some frames alone: decoding is the most expensive.
            chosen = read["image"].flatten(0, 1)[noise.frames]
            kept = mask.flatten()[noise.frames]
            error = torch.zeros_like(kept, dtype=torch.float32)
            for key, decode in zip(self.decoder.image_keys, self.decoder.images, strict=True):
                target = observation[key].flatten(0, 1)[noise.frames]
                error = error + half_squared_error(decode(chosen), target, 3)
            counted = kept.sum() if ranks.shared() is None else ranks.count(kept)
            image = error.where(kept, error.new_zeros(())).sum() / counted.clamp(min=1)
            terms["image"] = scale.image_scale * image
        if self.decoder.vector_keys:
            vector = self.decoder.vector_loss(read["vector"], observation, mask)
            terms["vector"] = scale.vector_scale * vector
        raw = {"reward": self.reward.raw(read["reward"])}
        error = self.reward.loss(raw["reward"], batch.reward)
        terms["reward"] = scale.reward_scale * masked_mean(error, mask)
        if self.continue_head is not None:
            raw["continue"] = self.continue_head.raw(read["continue"])
            error = self.continue_head.loss(raw["continue"], ~batch.is_terminal)
            terms["continue"] = scale.continue_scale * masked_mean(error, mask)
        kls = kl_terms(self.rssm.latent, posterior, context.prior, self.kl)
        terms |= self._kl_losses(batch, context, kls, noise.overshooting)
        terms |= self._added_losses(batch, context)
        total = torch.stack(list(terms.values())).sum()
        metrics = {f"loss/{name}": term.detach() for name, term in terms.items()}
        metrics |= {"loss/total": total.detach()}
        _, kl = kls[0]  # every one has the value of KL(posterior || prior)
        metrics |= self._diagnostics(batch, context, kl, raw)
        return LossOutput(total, metrics, context)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters by part, and their total."""
        counts = {
            name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()
        }
        counts = {name: count for name, count in counts.items() if count}
        return counts | {"total": sum(counts.values())}

    def _kl_losses(
        self, batch: Batch, context: Context, kls: list[tuple[float, Tensor]], noise: Tensor
    ) -> dict[str, Tensor]:
        """Return the scalar of the weighted divergences `kls` [B, T], and that of overshooting."""
        total = batch.reward.new_zeros(())
        for weight, kl in kls:
            total = total + weight * free_mean(kl, batch.mask, self.kl)
        terms = {"kl": self.kl.scale * total}
        if self.kl.overshooting > 1:
            ahead = overshooting(
                self.rssm, context.states, context.posterior, batch, noise, self.kl
            )
            terms["overshooting"] = self.kl.overshooting_scale * ahead
        return terms

    def _added_losses(self, batch: Batch, context: Context) -> dict[str, Tensor]:
        """Return the masked means of the user's terms: term(model, batch, context) -> [B, T]."""
        terms = {}
        for name, term in self.terms.items():
            value = term(self, batch, context)
            if value.shape != batch.mask.shape:
                shape, steps = list(value.shape), list(batch.mask.shape)
                raise PlanetError(
                    f"model.terms: {name} returns shape {shape}, must be [B, T] = {steps}; fix it"
                )
            terms[name] = masked_mean(value, batch.mask)
        return terms

    @torch.no_grad()
    def _diagnostics(
        self, batch: Batch, context: Context, kl: Tensor, raw: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the KL [B, T] raw and clipped, both distributions, and predictions beside data."""
        mask = batch.mask
        metrics = {"kl": masked_mean(kl, mask), "kl/clipped": free_mean(kl, mask, self.kl)}
        for name, params in (("prior", context.prior), ("posterior", context.posterior)):
            metrics |= {
                f"{key}/{name}": masked_mean(value, mask)
                for key, value in self.rssm.latent.diagnostics(params).items()
            }
        pairs = {"reward": (self.reward.mean(raw["reward"]), batch.reward)}
        if self.continue_head is not None:
            goes_on = self.continue_head.discount * (~batch.is_terminal).float()
            pairs["continue"] = (self.continue_head.mean(raw["continue"]), goes_on)
        for name, (predicted, real) in pairs.items():
            metrics[f"{name}/predicted"] = masked_mean(predicted, mask)
            metrics[f"{name}/real"] = masked_mean(real, mask)
            metrics[f"{name}/error"] = masked_mean((predicted - real).abs(), mask)
        return metrics


def uniform_bytes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw uint8 [*shape] on the generator's device, eight from each 64-bit number.

    A float for each byte would take eight times as long: a tenth of an update on a CPU.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.uint8)[:count].view(shape)


def _check_heads(settings: ModelSettings, spec: EnvSpec) -> None:
    there = {
        "image": bool(image_keys(spec)),
        "vector": bool(vector_keys(spec)),
        "reward": True,
        "continue": spec.terminates,
    }
    missing = [head for head in settings.grad_heads if not there[head]]
    if missing and set(settings.grad_heads) != set(HEADS):  # the default: all that there are
        known = ", ".join(head for head in HEADS if there[head])
        raise PlanetError(
            f"model.grad_heads names {missing[0]!r}: {spec.id} has only {known}; take it out"
        )


def untrained_model(settings: Settings, spec: EnvSpec) -> WorldModel:
    """Return the model that a run of these settings starts with: the same weights each time."""

    def make() -> WorldModel:
        torch.manual_seed(stream_seed(settings.seed, Stream.INIT))
        return WorldModel(settings, spec)

    # Layers draw their weights from the global generator, which is put back.
    with torch.random.fork_rng(devices=[]):
        return _affordable(make, settings, "the world model")


def model_for(settings: Settings, spec: EnvSpec, name: str) -> WorldModel:
    """Return a model whose weights are filled in later; `name` is whose it is, for messages."""
    return _affordable(lambda: WorldModel(settings, spec), settings, f"{name}: its world model")


def _affordable(make: Callable[[], WorldModel], settings: Settings, part: str) -> WorldModel:
    foreign = bool(settings.model.terms) or settings.rssm.latent not in LATENTS
    # Every model is first made on the CPU.
    return affordable(make, torch.device("cpu"), part, foreign=foreign)
