"""What planners remember from one decision to the next."""

from typing import NamedTuple

import torch
from torch import Tensor

Steps = int | Tensor  # a number, or int64 [] of a captured graph


class Carry(NamedTuple):
    """The last decision, in [−1, 1]: `mean` [B, H, A] and its best `elites` [B, R, H, A].

    `known` [B] is False before any. A planner over choices keeps their probabilities as the `mean`.
    """

    mean: Tensor
    elites: Tensor
    known: Tensor


def nothing(
    batch: int, elites: int, horizon: int, action_size: int, device: torch.device | None
) -> Carry:
    """Return the carry of rows that have decided nothing yet, with room for `elites`."""
    mean = torch.zeros(batch, horizon, action_size, device=device)
    known = torch.zeros(batch, dtype=torch.bool, device=device)
    return Carry(mean, mean[:, None].repeat(1, elites, 1, 1), known)


def remembered(mean: Tensor, elites: Tensor | None = None) -> Carry:
    """Return the carry of rows that have decided."""
    known = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    if elites is None:
        elites = mean.new_zeros(len(mean), 0, *mean.shape[1:])
    return Carry(mean, elites, known)


def ahead(mean: Tensor, executed: Steps) -> tuple[Tensor, Tensor]:
    """Return where in `mean` [B, H, A] each step lies `executed` steps later, int64 [H].

    And bool [H], whether it is there: behind the end it is the last one.
    """
    places = torch.arange(mean.shape[1], device=mean.device) + executed
    return places.clamp(max=mean.shape[1] - 1), places < mean.shape[1]


def resumed(
    carry: Carry, is_first: Tensor, executed: Steps, fresh: Tensor, warm: bool
) -> tuple[Tensor, Tensor]:
    """Return what a decision begins with [B, H, A], and in which rows [B] it is remembered.

    The remembered mean is shifted by the steps `executed` since, its last action filling the end.
    Rows that remember nothing or forget (`is_first`), and all rows unless `warm`, begin with
    `fresh` [B, H, A].
    """
    known = carry.known & ~is_first
    if not warm:
        return fresh, torch.zeros_like(known)
    places, _ = ahead(carry.mean, executed)
    shifted = carry.mean.index_select(1, places)
    return torch.where(known[:, None, None], shifted.to(fresh.dtype), fresh), known
