"""The product of categoricals over choices that the planners fit.

There is one at every step of the plan for each group. CEM over it is Rubinstein's (1999): sample
choices, keep the elites, refit by counting.
"""

import torch
from torch import Tensor

from planet_rssm.planners.choices import Groups, joined, likeliest, runs, split, split_groups

# share of the uniform distribution in every refit: no choice ever becomes impossible
SMOOTHING = 0.02
RESTART = 0.5  # share of the uniform distribution that a warm start begins with


class Categorical:
    """Independent choices by group: the `mean` [B, H, A] of one-hots are the probabilities."""

    def __init__(self, groups: Groups) -> None:
        """Take how many choices each group has."""
        self.groups = groups
        self.noise_size = len(groups)  # one draw decides between all choices of a group

    def fresh(self, noise: Tensor) -> Tensor:
        """Return equal probabilities [B, H, A] for `noise` [B, N, H, G]."""
        batch, _, horizon, _ = noise.shape
        return noise.new_ones(batch, horizon, sum(self.groups)) * self._equal(noise)

    def loosened(self, mean: Tensor) -> Tensor:
        """Return what a search begins with, half `mean`, half equal: its spread starts anew."""
        return torch.lerp(mean, self._equal(mean).expand_as(mean), RESTART)

    def spread(self, mean: Tensor) -> Tensor:
        """Return the standard deviation [B, H, A] of each entry."""
        return (mean * (1 - mean)).clamp(min=0.0).sqrt()  # rounding may leave more than 1

    def sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Return candidates [B, N, H, A]: the inverse of the cumulated probabilities.

        It is taken at Phi(`noise` [B, N, H, G]).
        """
        drawn = split_groups(torch.special.ndtr(noise), self.groups)
        pairs = zip(split(mean, self.groups), drawn, strict=True)
        return joined([_inverted(probs, one) for probs, one in pairs])

    def fit(
        self,
        mean: Tensor,
        std: Tensor,
        sequences: Tensor,
        weights: Tensor,
        share: Tensor,
        limits: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        """Count the choices of `sequences` by weight, see Gaussian.fit; `limits` are of numbers."""
        counted = (weights[:, :, None, None] * sequences).sum(1)
        probs = torch.lerp(mean, counted, share)
        probs = torch.lerp(probs, self._equal(probs), SMOOTHING)
        return probs, self.spread(probs)

    def mode(self, mean: Tensor) -> Tensor:
        """Return the likeliest choice of each group at each step [B, H, A]."""
        return likeliest(mean, self.groups)

    def entropy(self, mean: Tensor, std: Tensor) -> Tensor:
        """Return the mean entropy [B] of one choice, in nats."""
        return -torch.xlogy(mean, mean).sum(-1).mean(1) / len(self.groups)

    def _equal(self, like: Tensor) -> Tensor:
        """Return equal probabilities [A], or [] if all groups are of one size.

        They are filled in: a copy to a device would be a wait.
        """
        sizes = runs(self.groups)
        if len(sizes) == 1:
            return like.new_full((), 1 / sizes[0][1])
        return torch.cat([like.new_full((count * size,), 1 / size) for count, size in sizes])


def _inverted(probs: Tensor, drawn: Tensor) -> Tensor:
    """Return one-hot [B, N, H, n, size] for `drawn` [B, N, H, n] by `probs` [B, H, n, size]."""
    below = probs.cumsum(-1)[:, None, ..., :-1]  # the last bound is 1, whatever rounding says
    index = (drawn[..., None] > below).sum(-1, keepdim=True)
    hot = torch.zeros(*drawn.shape, probs.shape[-1], dtype=drawn.dtype, device=drawn.device)
    return hot.scatter_(-1, index, 1)
