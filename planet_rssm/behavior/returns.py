"""Lambda-returns, and the scale that they are divided by."""

import torch
from torch import Tensor

from planet_rssm import ranks

LOW = 0.05  # the percentiles between which returns are taken to range
HIGH = 0.95
RATE = 0.01  # at which the range follows those of new batches
LEAST = 1.0  # returns that range over less are not scaled up


def lambda_return(
    reward: Tensor, bootstrap: Tensor, discount: Tensor, lam: Tensor | float
) -> Tensor:
    """Return R_t = r_t + d_t ((1 - lam) v_t + lam R_{t+1}), [M, H].

    Dreamer, arXiv 1912.01603, equation 6. Every argument is of what the action at t led to: time
    runs along the second axis, and the last R is r + d v.

    Args:
        reward: [M, H], that came with the state after the action.
        bootstrap: v [M, H], the value of the state after the action.
        discount: d [M, H], of that value; 0 where the episode ended with it.
        lam: a number or [M, H], 0 where no later reward counts.
    """
    lams = lam.to(reward) if isinstance(lam, Tensor) else reward.new_full((), lam)
    lams = lams.expand_as(reward)
    steps = reward + discount * (1 - lams) * bootstrap
    decays = discount * lams
    last = bootstrap[:, -1]
    returns = []
    for step, decay in zip(reversed(steps.unbind(1)), reversed(decays.unbind(1)), strict=True):
        last = step + decay * last
        returns.append(last)
    return torch.stack(returns[::-1], 1)


def range_after(before: Tensor, returns: Tensor, counted: Tensor) -> Tensor:
    """Return the range [2] of returns: `before` moved by RATE to the new percentiles.

    Args:
        before: [2], zeros at first.
        returns: [M, H].
        counted: bool [M], the rows that count, at least one, of all ranks.
    """
    values = ranks.gathered(returns.detach().masked_fill(~counted[:, None], torch.nan).flatten())
    # filled on the device: new_tensor would be a copy
    shares = torch.stack([values.new_full((), share) for share in (LOW, HIGH)])
    percentiles = torch.nanquantile(values, shares)
    return torch.lerp(before, percentiles.to(before), RATE)


def scale_of(bounds: Tensor) -> Tensor:
    """Return the number that returns in `bounds` [2] are divided by (DreamerV3, equation 7)."""
    return (bounds[1] - bounds[0]).clamp(min=LEAST)
