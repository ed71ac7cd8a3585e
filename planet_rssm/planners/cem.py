"""The cross-entropy method as PlaNet plans with it (Hafner et al. 2019, arXiv 1811.04551, algorithm 2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.gaussian import entropy, mean_of_whole, refit, sample, top
from planet_rssm.planners.memory import Carry, nothing, remembered, resumed


class CEMSearch(NamedTuple):
    """The Gaussian, `mean` and `std` [B, H, A], and the `value` [B]: the mean return of the elites it was fitted to."""

    mean: Tensor
    std: Tensor
    value: Tensor

    @property
    def entropy(self) -> Tensor:
        """Of one number, [B]."""
        return entropy(self.std)


class CEM(SearchPlanner[Carry, CEMSearch]):
    """Sample, keep the elites, refit a diagonal Gaussian, repeat; act by the final mean.

    Every decision starts from N(0, init_std²), with `warm_start` from N(last mean, init_std²). The plan's value is the
    mean return of the last round's elites, an estimate for the final mean that errs upwards.
    """

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, 0, self.settings.horizon, self.action_size, device)

    def start(self, carry: Carry, is_first: Tensor, noise: Tensor, executed: int = 1) -> CEMSearch:
        """Begin at N(0, init_std²), or where the last decision ended."""
        mean, _ = resumed(carry, is_first, executed, torch.zeros_like(noise[:, 0]), self.warm_start)
        return CEMSearch(mean, torch.full_like(mean, self.init_std), mean.new_zeros(len(mean)))

    def propose(self, search: CEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the Gaussian, clipped to [−1, 1]."""
        return sample(search.mean, search.std, noise)

    def refit(
        self, search: CEMSearch, sequences: Tensor, returns: Tensor, precedence: Tensor | None = None
    ) -> CEMSearch:
        """Fit the Gaussian to the elites, a share `momentum` of it staying."""
        elites, returns = top(sequences, returns, self.settings.elites, precedence)
        mean, std = refit(search.mean, search.std, elites, returns, self.momentum)
        return CEMSearch(mean, std.clamp(self.min_std, self.max_std), mean_of_whole(returns))

    def choose(self, search: CEMSearch, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Carry]:
        """Act by the final mean, and remember it."""
        return search.mean.clamp(-1.0, 1.0), search.value, remembered(search.mean)
