"""The diagonal Gaussian over action sequences that CEM and its relatives fit."""

import math

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-6  # PlaNet's: keeps the standard deviation positive when all elites agree
STANDARD_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), in nats


def entropy(std: Tensor) -> Tensor:
    """Return the mean entropy [B] of one number of N(·, std²), `std` [B, H, A], in nats; bounds are not seen."""
    return std.log().mean((1, 2)) + STANDARD_ENTROPY


def sample(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Return candidates [B, N, H, A] in [−1, 1] of N(mean, std²), both [B, H, A], from standard normal `noise`."""
    return torch.addcmul(mean[:, None], std[:, None], noise).clamp_(-1.0, 1.0)


def top(sequences: Tensor, returns: Tensor, count: int, precedence: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the `count` best of `sequences` [B, N, H, A] and their returns [B, count], the best first.

    Of equal returns the one whose place comes first in `precedence` [N] is the better, None: the one that stands first.
    A stable sort, because topk takes any of them: others on other devices and at other sizes.
    """
    returns = returns if precedence is None else returns[:, precedence]
    best, index = (found[:, :count] for found in returns.sort(dim=1, descending=True, stable=True))
    index = index if precedence is None else precedence[index]
    rows = sequences.flatten(2)
    elites = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    return elites.unflatten(2, sequences.shape[2:]), best


def mean_of_whole(returns: Tensor) -> Tensor:
    """Return the mean [B] over the `returns` [B, K] that are not −inf, and −inf where all are."""
    return returns.masked_fill(returns.isinf(), torch.nan).nanmean(1).nan_to_num(nan=-torch.inf)


def refit(mean: Tensor, std: Tensor, elites: Tensor, returns: Tensor, momentum: float = 0.0) -> tuple[Tensor, Tensor]:
    """Move `mean` and `std` [B, H, A] to those of `elites` [B, K, H, A], all but a share `momentum` of the way.

    Elites whose return [B, K] is −inf do not count, and the Gaussian moves by the share of those that do: it neither
    collapses on the one candidate that the model did not break on, nor moves when there is none.
    """
    whole = (returns > -torch.inf).to(elites.dtype)
    fitted, spread = weighted(elites, whole / whole.sum(1, keepdim=True).clamp(min=1.0))
    share = (1.0 - momentum) * whole.mean(1)[:, None, None]
    return torch.lerp(mean, fitted, share), torch.lerp(std, spread, share)


def weighted(sequences: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [B, H, A] of `sequences` [B, K, H, A] by `weights` [B, K] that sum to 1."""
    weights = weights[:, :, None, None]
    mean = (weights * sequences).sum(1)
    variance = (weights * (sequences - mean[:, None]).square()).sum(1)
    return mean, (variance + VARIANCE_FLOOR).sqrt()
