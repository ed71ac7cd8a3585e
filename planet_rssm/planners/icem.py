"""iCEM: the cross-entropy method with few samples (Pinneri et al. 2020, arXiv 2008.06389)."""

from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm.config import PlannerSettings
from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.gaussian import refit, sample, top


class ICEMCarry(NamedTuple):
    """What the next decision starts from: `mean` [B, H, A], `elites` [B, R, H, A]; `known` [B] is False before any."""

    mean: Tensor
    elites: Tensor
    known: Tensor


class ICEMSearch(NamedTuple):
    """The Gaussian [B, H, A], elites `kept` [B, R, H, A] where `known` [B], the `best` sequence seen, its `value`."""

    mean: Tensor
    std: Tensor
    kept: Tensor
    known: Tensor
    best: Tensor
    value: Tensor


class ICEM(SearchPlanner[ICEMCarry, ICEMSearch]):
    """CEM that samples coloured noise, remembers elites, starts warm and acts by the best sequence it has seen.

    Round i scores `candidates / decay**i` sequences, never fewer than twice the elites. The kept elites and, in the
    last round, the mean take the place of as many samples. The plan's value is the return of its own sequence when it
    was scored; with a stochastic model the best of many draws errs upwards.
    """

    def __init__(self, settings: PlannerSettings, action_size: int) -> None:
        """Take the settings and the size A of an action."""
        super().__init__(settings, action_size)
        self.kept = round(settings.reuse * settings.elites)

    def initial(self, batch: int, device: torch.device | None = None) -> ICEMCarry:
        """Return the carry of rows that have decided nothing yet."""
        mean = torch.zeros(batch, self.settings.horizon, self.action_size, device=device)
        elites = mean[:, None].repeat(1, self.kept, 1, 1)
        return ICEMCarry(mean, elites, torch.zeros(batch, dtype=torch.bool, device=device))

    @property
    def populations(self) -> tuple[int, ...]:
        """How many candidates each round scores, kept elites and mean included."""
        full, decay = self.settings.candidates, self.settings.decay
        return tuple(max(2 * self.settings.elites, int(full / decay**i)) for i in range(self.settings.iterations))

    def correlate(self, white: Tensor) -> Tensor:
        """Colour the noise along time."""
        return coloured(white, self.settings.colour)

    def start(self, carry: ICEMCarry, is_first: Tensor, noise: Tensor, executed: int = 1) -> ICEMSearch:
        """Shift the last decision's mean and elites by the steps executed since; the spread starts anew.

        The mean repeats its last action; each elite ends in newly sampled ones.
        """
        known = carry.known & ~is_first
        gone = min(executed, self.settings.horizon)
        tail = carry.mean[:, -1:].expand(-1, gone, -1)
        mean = torch.cat([carry.mean[:, gone:], tail], 1).to(noise.dtype)
        mean = torch.where(known[:, None, None], mean, 0.0)
        std = torch.full_like(mean, self.settings.init_std)
        ends = sample(mean[:, -gone:], std[:, -gone:], noise[:, : self.kept, -gone:])
        kept = torch.cat([carry.elites[:, :, gone:].to(noise.dtype), ends], 2)
        return ICEMSearch(mean, std, kept, known, mean, mean.new_full((len(mean),), -torch.inf))

    def propose(self, search: ICEMSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample the Gaussian, clipped to [−1, 1]; the kept elites come first, then in the last round the mean."""
        sequences = sample(search.mean, search.std, noise)
        places = sequences[:, : self.kept]
        places.copy_(torch.where(search.known[:, None, None, None], search.kept, places))
        if last:
            sequences[:, self.kept] = search.mean.clamp(-1.0, 1.0)
        return sequences

    def refit(self, search: ICEMSearch, sequences: Tensor, returns: Tensor) -> ICEMSearch:
        """Move the Gaussian to the elites, a share `momentum` of it staying; keep the best elites and the best seen."""
        elites, returns = top(sequences, returns, self.settings.elites)
        mean, std = refit(search.mean, search.std, elites, returns, self.settings.momentum)
        better = returns[:, 0] > search.value
        return ICEMSearch(
            mean,
            std,
            elites[:, : self.kept],
            torch.ones_like(search.known),
            torch.where(better[:, None, None], elites[:, 0], search.best),
            torch.where(better, returns[:, 0], search.value),
        )

    def choose(self, search: ICEMSearch) -> tuple[Tensor, Tensor, ICEMCarry]:
        """Act by the best sequence seen; remember the mean and the kept elites."""
        return search.best, search.value, ICEMCarry(search.mean, search.kept, search.known)


def coloured(white: Tensor, exponent: float) -> Tensor:
    """Filter white noise [B, N, H, A] along H to a power spectrum f**−exponent with unit variance at every step.

    The mean over time, f = 0, gets the power of the lowest other frequency, 1 / H (Timmer & König 1995).
    """
    horizon = white.shape[2]
    frequency = torch.fft.fftfreq(horizon, device=white.device, dtype=white.dtype).abs().clamp(min=1 / horizon)
    power = frequency.pow(-exponent)
    gain = (power / power.mean()).sqrt()[: horizon // 2 + 1, None]
    return torch.fft.irfft(gain * torch.fft.rfft(white, dim=2), n=horizon, dim=2)
