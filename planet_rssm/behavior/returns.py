"""Lambda-returns, and the scale that they are divided by."""

import torch
from torch import Tensor

LOW, HIGH = 0.05, 0.95  # the percentiles between which returns are said to range
RATE = 0.01  # at which the range follows those of new batches
LEAST = 1.0  # returns that range over less are not blown up


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor, trace: Tensor | float) -> Tensor:
    """Return R_t = r_t + d_t ((1 - trace) v_t + trace R_{t+1}), [M, H] (Dreamer, arXiv 1912.01603, equation 6).

    Every argument is of what the action at t led to: time runs along the second axis, and the last
    R is r + d v.

    Args:
        reward: [M, H], that came with the state after the action.
        value: [M, H], of the state after the action.
        discount: [M, H], of that value; 0 where the episode ended with it.
        trace: a number or [M, H], 0 where no later reward is to be looked at.
    """
    traces = trace.to(reward) if isinstance(trace, Tensor) else reward.new_full((), trace)
    traces = traces.expand_as(reward)
    steps = reward + discount * (1 - traces) * value
    decay, last = discount * traces, value[:, -1]
    found = []
    for step, share in zip(reversed(steps.unbind(1)), reversed(decay.unbind(1)), strict=True):
        last = step + share * last
        found.append(last)
    return torch.stack(found[::-1], 1)


def range_after(before: Tensor, returns: Tensor, counted: Tensor) -> Tensor:
    """Return the range [2] of returns, `before` moved by RATE to the percentiles of those of the `counted` rows.

    Args:
        before: [2], zeros at first.
        returns: [M, H].
        counted: bool [M], at least one.
    """
    whole = returns.detach().masked_fill(~counted[:, None], torch.nan).flatten()
    at = torch.stack(
        [whole.new_full((), share) for share in (LOW, HIGH)]
    )  # filled there: new_tensor would be a copy
    found = torch.nanquantile(whole, at)
    return torch.lerp(before, found.to(before), RATE)


def scale_of(bounds: Tensor) -> Tensor:
    """Return the number that returns of the range `bounds` [2] are divided by (DreamerV3, equation 7)."""
    return (bounds[1] - bounds[0]).clamp(min=LEAST)
