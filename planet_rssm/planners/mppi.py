"""Model predictive path integral control: candidates weighted by exp(return)."""

from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.carry import Carry, Steps, nothing, remembered, resumed
from planet_rssm.planners.gaussian import top


class MPPISearch(NamedTuple):
    """The `mean` and `std` [B, H, A] and `entropy` [B] of the distribution, and the `value` [B].

    The weighted `sequences` [B, K, H, A] have `weights` and `returns` [B, K].
    """

    mean: Tensor
    std: Tensor
    entropy: Tensor
    sequences: Tensor
    weights: Tensor
    returns: Tensor
    value: Tensor


class MPPI(SearchPlanner[Carry, MPPISearch]):
    """Sample around the mean, weigh by exp(return / temperature), move the mean there, repeat.

    With `weigh = all` this is information-theoretic MPPI (Williams et al. 2018, arXiv 1707.02342,
    algorithm 2, several rounds a decision): every candidate counts and the spread stays init_std.
    The last mean is its own base distribution, so nothing but the objective prices control. With
    `weigh = elites` it is TD-MPC2's form (Hansen et al. 2024, arXiv 2310.16828): the elites alone
    count, the spread is refitted within [min_std, max_std], and with `act_by = draw` an elite drawn
    by its weight is acted by. TD-MPC2's "temperature" 0.5 is the inverse of ours: 2.

    The plan's value is the weighted mean return of the last round, or that of the elite drawn.
    """

    shifts_by_tensor = True
    own_init_std = 0.5
    own_warm_start = True

    def set_up(self) -> None:
        """Compute who counts, what is acted by, and the bounds of the spread."""
        settings = self.settings
        self.by_elites = settings.weigh == "elites"
        self.draws_choice = settings.act_by == "draw"
        if self.by_elites:
            self.min_std = 0.05 if settings.min_std is None else settings.min_std
            self.max_std = 2.0 if settings.max_std is None else settings.max_std

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, 0, self.settings.horizon, self.action_size, device)

    def start(
        self, carry: Carry, is_first: Tensor, noise: Tensor, executed: Steps = 1
    ) -> MPPISearch:
        """Begin where the last decision ended; the spread starts anew."""
        fresh = self.distribution.fresh(noise)
        mean, _ = resumed(carry, is_first, executed, fresh, self.warm_start)
        mean = self.distribution.loosened(mean)
        std = self.distribution.spread(mean)
        none = mean.new_zeros(len(mean), 0)
        return MPPISearch(
            mean=mean,
            std=std,
            entropy=self.distribution.entropy(mean, std),
            sequences=mean[:, None][:, :0],
            weights=none,
            returns=none,
            value=mean.new_zeros(len(mean)),
        )

    def propose(self, search: MPPISearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the distribution."""
        return self.distribution.sample(search.mean, search.std, noise)

    def refit(
        self,
        search: MPPISearch,
        sequences: Tensor,
        returns: Tensor,
        precedence: Tensor | None = None,
    ) -> MPPISearch:
        """Move the mean, by elites the spread too, to the weighted candidates.

        A share `momentum` stays.
        """
        if self.by_elites:
            sequences, returns = top(sequences, returns, self.settings.elites, precedence)
        weights = softmax(returns, self.settings.temperature)
        # the sum is 0 where every return is −inf
        share = (1.0 - self.momentum) * weights.sum(1)[:, None, None]
        if self.by_elites:  # see elite_weights
            share = share * (returns > -torch.inf).to(share.dtype).mean(1)[:, None, None]
        limits = self.min_std, self.max_std
        fit = self.distribution.fit
        mean, std = fit(search.mean, search.std, sequences, weights, share, limits)
        if not self.by_elites:
            std = self.distribution.spread(mean)
        value = (weights * returns.nan_to_num(neginf=0.0)).sum(1)
        value = value.masked_fill(returns.amax(1).isinf(), -torch.inf)
        return MPPISearch(
            mean=mean,
            std=std,
            entropy=self.distribution.entropy(mean, std),
            sequences=sequences,
            weights=weights,
            returns=returns,
            value=value,
        )

    def choose(
        self, search: MPPISearch, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Carry]:
        """Act by the mean or the likeliest choices, or by an elite drawn with `noise` [B].

        The mean is remembered.
        """
        sequence = self.distribution.mode(search.mean)
        value = search.value
        if noise is not None:
            # The inverse of the cumulated weights has the same law as TD-MPC2's Gumbel draw and
            # takes one number.
            drawn = torch.special.ndtr(noise)[:, None] > search.weights.cumsum(1)[:, :-1]
            index = drawn.sum(1)
            rows = torch.arange(len(index), device=index.device)
            sequence = search.sequences[rows, index]
            value = search.returns[rows, index]
        return sequence, value, remembered(search.mean)


def softmax(returns: Tensor, temperature: float | None) -> Tensor:
    """Return weights [B, K] of `returns` [B, K], 0 at −inf; all 0 where there is no other.

    Without a temperature it is the standard deviation of the row's finite returns.
    """
    finite = returns > -torch.inf
    if temperature is None:
        kept = returns.masked_fill(~finite, torch.nan)
        spread = (kept - kept.nanmean(1, keepdim=True)).square().nanmean(1, keepdim=True).sqrt()
        scale = spread.clamp(min=torch.finfo(returns.dtype).tiny)
    else:
        scale = torch.full_like(returns[:, :1], temperature)
    logits = (returns - returns.amax(1, keepdim=True)) / scale
    weights = torch.where(finite, logits, -torch.inf).exp()
    return weights / weights.sum(1, keepdim=True).clamp(min=1.0)  # the best has weight 1 before
