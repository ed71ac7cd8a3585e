"""The cross-entropy method of PlaNet (Hafner et al. 2019, arXiv 1811.04551, algorithm 2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.carry import Carry, Steps, nothing, remembered, resumed
from planet_rssm.planners.gaussian import elite_weights, mean_of_finite, top


class CEMSearch(NamedTuple):
    """The distribution: `mean` and `std` [B, H, A]; the elites' returns [B, K]."""

    mean: Tensor
    std: Tensor
    returns: Tensor


class CEM(SearchPlanner[Carry, CEMSearch]):
    """Sample, keep the elites, refit a diagonal Gaussian, repeat; act by the final mean.

    Every decision starts from N(0, init_std²), with `warm_start` from N(last mean, init_std²). Over
    choices, a product of categoricals is refitted by counting; the plan is the likeliest choices. A
    decision starts from equal chances, with `warm_start` from the mean of those and what the last
    one ended with. The plan's value is the mean return of the last round's elites, an estimate for
    the final mean that errs upwards.
    """

    shifts_by_tensor = True

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, 0, self.settings.horizon, self.action_size, device)

    def start(
        self, carry: Carry, is_first: Tensor, noise: Tensor, executed: Steps = 1
    ) -> CEMSearch:
        """Begin at N(0, init_std²) or with equal chances, or where the last decision ended."""
        fresh = self.distribution.fresh(noise)
        mean, _ = resumed(carry, is_first, executed, fresh, self.warm_start)
        mean = self.distribution.loosened(mean)
        return CEMSearch(mean, self.distribution.spread(mean), mean.new_zeros(len(mean), 0))

    def propose(self, search: CEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the distribution."""
        return self.distribution.sample(search.mean, search.std, noise)

    def refit(
        self,
        search: CEMSearch,
        sequences: Tensor,
        returns: Tensor,
        precedence: Tensor | None = None,
    ) -> CEMSearch:
        """Fit the distribution to the elites, a share `momentum` of it staying."""
        elites, returns = top(sequences, returns, self.settings.elites, precedence)
        weights, share = elite_weights(returns, self.momentum)
        limits = self.min_std, self.max_std
        mean, std = self.distribution.fit(search.mean, search.std, elites, weights, share, limits)
        return CEMSearch(mean, std, returns)

    def choose(
        self, search: CEMSearch, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Carry]:
        """Act by the final mean or the likeliest choices, and remember the distribution."""
        value = mean_of_finite(search.returns)
        return self.distribution.mode(search.mean), value, remembered(search.mean)

    def entropies(self, searches: Sequence[CEMSearch]) -> Tensor:
        """Return the entropy after each round, [B, I], of all at once."""
        mean, std = (torch.stack([one[part] for one in searches], 1) for part in (0, 1))
        flat = self.distribution.entropy(mean.flatten(0, 1), std.flatten(0, 1))
        return flat.view(mean.shape[:2])
