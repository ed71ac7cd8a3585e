"""The cross-entropy method over choices: a categorical distribution for every step of the plan (Rubinstein 1999)."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.gaussian import mean_of_whole, refit, top
from planet_rssm.planners.memory import Carry, nothing, remembered, resumed

if TYPE_CHECKING:
    from planet_rssm.config import PlannerSettings

SMOOTHING = 0.02  # share of the uniform distribution in every refit: no choice ever becomes impossible
RESTART = 0.5  # share of the uniform distribution that a warm start begins with


class CategoricalSearch(NamedTuple):
    """The probabilities `probs` [B, H, A] and the `value` [B]: the mean return of the elites they were fitted to."""

    probs: Tensor
    value: Tensor

    @property
    def std(self) -> Tensor:
        """Spread of the next candidates' entries, [B, H, A]."""
        return (self.probs * (1 - self.probs)).sqrt()

    @property
    def entropy(self) -> Tensor:
        """Of one choice, [B]."""
        return -torch.xlogy(self.probs, self.probs).sum(-1).mean(1)


class CategoricalCEM(SearchPlanner[Carry, CategoricalSearch]):
    """CEM for one-hot actions: sample choices, keep the elites, refit by counting, repeat; act by the likeliest.

    Every decision starts from equal chances, with `warm_start` from half of them and half of what the last one ended
    with. The plan's value is the mean return of the last round's elites.
    """

    def __init__(self, settings: "PlannerSettings", action_size: int) -> None:
        """Take the settings and the number A of choices."""
        super().__init__(settings, action_size)
        self.noise_size = 1  # one draw decides between all choices

    def initial(self, batch: int, device: torch.device | None = None) -> Carry:
        """Return the carry of rows that have decided nothing yet."""
        return nothing(batch, 0, self.settings.horizon, self.action_size, device)

    def start(self, carry: Carry, is_first: Tensor, noise: Tensor, executed: int = 1) -> CategoricalSearch:
        """Begin with equal chances, or with what the last decision ended with, loosened."""
        batch, _, horizon, _ = noise.shape
        equal = noise.new_full((batch, horizon, self.action_size), 1 / self.action_size)
        before, _ = resumed(carry, is_first, executed, equal, self.warm_start)
        probs = torch.lerp(before, equal, RESTART)  # as a Gaussian's spread starts anew
        return CategoricalSearch(probs, probs.new_zeros(batch))

    def propose(self, search: CategoricalSearch, noise: Tensor, *, last: bool) -> Tensor:
        """Sample by the inverse of the cumulated probabilities."""
        uniform = torch.special.ndtr(noise)  # [B, N, H, 1] of a standard normal
        below = search.probs.cumsum(-1)[:, None, :, :-1]  # the last bound is 1, whatever rounding says
        return one_hot((uniform > below).sum(-1), self.action_size).to(noise.dtype)

    def refit(
        self, search: CategoricalSearch, sequences: Tensor, returns: Tensor, precedence: Tensor | None = None
    ) -> CategoricalSearch:
        """Count the choices of the elites."""
        elites, returns = top(sequences, returns, self.settings.elites, precedence)
        probs, _ = refit(search.probs, search.probs, elites, returns, self.momentum)
        return CategoricalSearch(torch.lerp(probs, probs.new_full((), 1 / self.action_size), SMOOTHING),
                                 mean_of_whole(returns))  # fmt: skip

    def choose(self, search: CategoricalSearch, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Carry]:
        """Act by the likeliest choice of each step."""
        choice = search.probs.argmax(-1)
        return one_hot(choice, self.action_size).to(search.probs.dtype), search.value, remembered(search.probs)
