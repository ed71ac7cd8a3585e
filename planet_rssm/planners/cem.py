"""The cross-entropy method as PlaNet plans with it (Hafner et al. 2019, arXiv 1811.04551, algorithm 2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.gaussian import mean_of_whole, refit, sample, top


class CEMSearch(NamedTuple):
    """The Gaussian, `mean` and `std` [B, H, A], and the `value` [B]: the mean return of the elites it was fitted to."""

    mean: Tensor
    std: Tensor
    value: Tensor


class CEM(SearchPlanner[tuple[()], CEMSearch]):
    """Sample, keep the elites, refit a diagonal Gaussian, repeat; act by the final mean.

    Every decision starts from N(0, init_std²) and nothing is remembered: the carry is empty. The plan's value is the
    mean return of the last round's elites, an estimate for the final mean that errs upwards.
    """

    def initial(self, batch: int, device: torch.device | None = None) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def start(self, carry: tuple[()], is_first: Tensor, noise: Tensor, executed: int = 1) -> CEMSearch:
        """Begin at N(0, init_std²)."""
        mean = torch.zeros_like(noise[:, 0])
        return CEMSearch(mean, torch.full_like(mean, self.settings.init_std), mean.new_zeros(len(mean)))

    def propose(self, search: CEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the Gaussian, clipped to [−1, 1]."""
        return sample(search.mean, search.std, noise)

    def refit(self, search: CEMSearch, sequences: Tensor, returns: Tensor) -> CEMSearch:
        """Fit the Gaussian to the elites."""
        elites, returns = top(sequences, returns, self.settings.elites)
        mean, std = refit(search.mean, search.std, elites, returns)
        return CEMSearch(mean, std, mean_of_whole(returns))

    def choose(self, search: CEMSearch) -> tuple[Tensor, Tensor, tuple[()]]:
        """Act by the final mean."""
        return search.mean.clamp(-1.0, 1.0), search.value, ()
