"""Random shooting: the best of many sequences drawn at random."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.carry import Carry, Steps, nothing, remembered, resumed
from planet_rssm.planners.categorical import Categorical
from planet_rssm.planners.choices import uniform
from planet_rssm.planners.gaussian import top


class ShootingSearch(NamedTuple):
    """The `best` sequence [B, H, A] so far, its `value` [B]; `std` and `entropy` never change."""

    best: Tensor
    value: Tensor
    std: Tensor
    entropy: Tensor


class RandomShooting(SearchPlanner[Carry, ShootingSearch]):
    """Draw uniformly over the box, or over the choices of each group; act by the best.

    Every round draws anew, so its rounds are a budget, nothing else. With `warm_start` the last
    decision's best is the first candidate. The plan's value is the return that its sequence was
    chosen for, which errs upwards.
    """

    shifts_by_tensor = True

    def set_up(self) -> None:
        """Reserve a place for the best so far."""
        self.reserved = int(self.warm_start)

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, 0, self.settings.horizon, self.action_size, device)

    def start(
        self, carry: Carry, is_first: Tensor, noise: Tensor, executed: Steps = 1
    ) -> ShootingSearch:
        """Begin with nothing, or with the last decision's best."""
        # drawn, so that there is an action even where every return is −inf
        drawn = self._draw(noise[:, 0])
        best, _ = resumed(carry, is_first, executed, drawn, self.warm_start)
        worst = best.new_full((len(best),), -torch.inf)
        std = torch.full_like(best, 1 / 3**0.5)
        entropy = math.log(2)
        if isinstance(self.distribution, Categorical):
            std = self.distribution.spread(self.distribution.fresh(noise))
            entropy = sum(map(math.log, self.groups)) / len(self.groups)
        return ShootingSearch(best, worst, std, torch.full_like(worst, entropy))

    def propose(self, search: ShootingSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Draw uniformly; with `warm_start` the best so far has the first place."""
        sequences = self._draw(noise)
        if self.warm_start:
            sequences[:, 0] = search.best
        return sequences

    def refit(
        self,
        search: ShootingSearch,
        sequences: Tensor,
        returns: Tensor,
        precedence: Tensor | None = None,
    ) -> ShootingSearch:
        """Keep the best so far."""
        elites, values = top(sequences, returns, 1, precedence)
        value = values[:, 0]
        better = value > search.value
        best = torch.where(better[:, None, None], elites[:, 0], search.best)
        return search._replace(best=best, value=torch.where(better, value, search.value))

    def choose(
        self, search: ShootingSearch, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Carry]:
        """Act by the best, and remember it."""
        return search.best, search.value, remembered(search.best)

    def _draw(self, noise: Tensor) -> Tensor:
        """Return uniform sequences [..., H, A] of standard normal `noise` [..., H, noise_size]."""
        drawn = torch.special.ndtr(noise)
        return uniform(drawn, self.groups, noise.dtype) if self.groups else 2 * drawn - 1
