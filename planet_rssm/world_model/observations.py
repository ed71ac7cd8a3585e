"""Observations by key, any mix of images and vectors: preprocessing, one encoder, one decoder."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from planet_rssm.config import ModelSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model.losses import half_squared_error, masked_mean
from planet_rssm.world_model.networks import (
    ConvDecoder,
    ConvEncoder,
    V3Decoder,
    V3Encoder,
    dense_layers,
    mlp,
    precise,
    symexp,
    symlog,
)
from planet_rssm.world_model.patches import PatchDecoder, PatchEncoder


def preprocess(observation: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn observations into the floats that are encoded and predicted. The only place that does.

    Args:
        observation: uint8 images [*B, size, size, 3] and float vectors [*B, n] by key.
        noise: uniform [0, 1) for images that are to be quantised, of their shape; fresh at each
            read, in training and in acting.

    Returns:
        Images in [-0.5, 0.5], reduced to 5 bits and dequantised where there is noise (PlaNet,
        appendix A), else as they are (Dreamer); vectors by symlog.
    """
    return {
        key: _pixels(value, noise.get(key))
        if value.dtype == torch.uint8
        else symlog(precise(value))
        for key, value in observation.items()
    }


def restored_image(image: Tensor) -> Tensor:
    """Return uint8 pixels of an image in the units of `preprocess`."""
    return ((image.float() + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


def restored_vector(vector: Tensor) -> Tensor:
    """Return a vector in the environment's units, of one in the units of `preprocess`."""
    return symexp(precise(vector))


def _pixels(image: Tensor, noise: Tensor | None) -> Tensor:
    if noise is None:
        return image.float() / 255 - 0.5
    # (floor(image / 8) + noise) / 32 - 0.5, to the bit: one pass over bytes, three over floats.
    return torch.add(noise, image >> 3).mul_(1 / 32).sub_(0.5)


class Encoder(nn.Module):
    """Preprocessed observations to one embedding [*B, embed_size].

    Each image has a convolution, all vectors together an MLP.
    """

    def __init__(self, spec: EnvSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.image_keys, self.vector_keys = image_keys(spec), vector_keys(spec)
        sides = [spec.observation[key][0][0] for key in self.image_keys]
        images = [_image_encoder(side, settings) for side in sides]
        self.images, self.embed_size = nn.ModuleList(images), sum(net.embed_size for net in images)
        if self.vector_keys:
            layers, units = settings.vector_layers, settings.vector_units
            inputs = sum(_widths(spec))
            self.vectors = dense_layers(inputs, units, layers, settings.act, settings.norm)
            self.embed_size += units

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:  # noqa: D102
        parts = []
        for key, net in zip(self.image_keys, self.images, strict=True):
            image = observation[key]
            parts.append(net(image.flatten(0, -4)).unflatten(0, image.shape[:-3]))
        if self.vector_keys:
            vectors = [observation[key] for key in self.vector_keys]
            parts.append(self.vectors(torch.cat(vectors, -1)))
        return torch.cat(parts, -1)


class Decoder(nn.Module):
    """Features, deter before stoch, to the means of the preprocessed observations, by key."""

    def __init__(self, deter: int, stoch: int, spec: EnvSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.image_keys = image_keys(spec)
        self.vector_keys = vector_keys(spec)
        self.widths = _widths(spec)
        sides = [spec.observation[key][0][0] for key in self.image_keys]
        self.images = nn.ModuleList(_image_decoder(deter, stoch, side, settings) for side in sides)
        if self.vector_keys:
            layers, units = settings.vector_layers, settings.vector_units
            self.vectors = mlp(
                deter + stoch, units, layers, sum(self.widths), settings.act, settings.norm
            )

    def decode_images(self, feat: Tensor) -> dict[str, Tensor]:
        """Return images [M, size, size, 3] by key of `feat` [M, F]."""
        return {key: net(feat) for key, net in zip(self.image_keys, self.images, strict=True)}

    def vector_loss(self, feat: Tensor, observation: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Return the mean over unmasked steps of what the vectors cost, a scalar.

        `feat` is [B, T, F], the preprocessed vectors are [B, T, n].
        """
        means = self.decode_vectors(feat)
        errors = [half_squared_error(mean, observation[key], 1) for key, mean in means.items()]
        return masked_mean(torch.stack(errors).sum(0), mask)

    def decode_vectors(self, feat: Tensor) -> dict[str, Tensor]:
        """Return vectors [*B, n] by key of `feat` [*B, F]."""
        if not self.vector_keys:
            return {}
        return dict(zip(self.vector_keys, self.vectors(feat).split(self.widths, -1), strict=True))


def image_keys(spec: EnvSpec) -> list[str]:
    """Return the keys of the images, sorted."""
    return sorted(key for key, (shape, _) in spec.observation.items() if len(shape) == 3)


def vector_keys(spec: EnvSpec) -> list[str]:
    """Return the keys of the vectors, sorted."""
    return sorted(key for key, (shape, _) in spec.observation.items() if len(shape) == 1)


def _image_encoder(side: int, settings: ModelSettings) -> ConvEncoder | PatchEncoder | V3Encoder:
    if settings.conv == "planet":
        return ConvEncoder(side, settings.depth, settings.conv_act)
    if settings.conv == "patches":
        return PatchEncoder(side, settings.depth, settings.conv_act)
    return V3Encoder(side, settings.depth, settings.act, settings.norm)


def _image_decoder(
    deter: int, stoch: int, side: int, settings: ModelSettings
) -> ConvDecoder | PatchDecoder | V3Decoder:
    if settings.conv == "planet":
        return ConvDecoder(deter + stoch, side, settings.depth, settings.conv_act)
    if settings.conv == "patches":
        return PatchDecoder(deter + stoch, side, settings.depth, settings.conv_act)
    return V3Decoder(
        deter, stoch, side, settings.depth, settings.vector_units, settings.act, settings.norm
    )


def _widths(spec: EnvSpec) -> list[int]:
    return [spec.observation[key][0][0] for key in vector_keys(spec)]
