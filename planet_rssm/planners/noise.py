"""The randomness of a decision: standard normal draws, made before the search begins."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planet_rssm.types import Rng


class Noise(NamedTuple):
    """The normal draws of one round.

    `actions` [B, N, H, noise_size]; `model` [B, ...] if the dynamics draws; `choice` [B] if the
    planner's choice does.
    """

    actions: Tensor
    model: Tensor | None
    choice: Tensor | None = None


def normals(
    shapes: Sequence[tuple[int, ...] | None], rng: Rng, device: torch.device, dtype: torch.dtype
) -> list[Any]:
    """Return standard normal numbers of each shape [B, ...], and None for None.

    On a CPU every shape is a draw of the one generator. On other devices, where each would be a
    launch, all shapes are parts of one draw; of several generators each draws an equal share of the
    rows, the same whatever the others draw.
    """
    if device.type == "cpu":
        assert not isinstance(rng, Sequence)
        options: dict[str, Any] = {"generator": rng, "dtype": dtype}
        return [None if shape is None else torch.randn(shape, **options) for shape in shapes]
    rngs = rng if isinstance(rng, Sequence) else [rng]
    sizes = [0 if shape is None else math.prod(shape) // len(rngs) for shape in shapes]
    drawn = [torch.randn(sum(sizes), generator=one, device=device, dtype=dtype) for one in rngs]
    parts = (torch.stack(drawn) if len(drawn) > 1 else drawn[0][None]).split(sizes, 1)
    return [
        None if shape is None else part.reshape(shape)
        for shape, part in zip(shapes, parts, strict=True)
    ]


def normal(shape: tuple[int, ...], rng: Rng, device: torch.device) -> Tensor:
    """Return standard normal draws [B, ...]; of several generators each draws for a row."""
    if isinstance(rng, Sequence):
        rows = [torch.randn(1, *shape[1:], generator=one, device=device) for one in rng]
        return torch.cat(rows)
    return torch.randn(shape, generator=rng, device=device)
