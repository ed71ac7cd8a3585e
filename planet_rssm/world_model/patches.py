"""Pixels to embedding and back by matrix products alone: an image is cut into patches.

A convolution of few channels runs at a small part of a processor's rate, on any processor. These
products have thousands of rows and run at nearly all of it. They are of no published model.

    image [size, size, 3] -> patches of 4x4 pixels -> `depth` numbers each
    -> 2x2 neighbours joined -> 2 `depth` numbers each
    -> 2x2 of these joined -> 4 `depth` numbers each ... the last few are the embedding

The decoder goes the same way back. Neighbours lie side by side in memory, so that to join them is a
view: the pixels are put in that order once, and nothing is moved afterwards.
"""

import math

import torch
from torch import Tensor, nn

from planet_rssm.config import patch_sides
from planet_rssm.world_model.networks import ACTIVATIONS, MAX_WIDTH
from planet_rssm.world_model.products import Linear

COLOURS = 3


class PatchEncoder(nn.Module):
    """Preprocessed images [M, size, size, 3] to embeddings [M, embed_size]."""

    def __init__(self, size: int, depth: int, act: str) -> None:
        super().__init__()
        self.sides = patch_sides(size)
        *widths, last = _widths(depth, len(self.sides) - 1)
        layers: list[nn.Module] = []
        inputs = COLOURS
        for side, width in zip(reversed(self.sides), (*widths, last), strict=False):
            layers += [Join(side), Linear(side**2 * inputs, width), ACTIVATIONS[act]()]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.embed_size = self.sides[0] ** 2 * last

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.layers(to_patches(image, self.sides)).view(len(image), self.embed_size)


class PatchDecoder(nn.Module):
    """Features [M, F] to the mean of the preprocessed image [M, size, size, 3]."""

    def __init__(self, feat_size: int, size: int, depth: int, act: str) -> None:
        super().__init__()
        self.sides = patch_sides(size)
        layers: list[nn.Module] = []
        inputs = feat_size
        widths = [COLOURS, *_widths(depth, len(self.sides) - 1)]
        for side, width in zip(self.sides, reversed(widths), strict=True):
            layers += [Linear(inputs, side**2 * width), ACTIVATIONS[act](), Part(width)]
            inputs = width
        self.layers = nn.Sequential(*layers[:-2])

    def forward(self, feat: Tensor) -> Tensor:  # noqa: D102
        return from_patches(self.layers(feat), self.sides)


class Join(nn.Module):
    """Rows [N * side², C] that are neighbours to one row each, [N, side² * C]."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.parts = side**2

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.view(-1, self.parts * x.shape[-1])


class Part(nn.Module):
    """Rows [N, n * width] to the n rows that each consists of, [N * n, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.view(-1, self.width)


def to_patches(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Return the pixels [M * size², 3] of images [M, size, size, 3] in the order of the patches.

    The `sides` multiply to the size, from that of the largest parts to a patch's pixels. So the
    first axis runs over images, their large parts, the parts of these, and at last over the pixels
    of a patch, each row by row.
    """
    levels = len(sides)
    parts = image.view((-1, *sides, *sides, COLOURS))
    axes = [axis for level in range(1, levels + 1) for axis in (level, levels + level)]
    parts = parts.permute(0, *axes, 2 * levels + 1)
    if not torch.is_autocast_enabled(image.device.type):
        return parts.reshape(-1, COLOURS)
    # in the precision of the product that reads them, in the same pass
    dtype = torch.get_autocast_dtype(image.device.type)
    return parts.to(dtype, memory_format=torch.contiguous_format).view(-1, COLOURS)


def from_patches(pixels: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Return the images [M, size, size, 3] whose `to_patches` are `pixels`, of any shape."""
    size, levels = math.prod(sides), len(sides)
    parts = pixels.view(-1, *(side for side in sides for _ in range(2)), COLOURS)
    rows, columns = range(1, 2 * levels, 2), range(2, 2 * levels + 1, 2)
    return parts.permute((0, *rows, *columns, 2 * levels + 1)).reshape(-1, size, size, COLOURS)


def _widths(depth: int, layers: int) -> list[int]:
    """Return the numbers of a patch, and of what is joined of patches."""
    return [depth * min(2**layer, MAX_WIDTH) for layer in range(layers)]
