"""One batch whose rows several processes share: sums, means and percentiles over all of them.

Inside `sharing` each process, a rank, has some rows of a batch, and a loss is its share of the
batch's loss: the shares of all ranks add up to it, and so do their gradients. What keeps this true
is here: a mean divides by the count of all ranks, and what is no sum is computed from the sum.
Outside `sharing` there is one rank, and nothing is exchanged.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class _Sharing:
    ranks: int
    # what was counted of masks, by their id; a mask that is kept here keeps its id
    counts: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


_sharing: ContextVar[_Sharing | None] = ContextVar("sharing", default=None)

shared = _sharing.get  # None, or what ranks share; not Python, for every loss asks


@contextlib.contextmanager
def sharing(ranks: int) -> Iterator[None]:
    """Share the rows of one batch among the `ranks` processes of torch's default group.

    All of them must compute the same things in the same order inside.
    """
    token = _sharing.set(_Sharing(ranks))
    try:
        yield
    finally:
        _sharing.reset(token)


def count(mask: Tensor) -> Tensor:
    """Return how many entries of a `mask` are set, in the rows of all ranks.

    Where no ranks share a batch, `shared() is None`, that is `mask.sum()`.
    """
    own = shared()
    if own is None:
        return mask.sum()
    if id(mask) not in own.counts:
        own.counts[id(mask)] = mask, total(mask.sum())
    return own.counts[id(mask)][1]


def total(share: Tensor) -> Tensor:
    """Return the sum of all ranks' shares, without gradient."""
    share = share.detach()
    if shared() is None:
        return share
    share = share.clone()
    dist.all_reduce(share)
    return share


def at_least(share: Tensor, least: float) -> Tensor:
    """Return this rank's share of max(least, sum of all shares), of a scalar `share`."""
    own = shared()
    if own is None:
        return share.clamp(min=least)
    return torch.where(total(share) < least, share.new_full((), least / own.ranks), share)


def share_of(value: Tensor) -> Tensor:
    """Return this rank's share of a value that all ranks have alike."""
    own = shared()
    return value if own is None else value / own.ranks


def gathered(values: Tensor) -> Tensor:
    """Return the values [N] of all ranks, without gradient, with NaN where a rank has fewer."""
    own = shared()
    values = values.detach()
    if own is None:
        return values
    longest = torch.tensor(len(values), device=values.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    padded = values.new_full((int(longest),), torch.nan)
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in range(own.ranks)]
    dist.all_gather(parts, padded)
    return torch.cat(parts)
