"""The one search loop: propose, imagine, score, refit. Planners differ in the small methods it calls."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.config import PlannerSettings
from planet_rssm.planners.objective import rank
from planet_rssm.types import C, Dynamics, Plan, Planner, Rollout, S

if TYPE_CHECKING:
    from planet_rssm.planners.session import Session


class Search(Protocol):
    """What a planner knows within one decision; each planner has its own NamedTuple."""

    @property
    def std(self) -> Tensor:
        """Spread of the next candidates, [B, H, A]."""


T = TypeVar("T", bound=Search)


class Noise(NamedTuple):
    """The normal draws of one round: `actions` [B, N, H, noise_size], and `model` [B, ...] if the dynamics draws."""

    actions: Tensor
    model: Tensor | None


class SearchPlanner(Planner[C], Generic[C, T]):
    """A planner that searches for action sequences in rounds; actions lie in [−1, 1], choices are one-hot.

    A concrete planner fills in the abstract methods, may change what the two before them say, and is never subclassed.
    It holds settings only, so one object serves any number of environments and threads.
    """

    def __init__(self, settings: PlannerSettings, action_size: int) -> None:
        """Take the settings and the size A of an action."""
        self.settings = settings
        self.action_size = action_size
        self.noise_size = action_size  # normal draws that one action takes

    def plan(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        state: S,
        carry: C,
        is_first: Tensor,
        generator: torch.Generator | None = None,
        *,
        executed: int = 1,
        rounds: int | None = None,
    ) -> tuple[Plan, C]:
        """Decide for each row of `state`; rows whose `is_first` [B] is set forget their carry first.

        Args:
            dynamics: the model that is searched.
            objective: returns [B, N] of a rollout, higher is better; see `Objective`.
            state: pytree of tensors [B, ...]. The search runs in float32, in float64 when the state does.
            carry: what `initial` or the previous call returned.
            is_first: bool [B].
            generator: source of the noise, on the state's device; None is torch's global one.
            executed: steps of the last plan that were acted out since, at least 1: how far the carry is shifted.
            rounds: stop after so many, at least 1; None: all that the settings name.

        Returns:
            The plan and the next carry. Diagnostics: `returns_max` and `elite_std` [B, I] by round, and
            `nonfinite` [B], how many candidates had a return that is not finite.
        """
        noise = self.draw(dynamics, state, generator, rounds)
        return self.solve(dynamics, objective, state, carry, is_first, noise, executed)

    def prepare(
        self, dynamics: Dynamics[S], objective: Callable[[Rollout], Tensor], precision: str = "float32"
    ) -> "Session[S, C]":
        """Return a session: the same decisions as `plan`, with all that can be made ready once made ready."""
        from planet_rssm.planners.session import Session  # which names this class

        return Session(self, dynamics, objective, precision)

    @torch.no_grad()
    def solve(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        state: S,
        carry: C,
        is_first: Tensor,
        noise: tuple[Noise, ...],
        executed: int = 1,
    ) -> tuple[Plan, C]:
        """Do what `plan` does with the noise given: the whole algorithm, no draw and no wait for the device in it."""
        search = self.start(carry, is_first, noise[0].actions, executed)
        best, spread, broken = [], [], []
        for index, drawn in enumerate(noise):
            sequences = self.propose(search, drawn.actions, last=index == len(noise) - 1)
            returns = rank(objective(dynamics.rollout(state, sequences, drawn.model)))
            search = self.refit(search, sequences, returns)
            best.append(returns.amax(1))
            spread.append(search.std.mean((1, 2)))
            broken.append(returns.isinf().sum(1))
        diagnostics = {
            "returns_max": torch.stack(best, 1),
            "elite_std": torch.stack(spread, 1),
            "nonfinite": torch.stack(broken, 1).sum(1),
        }
        sequence, value, carry = self.choose(search)
        return Plan(sequence[:, 0], sequence, value, diagnostics), carry

    @torch.no_grad()
    def draw(
        self, dynamics: Dynamics[S], state: S, generator: torch.Generator | None = None, rounds: int | None = None
    ) -> tuple[Noise, ...]:
        """Draw the noise of every round of one decision, or of the first `rounds`, on the state's device."""
        leaves = pytree.tree_leaves(state)
        batch, device = len(leaves[0]), leaves[0].device
        dtype = functools.reduce(torch.promote_types, (leaf.dtype for leaf in leaves), torch.float32)
        horizon = self.settings.horizon

        def normal(shape: tuple[int, ...] | None) -> Any:  # noqa: ANN401 (a Tensor, or None for None)
            return None if shape is None else torch.randn(shape, generator=generator, device=device, dtype=dtype)

        return tuple(
            Noise(
                self.correlate(normal((batch, count, horizon, self.noise_size))),
                normal(dynamics.noise_shape(batch, count, horizon)),
            )
            for count in self.populations[:rounds]
        )

    @property
    def populations(self) -> tuple[int, ...]:
        """How many candidates each round scores: all, unless a planner says otherwise."""
        return (self.settings.candidates,) * self.settings.iterations

    def correlate(self, white: Tensor) -> Tensor:
        """Give independent noise [B, N, H, noise_size] the correlation in time that candidates have: none here."""
        return white

    @abstractmethod
    def start(self, carry: C, is_first: Tensor, noise: Tensor, executed: int = 1) -> T:
        """Begin a decision from the carry, shifted by `executed` steps, reset where `is_first` [B].

        `noise` is the first round's.
        """

    @abstractmethod
    def propose(self, search: T, noise: Tensor, *, last: bool) -> Tensor:
        """Return a round's candidates [B, N, H, A], in [−1, 1] or one-hot; `last` says that no round follows."""

    @abstractmethod
    def refit(self, search: T, sequences: Tensor, returns: Tensor) -> T:
        """Learn from the candidates [B, N, H, A] and their returns [B, N], finite or −inf."""

    @abstractmethod
    def choose(self, search: T) -> tuple[Tensor, Tensor, C]:
        """Return the sequence [B, H, A] to act by, what it is believed to return [B], and the next carry."""
