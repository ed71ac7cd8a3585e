"""The one search loop: propose, imagine, score, refit. Planners differ in the small methods it calls."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.planners.box import Bound, Box
from planet_rssm.planners.categorical import Categorical
from planet_rssm.planners.choices import Groups, groups_of
from planet_rssm.planners.gaussian import Gaussian, mean_of_whole
from planet_rssm.planners.noise import Noise, Rng, normals
from planet_rssm.planners.objective import has_cost, rank, risk_adjusted
from planet_rssm.types import C, Dynamics, Plan, Planner, Rollout, S

if TYPE_CHECKING:  # pydantic: not for those who import planners alone
    from planet_rssm.config import PlannerSettings
    from planet_rssm.planners.prepared import Session


class Search(Protocol):
    """What a planner knows within one decision; each planner has its own NamedTuple."""

    @property
    def std(self) -> Tensor:
        """Spread of the next candidates, [B, H, A]."""

    @property
    def entropy(self) -> Tensor:
        """Mean entropy of one of the next candidates' numbers or choices, [B], in nats."""


T = TypeVar("T", bound=Search)
V = TypeVar("V")


class SearchPlanner(Planner[C], Generic[C, T]):
    """A planner that searches for action sequences in rounds.

    It searches numbers in [−1, 1], which `box` turns into actions, or choices, one-hot in each of
    `groups`; its `distribution` is that of what it searches. A concrete planner fills in the
    abstract methods, may change what the two before them say, and is never subclassed. It holds
    settings only, so one object serves any number of environments and threads.
    """

    own_init_std = 1.0  # what a None in the settings stands for
    own_momentum = 0.0
    own_warm_start = False
    noise_size: int  # normal draws that one action takes
    draws_choice = False  # whether `choose` draws
    reserved = 0  # places among the candidates that proposals must leave
    mean_at: int | None = None  # place of the mean among the last round's candidates

    def __init__(
        self,
        settings: "PlannerSettings",
        action_size: int,
        low: Bound = -1.0,
        high: Bound = 1.0,
        *,
        discrete: bool | Groups = False,
    ) -> None:
        """Take the settings and the box, or that actions are choices.

        Args:
            settings: see config.PlannerSettings; spreads in it are in halves of the box.
            action_size: A.
            low: the least action, a number or [A].
            high: the greatest, likewise.
            discrete: True: one choice among A, one-hot; or how many choices each of several groups
                has, A in all.

        Raises:
            PlanetError: the box has no finite bounds, or none inside, or groups are not of that
                size.
        """
        self.settings, self.action_size = settings, action_size
        self.box = Box(low, high, action_size)
        self.init_std = _given(settings.init_std, self.own_init_std)
        self.momentum = _given(settings.momentum, self.own_momentum)
        self.warm_start = _given(settings.warm_start, self.own_warm_start)
        self.min_std, self.max_std = settings.min_std or 0.0, settings.max_std or math.inf
        self.groups = groups_of(discrete, action_size)
        self.distribution: Gaussian | Categorical
        self.distribution = (
            Categorical(self.groups) if self.groups else Gaussian(action_size, self.init_std)
        )
        self.noise_size = self.distribution.noise_size

    def plan(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        state: S,
        carry: C,
        is_first: Tensor,
        generator: Rng = None,
        *,
        executed: int = 1,
        rounds: int | None = None,
        proposals: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Plan, C]:
        """Decide for each row of `state`; rows whose `is_first` [B] is set forget their carry first.

        Args:
            dynamics: the model that is searched.
            objective: returns [B, N] of a rollout, higher is better; see `Objective`.
            state: pytree of tensors [B, ...]. The search runs in float32, in float64 when the state
                does.
            carry: what `initial` or the previous call returned.
            is_first: bool [B].
            generator: source of the noise, on the state's device; None is torch's global one. Of
                several each draws for a row, which then does not depend on its neighbours.
            executed: steps of the last plan that were acted out since, at least 1: how far the
                carry is shifted.
            rounds: stop after so many, at least 1; None: all that the settings name.
            proposals: sequences [B, K, H, A] from elsewhere, an actor say; they take the place of
                as many samples in every round, inside the bounds.
            previous: the action [B, A] before this decision, which a cost may look at; None: zeros.

        Returns:
            The plan and the next carry. Diagnostics by round, [B, I]: `returns_max`, `returns_mean`
            of the finite ones, `elite_std` and `entropy` of what the next round would draw from;
            and `nonfinite` [B], how many candidates had a return that is not finite.

        Raises:
            PlanetError: proposals or returns of a wrong shape, or no round at all.
        """
        noise = self.draw(dynamics, state, generator, rounds)
        return self.solve(
            dynamics,
            objective,
            state,
            carry,
            is_first,
            noise,
            executed,
            proposals=proposals,
            previous=previous,
        )

    def prepare(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        precision: str = "float32",
    ) -> "Session[S, C]":
        """Return a session: the same decisions as `plan`, with all that can be made ready once made ready."""
        from planet_rssm.planners.prepared import Session  # which names this class

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
        *,
        proposals: Tensor | None = None,
        previous: Tensor | None = None,
        run: Callable[[Callable[..., Any], tuple[Any, ...]], Any] | None = None,
    ) -> tuple[Plan, C]:
        """Do what `plan` does with the noise given: the whole algorithm, no draw and no wait for the device in it.

        `run(round, tensors)` runs a round in a way of its own; None just calls it.
        """
        search = self.start(carry, is_first, noise[0].actions, executed)
        proposed = self.accept(proposals, noise)
        found: list[tuple[Tensor, ...]] = []
        run = run or _plainly
        for index, drawn in enumerate(noise):
            one = functools.partial(self.round, dynamics, objective, last=index == len(noise) - 1)
            search, told = run(one, (search, state, drawn.actions, drawn.model, proposed, previous))
            found.append(told)
        sequence, value, carry = self.choose(search, noise[-1].choice)
        sequence = self.box.actions(sequence)
        return Plan(sequence[:, 0], sequence, value, diagnostics(found)), carry

    def round(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        search: T,
        state: S,
        actions: Tensor,
        model: Tensor | None,
        proposed: Tensor | None,
        previous: Tensor | None,
        *,
        last: bool,
    ) -> tuple[T, tuple[Tensor, ...]]:
        """Propose, imagine, score and refit once: tensors in, tensors out; the noise is `actions` and `model`."""
        sequences = self.propose(search, actions, last=last)
        if proposed is not None:
            sequences[:, -proposed.shape[1] :] = proposed
        returns = self.score(dynamics, objective, state, sequences, model, previous)
        precedence = self.precedence(
            returns, 0 if proposed is None else proposed.shape[1], last=last
        )
        search = self.refit(search, sequences, returns, precedence)
        return search, watch(search, returns)

    def precedence(self, returns: Tensor, proposals: int, *, last: bool) -> Tensor | None:
        """Return the places [N] of candidates in the order in which they win a tie; None: as they stand.

        What was handed in comes before what was drawn: the mean of the last round, the proposals,
        which stand at the end, then the kept elites, which stand at the beginning. So where every
        return is the same, as in a sparse task far from its reward, a search keeps to what it knew.
        """
        mean = (
            slice(0, 0)
            if self.mean_at is None or not last
            else slice(self.mean_at, self.mean_at + 1)
        )
        if not proposals and mean.start == mean.stop:
            return None
        places = torch.arange(returns.shape[1], device=returns.device)
        drawn = places[: len(places) - proposals]
        rest = (drawn[: mean.start], drawn[mean.stop :])
        return torch.cat([drawn[mean], places[len(drawn) :], *rest])

    def score(
        self,
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        state: S,
        sequences: Tensor,
        noise: Tensor | None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Return the returns [B, N] of `sequences` [B, N, H, A], −inf where they are not finite.

        `noise` is that of the model, `previous` the action [B, A] before.
        """
        actions, particles = self.box.actions(sequences), self.settings.particles
        if particles > 1:
            actions = actions.repeat_interleave(
                particles, 1
            )  # those of one candidate stand together
        if has_cost(objective):
            rollout = dynamics.trace(state, actions, noise)
            rollout = rollout._replace(
                actions=actions, previous=_one_step_before(actions, previous)
            )
        else:
            rollout = dynamics.rollout(state, actions, noise)
        returns = objective(rollout)
        if returns.shape != actions.shape[:2]:
            raise PlanetError(
                f"returns of shape {tuple(returns.shape)}: the objective must give {tuple(actions.shape[:2])}, one "
                "number a sequence"
            )
        return risk_adjusted(rank(returns), particles, self.settings.risk)

    def accept(self, proposals: Tensor | None, noise: tuple[Noise, ...]) -> Tensor | None:
        """Return proposals [B, K, H, A] as numbers in [−1, 1], moved inside the bounds.

        Raises:
            PlanetError: they are of another shape, or so many that a round has no place for them.
        """
        if proposals is None:
            return None
        first = noise[0].actions
        batch, horizon, most = (
            len(first),
            first.shape[2],
            min(n.actions.shape[1] for n in noise) - self.reserved,
        )
        shape = tuple(proposals.shape)
        if (
            len(shape) != 4
            or shape != (batch, shape[1], horizon, self.action_size)
            or not 1 <= shape[1] <= most
        ):
            raise PlanetError(
                f"proposals of shape {shape}: must be (B, K, H, A) = ({batch}, K, {horizon}, {self.action_size}) with "
                f"K from 1 to {most}"
            )
        return self.box.sequences(proposals.to(first))

    @torch.no_grad()
    def draw(
        self, dynamics: Dynamics[S], state: S, generator: Rng = None, rounds: int | None = None
    ) -> tuple[Noise, ...]:
        """Draw the noise of every round of one decision, or of the first `rounds`, on the state's device.

        Of several generators each draws for a row.

        Raises:
            PlanetError: no round at all.
        """
        if rounds is not None and rounds < 1:
            raise PlanetError(
                f"rounds {rounds}: must be at least 1; leave it out for all {len(self.populations)}"
            )
        leaves = pytree.tree_leaves(state)
        batch, device = len(leaves[0]), leaves[0].device
        if isinstance(generator, Sequence) and device.type == "cpu":
            row = pytree.tree_map(lambda leaf: leaf[:1], state)
            drawn = [self.draw(dynamics, row, one, rounds) for one in generator]
            return pytree.tree_map(_joined, *drawn)
        dtype = functools.reduce(
            torch.promote_types, (leaf.dtype for leaf in leaves), torch.float32
        )
        horizon = self.settings.horizon
        shapes: list[tuple[int, ...] | None] = []
        for count in self.populations[:rounds]:
            shapes += [
                (batch, count, horizon, self.noise_size),
                dynamics.noise_shape(batch, count * self.settings.particles, horizon),
                (batch,) if self.draws_choice else None,
            ]
        parts = normals(shapes, generator, device, dtype)
        rounds_of = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        return tuple(
            Noise(self.correlate(actions), model, choice) for actions, model, choice in rounds_of
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
        """Return a round's candidates [B, N, H, A], in [−1, 1] or one-hot by group; `last`: no round follows."""

    @abstractmethod
    def refit(
        self, search: T, sequences: Tensor, returns: Tensor, precedence: Tensor | None = None
    ) -> T:
        """Learn from the candidates [B, N, H, A] and their returns [B, N], finite or −inf; ties by `precedence`."""

    @abstractmethod
    def choose(self, search: T, noise: Tensor | None = None) -> tuple[Tensor, Tensor, C]:
        """Return the sequence [B, H, A] to act by, what it is believed to return [B], and the next carry.

        `noise` [B] is there for a planner that `draws_choice`.
        """


def watch(search: Search, returns: Tensor) -> tuple[Tensor, ...]:
    """Return what is told of a round, each [B]; see `diagnostics`."""
    broken = returns.isinf()
    return (
        returns.amax(1),
        mean_of_whole(returns),
        search.std.mean((1, 2)),
        search.entropy,
        broken.sum(1),
    )


def diagnostics(found: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Join what `watch` told of each round; see `SearchPlanner.plan`."""
    highest, mean, spread, entropy, broken = (
        torch.stack(values, 1) for values in zip(*found, strict=True)
    )
    return {
        "returns_max": highest,
        "returns_mean": mean,
        "elite_std": spread,
        "entropy": entropy,
        "nonfinite": broken.sum(1),
    }


def _plainly(one: Callable[..., Any], tensors: tuple[Any, ...]) -> Any:  # noqa: ANN401 (whatever it returns)
    return one(*tensors)


def _joined(*rows: Tensor | None) -> Tensor | None:
    return None if rows[0] is None else torch.cat(rows)  # type: ignore[arg-type]


def _given(value: V | None, own: V) -> V:
    return own if value is None else value


def _one_step_before(actions: Tensor, previous: Tensor | None) -> Tensor:
    """Return `actions` [B, N, H, A] one step later, with `previous` [B, A] or zeros at the first."""
    first = torch.zeros_like(actions[:, :, :1])
    if previous is not None:
        first = first + previous.to(actions)[:, None, None]
    return torch.cat([first, actions[:, :, :-1]], 2)
