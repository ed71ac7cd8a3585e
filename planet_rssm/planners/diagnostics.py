"""What a search reports of its rounds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RoundStats(NamedTuple):
    """One round, each [B]."""

    returns_max: Tensor
    returns_mean: Tensor  # of the finite ones
    spread: Tensor  # mean standard deviation of what the next round would draw from
    entropy: Tensor  # of that
    nonfinite: Tensor  # how many candidates had a return that is not finite


def diagnostics(rounds: Sequence[RoundStats]) -> dict[str, Tensor]:
    """Return a plan's diagnostics: [B, I] by round, and `nonfinite` [B] of all of them.

    `returns_max`, `returns_mean`, `elite_std` (the spread) and `entropy`.
    """
    joined = RoundStats(*(torch.stack(values, 1) for values in zip(*rounds, strict=True)))
    return {
        "returns_max": joined.returns_max,
        "returns_mean": joined.returns_mean,
        "elite_std": joined.spread,
        "entropy": joined.entropy,
        "nonfinite": joined.nonfinite.sum(1),
    }
