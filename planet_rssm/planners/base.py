"""The one search loop: propose, imagine, score, refit. Planners differ in the small methods."""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.planners.box import Bound, Box
from planet_rssm.planners.captured import CapturedPlan
from planet_rssm.planners.carry import Steps
from planet_rssm.planners.categorical import Categorical
from planet_rssm.planners.choices import Groups, groups_of
from planet_rssm.planners.gaussian import Gaussian, mean_of_finite, tie_order
from planet_rssm.planners.noise import Noise, normals
from planet_rssm.planners.objective import reads_tensors_only, score
from planet_rssm.types import C, Dynamics, ObjectiveFunction, Plan, Planner, PreparedPlanner, Rng, S

if TYPE_CHECKING:  # pydantic: not for those who import planners alone
    from planet_rssm.config import PlannerSettings


class Search(Protocol):
    """What a planner knows within one decision; each planner has its own NamedTuple."""

    @property
    def std(self) -> Tensor:
        """Spread of the next candidates, [B, H, A]."""


class RoundStats(NamedTuple):
    """What is reported of a round; see `SearchPlanner.stats`."""

    returns: Tensor  # [B, N] of its candidates
    search: Search  # what is known after it


T = TypeVar("T", bound=Search)
V = TypeVar("V")
RunRound = Callable[[functools.partial[Any], tuple[Any, ...]], Any]  # run(round, tensors)


class SearchPlanner(Planner[Any, C], Generic[C, T]):
    """A planner that searches for action sequences in rounds; its states are any pytree.

    It searches numbers in [−1, 1], which `box` turns into actions, or choices, one-hot in each of
    `groups`; its `distribution` is that of what it searches. A concrete planner fills in the
    abstract methods, may change the attributes and methods before them, and is never subclassed.
    It has settings only, so one object serves any number of environments and threads.
    """

    own_init_std = 1.0  # what a None in the settings stands for
    own_momentum = 0.0
    own_warm_start = False
    noise_size: int  # normal draws that one action takes
    draws_choice = False  # whether `choose` draws
    reserved = 0  # places among the candidates that proposals must leave
    # whether `start` takes `executed` as a tensor too: else each number is a graph of its own
    shifts_by_tensor = False
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
        self.settings = settings
        self.action_size = action_size
        self.horizon = settings.horizon
        self.box = Box(low, high, action_size)
        self.init_std = _given(settings.init_std, self.own_init_std)
        self.momentum = _given(settings.momentum, self.own_momentum)
        self.warm_start = _given(settings.warm_start, self.own_warm_start)
        self.min_std = settings.min_std or 0.0
        self.max_std = settings.max_std or math.inf
        self.groups = groups_of(discrete, action_size)
        self.distribution: Gaussian | Categorical
        self.distribution = (
            Categorical(self.groups) if self.groups else Gaussian(action_size, self.init_std)
        )
        self.noise_size = self.distribution.noise_size
        self.set_up()

    def set_up(self) -> None:
        """Compute what else the settings fix, once; the end of construction. Here nothing."""

    @property
    def rounds(self) -> int:
        """How many rounds a decision has."""
        return len(self.populations)

    @property
    def populations(self) -> tuple[int, ...]:
        """How many candidates each round scores: all, unless a planner says otherwise."""
        return (self.settings.candidates,) * self.settings.iterations

    def plan(
        self,
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
        state: S,
        carry: C,
        is_first: Tensor,
        generator: Rng = None,
        *,
        executed: Steps = 1,
        rounds: int | None = None,
        proposals: Tensor | None = None,
        previous: Tensor | None = None,
        noise: Sequence[Noise] | None = None,
        run: RunRound | None = None,
    ) -> tuple[Plan, C]:
        """Search, in float32, or in float64 if the state is; see `Planner.plan`.

        Proposals take the place of as many samples in every round, moved inside the bounds.

        Args:
            dynamics: the model that is searched.
            objective: returns [B, N] of a rollout, higher is better; see `Objective`.
            state: pytree of tensors [B, ...].
            carry: what `initial` or the previous call returned.
            is_first: bool [B].
            generator: what `draw` draws the noise from.
            executed: how far the carry is shifted, a number or int64 [].
            rounds: stop after this many, at least 1; None: all that the settings name.
            proposals: sequences [B, K, H, A].
            previous: the action [B, A] before this decision.
            noise: a round each, from `draw`; the search then draws nothing and never waits for the
                device.
            run: `run(round, tensors)` runs a round in a way of its own; None just calls it.

        Returns:
            The plan and the next carry; for the diagnostics see `stats`.

        Raises:
            PlanetError: proposals or returns of a wrong shape, or no round at all.
        """
        with torch.no_grad():
            if noise is None:
                noise = self.draw(dynamics, state, generator, rounds)
            proposed = self.accept(proposals, noise)
            search = self.start(carry, is_first, noise[0].actions, executed)
            stats: list[RoundStats] = []
            for index, drawn in enumerate(noise):
                last = index == len(noise) - 1
                one = functools.partial(self.round, dynamics, objective, last=last)
                tensors = (search, state, drawn, proposed, previous)
                search, stat = run(one, tensors) if run else one(*tensors)
                stats.append(stat)
            sequence, value, carry = self.choose(search, noise[-1].choice)
            sequence = self.box.actions(sequence)
            return Plan(sequence[:, 0], sequence, value, self.stats(stats)), carry

    def prepare(
        self, dynamics: Dynamics[S], objective: ObjectiveFunction, precision: str = "float32"
    ) -> PreparedPlanner[S, C]:
        """Bind to a model: prepared weights, on a CUDA device a decision is one captured graph.

        `planner.fast=false` makes it the plain path.

        Raises:
            PlanetError: `planner.rollout=triton`, and the model has no such kernel, or not here.
        """
        if self.settings.fast:
            dynamics = dynamics.prepare(precision)
            if self.settings.rollout == "triton":
                dynamics = dynamics.fused()
        captured = dynamics.capturable and reads_tensors_only(objective)
        plan = CapturedPlan[S, C](self) if captured else None
        return PreparedPlanner(self, dynamics, objective, plan)

    def round(
        self,
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
        search: T,
        state: S,
        noise: Noise,
        proposed: Tensor | None,
        previous: Tensor | None,
        *,
        last: bool,
    ) -> tuple[T, RoundStats]:
        """Propose, imagine, score and refit once: tensors in, tensors out."""
        sequences = self.propose(search, noise.actions, last=last)
        count = 0 if proposed is None else proposed.shape[1]
        if proposed is not None:
            sequences[:, -count:] = proposed
        returns = score(
            dynamics,
            objective,
            state,
            self.box.actions(sequences),
            noise.model,
            previous=previous,
            particles=self.settings.particles,
            risk=self.settings.risk,
        )
        precedence = tie_order(returns, self.mean_at if last else None, count)
        search = self.refit(search, sequences, returns, precedence)
        return search, RoundStats(returns, search)

    def stats(self, rounds: Sequence[RoundStats]) -> dict[str, Tensor]:
        """Return a plan's diagnostics, [B, I] by round but for `nonfinite` [B].

        `returns_max`; `returns_mean` of the finite ones; `elite_std` and `entropy` of what the next
        round would draw from; `nonfinite`: how many candidates had a return that is not finite.
        They are computed for all rounds at once.
        """
        counts = [one.returns.shape[1] for one in rounds]
        most = max(counts)
        padded = [
            pad(one.returns, (0, most - count), value=-torch.inf) if count < most else one.returns
            for one, count in zip(rounds, counts, strict=True)
        ]
        returns = torch.stack(padded, 1)
        return {
            "returns_max": returns.amax(2),
            "returns_mean": mean_of_finite(returns),
            "elite_std": torch.stack([one.search.std for one in rounds], 1).mean((2, 3)),
            "entropy": self.entropies([one.search for one in rounds]),
            "nonfinite": returns.isinf().sum((1, 2)) - (most * len(rounds) - sum(counts)),
        }

    def entropies(self, searches: Sequence[Any]) -> Tensor:
        """Return the mean entropy of the next candidates' numbers or choices, [B, I], in nats.

        Here it is each search's own `entropy` [B].
        """
        return torch.stack([one.entropy for one in searches], 1)

    def accept(self, proposals: Tensor | None, noise: Sequence[Noise]) -> Tensor | None:
        """Return proposals [B, K, H, A] as numbers in [−1, 1], moved inside the bounds.

        Raises:
            PlanetError: they are of another shape, or so many that a round has no place for them.
        """
        if proposals is None:
            return None
        batch, _, horizon, _ = noise[0].actions.shape
        most = min(drawn.actions.shape[1] for drawn in noise) - self.reserved
        count = proposals.shape[1] if proposals.ndim == 4 else 0
        expected = (batch, count, horizon, self.action_size)
        if proposals.shape != expected or not 1 <= count <= most:
            raise PlanetError(
                f"proposals of shape {tuple(proposals.shape)}: must be (B, K, H, A) = "
                f"({batch}, K, {horizon}, {self.action_size}) with K from 1 to {most}"
            )
        return self.box.sequences(proposals.to(noise[0].actions))

    @torch.no_grad()
    def draw(
        self, dynamics: Dynamics[S], state: S, generator: Rng = None, rounds: int | None = None
    ) -> tuple[Noise, ...]:
        """Draw the noise of every round of a decision, or of the first `rounds`.

        It lies on the state's device. Of several generators each draws for a row.

        Raises:
            PlanetError: no round at all.
        """
        if rounds is not None and rounds < 1:
            raise PlanetError(
                f"rounds {rounds}: must be at least 1; leave it out for all {self.rounds}"
            )
        leaves = pytree.tree_leaves(state)
        batch = len(leaves[0])
        device = leaves[0].device
        if isinstance(generator, Sequence) and device.type == "cpu":
            row = pytree.tree_map(lambda leaf: leaf[:1], state)
            drawn = [self.draw(dynamics, row, one, rounds) for one in generator]
            return pytree.tree_map(_joined, *drawn)
        dtypes = (leaf.dtype for leaf in leaves)
        dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
        horizon = self.settings.horizon
        shapes: list[tuple[int, ...] | None] = []
        for count in self.populations[:rounds]:
            shapes += [
                (batch, count, horizon, self.noise_size),
                dynamics.noise_shape(batch, count * self.settings.particles, horizon),
                (batch,) if self.draws_choice else None,
            ]
        parts = normals(shapes, generator, device, dtype)
        by_round = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        return tuple(
            Noise(self.correlate(actions), model, choice) for actions, model, choice in by_round
        )

    def correlate(self, white: Tensor) -> Tensor:
        """Give noise [B, N, H, noise_size] the correlation in time of candidates: none here."""
        return white

    @abstractmethod
    def start(self, carry: C, is_first: Tensor, noise: Tensor, executed: Steps = 1) -> T:
        """Begin a decision from the carry, shifted by `executed` steps, reset where `is_first` [B].

        `noise` is the first round's. `executed` is a number unless `shifts_by_tensor`.
        """

    @abstractmethod
    def propose(self, search: T, noise: Tensor, *, last: bool) -> Tensor:
        """Return a round's candidates [B, N, H, A], in [−1, 1] or one-hot by group.

        `last`: no round follows.
        """

    @abstractmethod
    def refit(
        self, search: T, sequences: Tensor, returns: Tensor, precedence: Tensor | None = None
    ) -> T:
        """Learn from candidates [B, N, H, A] and their returns [B, N], finite or −inf.

        Ties are broken by `precedence`.
        """

    @abstractmethod
    def choose(self, search: T, noise: Tensor | None = None) -> tuple[Tensor, Tensor, C]:
        """Return the sequence [B, H, A] to act by, its expected return [B], and the next carry.

        `noise` [B] is there for a planner that `draws_choice`.
        """


def _joined(*rows: Tensor | None) -> Tensor | None:
    return None if rows[0] is None else torch.cat(rows)  # type: ignore[arg-type]


def _given(value: V | None, own: V) -> V:
    return own if value is None else value
