"""The diagonal Gaussian over action sequences that CEM and its relatives fit."""

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-6  # PlaNet's: keeps the standard deviation positive when all elites agree


def sample(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Return candidates [B, N, H, A] in [−1, 1] of N(mean, std²), both [B, H, A], from standard normal `noise`."""
    return torch.addcmul(mean[:, None], std[:, None], noise).clamp_(-1.0, 1.0)


def top(sequences: Tensor, returns: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best of `sequences` [B, N, H, A] and their returns [B, count], the best first."""
    best, index = returns.topk(count, dim=1)
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
    whole = (returns > -torch.inf)[:, :, None, None].to(elites.dtype)
    count = whole.sum(1).clamp(min=1.0)
    fitted = (whole * elites).sum(1) / count
    variance = (whole * (elites - fitted[:, None]).square()).sum(1) / count
    share = (1.0 - momentum) * whole.mean(1)
    return torch.lerp(mean, fitted, share), torch.lerp(std, (variance + VARIANCE_FLOOR).sqrt(), share)
