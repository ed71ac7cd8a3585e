"""What a plan is worth: one number a candidate, from the rewards a dynamics foretells."""

import torch
from torch import Tensor

from planet_rssm.types import Rollout


class Objective:
    """The discounted sum of rewards.

    Reward h counts by `discount**h` and by the product of the rollout's own discounts *before* h: a discount of 0 at
    step h says that the episode ends there, so its own reward still counts and the later ones do not.
    """

    def __init__(self, discount: float = 1.0) -> None:
        """Take the discount of one agent step, 0 to 1."""
        self.discount = discount

    def __call__(self, rollout: Rollout) -> Tensor:
        """Return the returns [B, N]; they are not finite where a reward or a discount is not."""
        earlier = self.discount * rollout.discount[..., :-1]
        weight = torch.cat([torch.ones_like(rollout.discount[..., :1]), earlier.cumprod(-1)], -1)
        return (weight * rollout.reward).sum(-1)


def rank(returns: Tensor) -> Tensor:
    """Return `returns` with −inf for NaN and both infinities, so that what the model broke on never wins."""
    return returns.masked_fill(~returns.isfinite(), -torch.inf)
