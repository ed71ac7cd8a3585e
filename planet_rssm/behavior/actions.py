"""Distributions over actions: drawn from given noise, with densities and entropies in closed form.

All noise is standard normal, [*B, A] for numbers and [*B, G] for choices in G groups, however many
there are.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from planet_rssm.planners.choices import Groups, joined, runs, split, split_groups
from planet_rssm.world_model.latents import CategoricalLatent

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
EDGE = 1e-6  # how near to a bound a number is taken, whose density has none there
# softplus of it is 5: a tanh-normal begins with both ends of the range
FIRST_STD = math.log(math.expm1(5.0))
# of Gauss-Hermite quadrature, for means under a normal
NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(48))


class ActionDistribution(ABC):
    """How an action [*B, A] is drawn."""

    @abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Return the action [*B, A] of `noise`; its gradient leads to the parameters."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """The action [*B, A] that is taken where nothing is drawn."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density or log probability [*B] of `action` [*B, A]."""

    @property
    @abstractmethod
    def entropy(self) -> Tensor:
        """The entropy [*B] in nats, differential where actions are numbers."""


class Normal(ActionDistribution):
    """N(tanh(m), std²) with std from 0.1 to 1; the environment clips what is drawn (DreamerV3)."""

    def __init__(self, raw: Tensor) -> None:
        """Take a network's output [*B, 2 A]."""
        mean, spread = raw.chunk(2, -1)
        self.mean = mean.tanh()
        self.std = 0.9 * torch.sigmoid(spread + 2.0) + 0.1

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise."""
        return self.mean + self.std * noise

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the density of what was drawn, before it is clipped."""
        return _normal_log_prob((action - self.mean) / self.std, self.std).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """The closed form."""
        return (self.std.log() + HALF_LOG_TAU + 0.5).sum(-1)


class TruncatedNormal(ActionDistribution):
    """N(tanh(m), std²) cut to [-1, 1], with std = 2 sigmoid(s / 2) + 0.1 (DreamerV2)."""

    def __init__(self, raw: Tensor) -> None:
        """Take a network's output [*B, 2 A]."""
        mean, spread = raw.chunk(2, -1)
        self.mean = mean.tanh()
        self.std = 2 * torch.sigmoid(spread / 2) + 0.1
        self.low = (-1 - self.mean) / self.std
        self.high = (1 - self.mean) / self.std
        self.below = torch.special.ndtr(self.low)
        self.mass = torch.special.ndtr(self.high) - self.below  # the mean is inside: never small

    def sample(self, noise: Tensor) -> Tensor:
        """Invert the cumulated density at Phi(noise); the bound leaves the gradient as it is."""
        place = (self.below + torch.special.ndtr(noise) * self.mass).clamp(EDGE, 1 - EDGE)
        drawn = self.mean + self.std * torch.special.ndtri(place)
        return drawn + (drawn.detach().clamp(EDGE - 1, 1 - EDGE) - drawn.detach())

    @property
    def mode(self) -> Tensor:
        """The mean before the cut, which is inside it."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the density."""
        log_prob = _normal_log_prob((action - self.mean) / self.std, self.std)
        return (log_prob - self.mass.log()).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """The closed form."""
        edges = (self.low * _density(self.low) - self.high * _density(self.high)) / (2 * self.mass)
        return (self.std.log() + HALF_LOG_TAU + 0.5 + self.mass.log() + edges).sum(-1)


class TanhNormal(ActionDistribution):
    """tanh of N(5 tanh(m / 5), std²), with std = softplus(s + 5⁺) + 1e-4 from 5 on (Dreamer)."""

    def __init__(self, raw: Tensor) -> None:
        """Take a network's output [*B, 2 A]."""
        mean, spread = raw.chunk(2, -1)
        self.mean = 5 * (mean / 5).tanh()
        self.std = softplus(spread + FIRST_STD) + 1e-4

    def sample(self, noise: Tensor) -> Tensor:
        """Return tanh(mean + std * noise)."""
        return (self.mean + self.std * noise).tanh()

    @property
    def mode(self) -> Tensor:
        """The median."""
        return self.mean.tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the density; of actions at a bound that of one just inside."""
        inner = action.clamp(EDGE - 1, 1 - EDGE).atanh()
        log_prob = _normal_log_prob((inner - self.mean) / self.std, self.std)
        return (log_prob - _log_slope(inner)).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """The normal's, and the mean log slope of tanh under it by Gauss-Hermite quadrature."""
        nodes, weights = _quadrature(self.mean.device, self.mean.dtype)
        slopes = _log_slope(self.mean[..., None] + self.std[..., None] * nodes)
        slope = (slopes * weights).sum(-1) / weights.sum()
        return (self.std.log() + HALF_LOG_TAU + 0.5 + slope).sum(-1)


class OneHot(ActionDistribution):
    """Independent choices, one-hot by group [*B, A].

    The probabilities of n choices are (1 - unimix) softmax(raw) + unimix / n. Neighbouring groups
    of one size are one categorical latent of as many variables.
    """

    def __init__(self, raw: Tensor, unimix: float = 0.0, groups: Groups = ()) -> None:
        """Take a network's output [*B, A] and the sizes of the groups; () is one group of all."""
        self._groups = groups or (raw.shape[-1],)
        parts = split(raw, self._groups)
        self._latents = [CategoricalLatent(*run, unimix) for run in runs(self._groups)]
        pairs = zip(self._latents, parts, strict=True)
        self._params = [latent.params(part.flatten(-2)) for latent, part in pairs]
        self.logits = joined([params.logits for params in self._params])

    def sample(self, noise: Tensor) -> Tensor:
        """Invert the cumulated probabilities at Phi(noise) [*B, G].

        The gradient is that of the probabilities (DreamerV2).
        """
        return self._sample(split_groups(noise, self._groups))

    @property
    def mode(self) -> Tensor:
        """The likeliest of each group."""
        return self._sample([None] * len(self._latents))

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the sum of the chosen ones' log probabilities."""
        return (self.logits * action).sum(-1)

    @property
    def entropy(self) -> Tensor:
        """The closed form, summed over the groups."""
        pairs = zip(self._latents, self._params, strict=True)
        return torch.stack([latent.entropy(params) for latent, params in pairs]).sum(0)

    def _sample(self, noise: Sequence[Tensor | None]) -> Tensor:
        parts = zip(self._latents, self._params, noise, strict=True)
        drawn = [latent.sample(params, part) for latent, params, part in parts]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn, -1)


@functools.cache
@torch.inference_mode(False)  # what is made inside it could not be used outside
def _quadrature(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return NODES and WEIGHTS on a device, copied there once."""
    return NODES.to(device, dtype), WEIGHTS.to(device, dtype)


def _normal_log_prob(standard: Tensor, std: Tensor) -> Tensor:
    return -0.5 * standard.square() - std.log() - HALF_LOG_TAU


def _density(x: Tensor) -> Tensor:
    return (-0.5 * x.square() - HALF_LOG_TAU).exp()


def _log_slope(x: Tensor) -> Tensor:
    """Return the log of tanh's slope, log(1 - tanh(x)²), without loss of digits."""
    return 2 * (math.log(2) - x - softplus(-2 * x))


NUMBERS: dict[str, type[Normal] | type[TruncatedNormal] | type[TanhNormal]] = {
    "normal": Normal,
    "trunc_normal": TruncatedNormal,
    "tanh_normal": TanhNormal,
}
