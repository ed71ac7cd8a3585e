"""Observations by key, any mix of images and vectors: preprocessing, one encoder, one decoder."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from planet_rssm.config import ModelSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model.losses import half_squared_error
from planet_rssm.world_model.networks import ConvDecoder, ConvEncoder, mlp


def symlog(value: Tensor) -> Tensor:
    """Return sign(x) ln(|x| + 1): vectors of any size become moderate (DreamerV3, arXiv 2301.04104, equation 9)."""
    return value.sign() * value.abs().log1p()


def preprocess(observation: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn observations into the floats that are encoded and predicted. The only place that does.

    Args:
        observation: uint8 images [*B, size, size, 3] and float32 vectors [*B, n] by key.
        noise: uniform [0, 1) for each image, of its shape; fresh at each read, in training and in acting.

    Returns:
        Images reduced to 5 bits, dequantised and centred, float32 in [-0.5, 0.5] (PlaNet, appendix A); vectors by
        symlog.
    """
    return {
        key: (torch.floor(value.float() / 8) + noise[key]) / 32 - 0.5 if key in noise else symlog(value.float())
        for key, value in observation.items()
    }


class Encoder(nn.Module):
    """Preprocessed observations to one embedding [*B, embed_size]: a convolution for each image, an MLP for vectors."""

    def __init__(self, spec: EnvSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.image_keys, self.vector_keys = image_keys(spec), vector_keys(spec)
        sides = [spec.observation[key][0][0] for key in self.image_keys]
        images = [ConvEncoder(side, settings.depth) for side in sides]
        self.images, self.embed_size = nn.ModuleList(images), sum(net.embed_size for net in images)
        if self.vector_keys:
            inputs, units = sum(_widths(spec)), settings.vector_units
            self.vectors = mlp(inputs, units, settings.vector_layers, units)
            self.embed_size += units

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:  # noqa: D102
        parts = [
            net(seen[key].flatten(0, -4)).unflatten(0, seen[key].shape[:-3])
            for key, net in zip(self.image_keys, self.images, strict=True)
        ]
        if self.vector_keys:
            parts.append(self.vectors(torch.cat([seen[key] for key in self.vector_keys], -1)))
        return torch.cat(parts, -1)


class Decoder(nn.Module):
    """Features to the means of the preprocessed observations that they foretell, by key."""

    def __init__(self, feat_size: int, spec: EnvSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.image_keys, self.vector_keys, self.widths = image_keys(spec), vector_keys(spec), _widths(spec)
        sides = [spec.observation[key][0][0] for key in self.image_keys]
        self.images = nn.ModuleList(ConvDecoder(feat_size, side, settings.depth) for side in sides)
        if self.vector_keys:
            self.vectors = mlp(feat_size, settings.vector_units, settings.vector_layers, sum(self.widths))

    def decode_images(self, feat: Tensor) -> dict[str, Tensor]:
        """Return images [M, size, size, 3] by key of `feat` [M, F]."""
        return {key: net(feat) for key, net in zip(self.image_keys, self.images, strict=True)}

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


def summed_error(predicted: Mapping[str, Tensor], target: Mapping[str, Tensor], event_dims: int) -> Tensor:
    """Return the half squared errors of every key together, [*B]; see `losses.half_squared_error`."""
    errors: Sequence[Tensor] = [half_squared_error(mean, target[key], event_dims) for key, mean in predicted.items()]
    return torch.stack(list(errors)).sum(0)


def _widths(spec: EnvSpec) -> list[int]:
    return [spec.observation[key][0][0] for key in vector_keys(spec)]
