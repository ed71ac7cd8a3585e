"""The stochastic part of the state: its distribution, sampling from given noise, and divergences in closed form."""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus


class Gaussian(NamedTuple):
    """Diagonal Gaussian parameters: `mean` [*B, S] and `std` [*B, S] > 0."""

    mean: Tensor
    std: Tensor


class GaussianLatent:
    """Diagonal Gaussian of `size` dimensions with std = softplus(raw) + min_std (PlaNet, appendix A)."""

    def __init__(self, size: int, min_std: float) -> None:
        self.size = size
        self.raw_size = 2 * size
        self.min_std = min_std

    def params(self, raw: Tensor) -> Gaussian:
        """Turn a network's output [*B, 2 S] into parameters; in float32 whatever the autocast."""
        mean, std = raw.float().chunk(2, -1)
        return Gaussian(mean, softplus(std) + self.min_std)

    def sample(self, params: Gaussian, noise: Tensor) -> Tensor:
        """Return mean + std * noise, [*B, S], for standard normal `noise` [*B, S]; differentiable in the parameters."""
        return params.mean + params.std * noise

    def kl(self, left: Gaussian, right: Gaussian) -> Tensor:
        """Return KL(left || right) summed over the dimensions, [*B], in nats."""
        ratio = (left.std / right.std).square()
        distance = ((left.mean - right.mean) / right.std).square()
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)

    def entropy(self, params: Gaussian) -> Tensor:
        """Return the differential entropy summed over the dimensions, [*B], in nats."""
        return (params.std.log() + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)
