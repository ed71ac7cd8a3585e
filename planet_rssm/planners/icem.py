"""iCEM: the cross-entropy method with few samples (Pinneri et al. 2020, arXiv 2008.06389)."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.box import Bound
from planet_rssm.planners.carry import Carry, nothing, remembered, resumed
from planet_rssm.planners.choices import Groups
from planet_rssm.planners.gaussian import elite_weights, top

if TYPE_CHECKING:
    from planet_rssm.config import PlannerSettings


class ICEMSearch(NamedTuple):
    """The distribution [B, H, A], elites `kept` [B, R, H, A] where `known` [B], the `best` sequence seen, its `value`.

    `entropy` [B] does not see that the noise is coloured.
    """

    mean: Tensor
    std: Tensor
    entropy: Tensor
    kept: Tensor
    known: Tensor
    best: Tensor
    value: Tensor


class ICEM(SearchPlanner[Carry, ICEMSearch]):
    """CEM that samples coloured noise, remembers elites, starts warm and acts by the best sequence it has seen.

    Round i scores `candidates / decay**i` sequences, never fewer than twice the elites. The kept
    elites and, in the last round, the mean take the place of as many samples. The plan's value is
    the return of its own sequence when it was scored; with a stochastic model the best of many
    draws errs upwards.
    """

    own_init_std, own_momentum, own_warm_start = 0.5, 0.1, True  # the authors'

    def __init__(
        self,
        settings: "PlannerSettings",
        action_size: int,
        low: Bound = -1.0,
        high: Bound = 1.0,
        *,
        discrete: bool | Groups = False,
    ) -> None:
        """Take settings and box, or groups of choices; see SearchPlanner."""
        super().__init__(settings, action_size, low, high, discrete=discrete)
        self.kept = round(settings.reuse * settings.elites)
        self.mean_at, self.reserved = self.kept, self.kept + 1

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, self.kept, self.settings.horizon, self.action_size, device)

    @property
    def populations(self) -> tuple[int, ...]:
        """How many candidates each round scores, kept elites and mean included."""
        full, decay = self.settings.candidates, self.settings.decay
        return tuple(
            max(2 * self.settings.elites, int(full / decay**i))
            for i in range(self.settings.iterations)
        )

    def correlate(self, white: Tensor) -> Tensor:
        """Colour the noise along time."""
        return coloured(white, self.settings.colour)

    def start(self, carry: Carry, is_first: Tensor, noise: Tensor, executed: int = 1) -> ICEMSearch:
        """Shift the last decision's mean and elites by the steps executed since; the spread starts anew.

        The mean repeats its last action; each elite ends in newly sampled ones.
        """
        mean, known = resumed(
            carry, is_first, executed, self.distribution.fresh(noise), self.warm_start
        )
        mean = self.distribution.loosened(mean)
        std, entropy = self.distribution.spread(mean), mean.new_zeros(len(mean))
        gone = min(executed, self.settings.horizon)
        ends = self.distribution.sample(mean, std, noise[:, : self.kept])[
            :, :, mean.shape[1] - gone :
        ]
        kept = torch.cat([carry.elites[:, :, gone:].to(noise.dtype), ends], 2)
        best = self.distribution.mode(mean)
        return ICEMSearch(
            mean, std, entropy, kept, known, best, mean.new_full((len(mean),), -torch.inf)
        )

    def propose(self, search: ICEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the distribution; the kept elites come first, then in the last round its mean or likeliest."""
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
        """Move the distribution to the elites, all but a share `momentum`; keep the best elites and the best seen."""
        elites, returns = top(sequences, returns, self.settings.elites, precedence)
        weights, share = elite_weights(returns, self.momentum)
        limits = self.min_std, self.max_std
        mean, std = self.distribution.fit(search.mean, search.std, elites, weights, share, limits)
        better = returns[:, 0] > search.value
        return ICEMSearch(
            mean,
            std,
            self.distribution.entropy(mean, std),
            elites[:, : self.kept],
            torch.ones_like(search.known),
            torch.where(better[:, None, None], elites[:, 0], search.best),
            torch.where(better, returns[:, 0], search.value),
        )

    def choose(
        self, search: ICEMSearch, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Carry]:
        """Act by the best sequence seen; remember the mean and the kept elites."""
        return search.best, search.value, remembered(search.mean, search.kept)


def coloured(white: Tensor, exponent: float) -> Tensor:
    """Filter white noise [B, N, H, A] along H to a power spectrum f**−exponent with unit variance at every step.

    The mean over time, f = 0, gets the power of the lowest other frequency, 1 / H (Timmer & König
    1995).
    """
    horizon = white.shape[2]
    frequency = (
        torch.fft.fftfreq(horizon, device=white.device, dtype=white.dtype)
        .abs()
        .clamp(min=1 / horizon)
    )
    power = frequency.pow(-exponent)
    gain = (power / power.mean()).sqrt()[: horizon // 2 + 1, None]
    return torch.fft.irfft(gain * torch.fft.rfft(white, dim=2), n=horizon, dim=2)
