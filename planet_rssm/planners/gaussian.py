"""The diagonal Gaussian over action sequences that CEM and its relatives fit."""

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

VARIANCE_FLOOR = 1e-6  # PlaNet's: keeps the standard deviation positive when all elites agree
STANDARD_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), in nats


class Gaussian:
    """N(mean, std²) over numbers in [−1, 1], `mean` and `std` [B, H, A]; samples are clipped."""

    def __init__(self, action_size: int, init_std: float) -> None:
        """Take A, and the spread that a search begins with."""
        self.noise_size = action_size
        self.init_std = init_std

    def fresh(self, noise: Tensor) -> Tensor:
        """Return the mean [B, H, A] of a search without a past, for `noise` [B, N, H, A]."""
        return torch.zeros_like(noise[:, 0])

    def loosened(self, mean: Tensor) -> Tensor:
        """Return what a search begins with: the mean itself, since its spread starts anew."""
        return mean

    def spread(self, mean: Tensor) -> Tensor:
        """Return the first spread [B, H, A]."""
        return torch.full_like(mean, self.init_std)

    def sample(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Return candidates [B, N, H, A] from standard normal `noise` [B, N, H, A]."""
        return torch.addcmul(mean[:, None], std[:, None], noise).clamp_(-1.0, 1.0)

    def fit(
        self,
        mean: Tensor,
        std: Tensor,
        sequences: Tensor,
        weights: Tensor,
        share: Tensor,
        limits: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        """Move `mean` and `std` a `share` [B, 1, 1] of the way to those of weighted `sequences`.

        `sequences` are [B, K, H, A]; their `weights` [B, K] sum to 1, or to 0 where the share is 0;
        the new spread is kept within `limits`.
        """
        fitted, spread = weighted(sequences, weights)
        low, high = limits
        mean, std = torch.lerp(mean, fitted, share), torch.lerp(std, spread, share)
        return mean, std if (low, high) == (0, math.inf) else std.clamp(low, high)

    def mode(self, mean: Tensor) -> Tensor:
        """Return the likeliest sequence [B, H, A]."""
        return mean.clamp(-1.0, 1.0)

    def entropy(self, mean: Tensor, std: Tensor) -> Tensor:
        """Return the mean entropy [B] of one number, in nats, as if nothing were clipped."""
        return std.log().mean((1, 2)) + STANDARD_ENTROPY


def top(
    sequences: Tensor, returns: Tensor, count: int, precedence: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the `count` best of `sequences` [B, N, H, A] and their returns, the best first.

    Of equal returns the one whose place comes first in `precedence` [N] is the better, None: the
    one that stands first. A stable sort, because topk takes any of them: others on other devices
    and at other sizes.
    """
    returns = returns if precedence is None else returns[:, precedence]
    values, order = returns.sort(dim=1, descending=True, stable=True)
    index = order[:, :count]
    index = index if precedence is None else precedence[index]
    rows = sequences.flatten(2)
    elites = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    return elites.unflatten(2, sequences.shape[2:]), values[:, :count]


def tie_order(returns: Tensor, mean_at: int | None, proposals: int) -> Tensor | None:
    """Return the places [N] of candidates in the order in which they win a tie.

    None: as they stand. What was handed in comes before what was drawn: the mean, at `mean_at` in
    the last round, the proposals, which stand at the end, then the kept elites, which stand at the
    beginning. So where all `returns` [B, N] are the same, as in a sparse task far from its reward,
    a search keeps to what it knew.
    """
    mean = slice(0, 0) if mean_at is None else slice(mean_at, mean_at + 1)
    if not proposals and mean_at is None:
        return None
    places = torch.arange(returns.shape[1], device=returns.device)
    drawn = places[: len(places) - proposals]
    given = places[len(drawn) :]
    return torch.cat([drawn[mean], given, drawn[: mean.start], drawn[mean.stop :]])


def mean_of_finite(returns: Tensor) -> Tensor:
    """Return the mean [*B] over the `returns` [*B, K] that are not −inf, and −inf where all are."""
    total = returns.nan_to_num(neginf=0.0).sum(-1)
    return (total / (returns > -torch.inf).sum(-1)).nan_to_num(nan=-torch.inf)


def elite_weights(returns: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """Return the weights [B, K] of elites by their `returns`, and the share [B, 1, 1] to move.

    Elites whose return is −inf do not count, and what is fitted moves by the share of those that
    do, all but `momentum` of the way: it neither collapses on the one candidate that the model did
    not break on, nor moves when there is none.
    """
    finite = (returns > -torch.inf).to(returns.dtype)
    count = finite.sum(1, keepdim=True)
    share = count[:, None] / returns.shape[1]
    return finite / count.clamp(min=1.0), share if momentum == 0 else (1.0 - momentum) * share


def weighted(sequences: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [B, H, A] of `sequences` [B, K, H, A].

    Their `weights` [B, K] sum to 1.
    """
    rows, shares = sequences.flatten(2), weights[:, None]
    with torch.autocast(rows.device.type, enabled=False):  # an agent's would take the precision
        mean = shares @ rows
        # one launch, where a difference and a square are two
        variance = shares @ mse_loss(rows, mean.expand_as(rows), reduction="none")
    shape = sequences[:, 0].shape
    return mean.view(shape), (variance + VARIANCE_FLOOR).sqrt_().view(shape)
