"""The randomness of a decision: standard normal draws, made before the search begins."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planet_rssm.base.device import Keys
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
    rows, the same whatever the others draw. On a CUDA device they all draw at once, see `Keys`.
    """
    if device.type == "cpu":
        assert not isinstance(rng, Sequence | Keys)
        options: dict[str, Any] = {"generator": rng, "dtype": dtype}
        return [None if shape is None else torch.randn(shape, **options) for shape in shapes]
    if isinstance(rng, Keys):
        keys = rng  # for the type checker
        return _cut(shapes, len(keys), lambda count: keys.normals(count, dtype))
    if isinstance(rng, Sequence) and Keys.drawn_on(device):
        keys = Keys.of(rng, device)
        parts = normals(shapes, keys, device, dtype)
        keys.advance(rng)
        return parts
    rngs = rng if isinstance(rng, Sequence) else [rng]

    def draw(count: int) -> Tensor:
        rows = [torch.randn(count, generator=one, device=device, dtype=dtype) for one in rngs]
        return torch.stack(rows) if len(rows) > 1 else rows[0][None]

    return _cut(shapes, len(rngs), draw)


def _cut(
    shapes: Sequence[tuple[int, ...] | None], rows: int, draw: Callable[[int], Tensor]
) -> list[Any]:
    """Return parts of these shapes of what `draw(count)` [rows, count] draws at once."""
    sizes = [0 if shape is None else math.prod(shape) // rows for shape in shapes]
    parts = draw(sum(sizes)).split(sizes, 1)
    return [
        None if shape is None else part.reshape(shape)
        for shape, part in zip(shapes, parts, strict=True)
    ]


def normal(shape: tuple[int, ...], rng: Rng, device: torch.device) -> Tensor:
    """Return standard normal draws [B, ...]; of several generators each draws for a row."""
    if isinstance(rng, Keys):
        return rng.normals(math.prod(shape) // len(rng), torch.float32).view(shape)
    if isinstance(rng, Sequence):
        rows = [torch.randn(1, *shape[1:], generator=one, device=device) for one in rng]
        return torch.cat(rows)
    return torch.randn(shape, generator=rng, device=device)
