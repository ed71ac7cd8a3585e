"""iCEM: the cross-entropy method with few samples (Pinneri et al. 2020, arXiv 2008.06389)."""

from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.carry import Carry, Steps, ahead, nothing, remembered, resumed
from planet_rssm.planners.gaussian import elite_weights, top


class ICEMSearch(NamedTuple):
    """The distribution `mean` and `std` [B, H, A], and what was best so far.

    The elites `kept` [B, R, H, A] count where `known` [B]; the `best` sequence [B, H, A] so far has
    the return `value` [B]. `entropy` [B] is that of white noise.
    """

    mean: Tensor
    std: Tensor
    entropy: Tensor
    kept: Tensor
    known: Tensor
    best: Tensor
    value: Tensor


class ICEM(SearchPlanner[Carry, ICEMSearch]):
    """CEM that samples coloured noise, keeps elites, starts warm and acts by its best sequence.

    Round i scores `candidates / decay**i` sequences, never fewer than twice the elites. The kept
    elites and, in the last round, the mean take the place of as many samples. The plan's value is
    the return of its own sequence when it was scored; with a stochastic model the best of many
    draws errs upwards.
    """

    shifts_by_tensor = True
    own_init_std = 0.5  # these are the authors'
    own_momentum = 0.1
    own_warm_start = True

    def set_up(self) -> None:
        """Compute how many elites are kept, and where they and the mean stand."""
        self.kept = round(self.settings.reuse * self.settings.elites)
        self.mean_at = self.kept
        self.reserved = self.kept + 1

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, self.kept, self.settings.horizon, self.action_size, device)

    @property
    def populations(self) -> tuple[int, ...]:
        """How many candidates each round scores, kept elites and mean included."""
        settings = self.settings
        least = 2 * settings.elites
        sizes = (int(settings.candidates / settings.decay**i) for i in range(settings.iterations))
        return tuple(max(least, size) for size in sizes)

    def correlate(self, white: Tensor) -> Tensor:
        """Colour the noise along time."""
        return coloured(white, self.settings.colour)

    def start(
        self, carry: Carry, is_first: Tensor, noise: Tensor, executed: Steps = 1
    ) -> ICEMSearch:
        """Shift the last mean and elites by the steps executed since; the spread starts anew.

        The mean repeats its last action; each elite ends in newly sampled ones.
        """
        fresh = self.distribution.fresh(noise)
        mean, known = resumed(carry, is_first, executed, fresh, self.warm_start)
        mean = self.distribution.loosened(mean)
        std = self.distribution.spread(mean)
        sampled = self.distribution.sample(mean, std, noise[:, : self.kept])
        places, there = ahead(carry.mean, executed)
        moved = carry.elites.index_select(2, places).to(noise.dtype)
        return ICEMSearch(
            mean=mean,
            std=std,
            entropy=mean.new_zeros(len(mean)),
            kept=torch.where(there[:, None], moved, sampled),
            known=known,
            best=self.distribution.mode(mean),
            value=mean.new_full((len(mean),), -torch.inf),
        )

    def propose(self, search: ICEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample; the kept elites come first, then in the last round the mean or likeliest."""
        sequences = self.distribution.sample(search.mean, search.std, noise)
        places = sequences[:, : self.kept]
        places.copy_(torch.where(search.known[:, None, None, None], search.kept, places))
        if last:
            sequences[:, self.mean_at] = self.distribution.mode(search.mean)
        return sequences

    def refit(
        self,
        search: ICEMSearch,
        sequences: Tensor,
        returns: Tensor,
        precedence: Tensor | None = None,
    ) -> ICEMSearch:
        """Move the distribution to the elites, all but a share `momentum`; keep the best ones."""
        elites, returns = top(sequences, returns, self.settings.elites, precedence)
        weights, share = elite_weights(returns, self.momentum)
        limits = self.min_std, self.max_std
        mean, std = self.distribution.fit(search.mean, search.std, elites, weights, share, limits)
        better = returns[:, 0] > search.value
        return ICEMSearch(
            mean=mean,
            std=std,
            entropy=self.distribution.entropy(mean, std),
            kept=elites[:, : self.kept],
            known=torch.ones_like(search.known),
            best=torch.where(better[:, None, None], elites[:, 0], search.best),
            value=torch.where(better, returns[:, 0], search.value),
        )

    def choose(
        self, search: ICEMSearch, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Carry]:
        """Act by the best sequence so far; remember the mean and the kept elites."""
        return search.best, search.value, remembered(search.mean, search.kept)


def coloured(white: Tensor, exponent: float) -> Tensor:
    """Filter white noise [B, N, H, A] along H to a power spectrum f**−exponent.

    The variance is 1 at every step. The mean over time, f = 0, gets the power of the lowest other
    frequency, 1 / H (Timmer & König 1995).
    """
    horizon = white.shape[2]
    frequency = torch.fft.fftfreq(horizon, device=white.device, dtype=white.dtype)
    power = frequency.abs().clamp(min=1 / horizon).pow(-exponent)
    gain = (power / power.mean()).sqrt()[: horizon // 2 + 1, None]
    return torch.fft.irfft(gain * torch.fft.rfft(white, dim=2), n=horizon, dim=2)
