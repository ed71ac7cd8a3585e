"""State, Batch, Plan, Rollout, the Dynamics and Planner contracts, and the shape glossary.

Shape glossary, batch first everywhere:

    B  rows of a batch: chunks when learning, environments when acting
    T  agent steps of a chunk               H  agent steps of a plan (horizon)
    N  candidates, action sequences a row   A  size of an action
    D  deter, S  stoch, E  embed            F  feat = D + S
    *B any number of leading axes

Time alignment of a Batch: see data/episode.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from planet_rssm.base.device import Keys
from planet_rssm.base.errors import PlanetError

S = TypeVar("S")  # state of a dynamics: any pytree of tensors whose leading axis is B
C = TypeVar("C")  # carry of a planner: what it remembers from one decision to the next
# where noise comes from: one generator, one for each row (`Keys`: in a captured graph), or torch's
# global one
Rng = torch.Generator | Sequence[torch.Generator] | Keys | None


class State(NamedTuple):
    """RSSM state: `deter` [*B, D] and `stoch` [*B, S]."""

    deter: Tensor
    stoch: Tensor


class Batch(NamedTuple):
    """A batch of chunks, aligned as drawn in data/episode.py."""

    observation: dict[str, Tensor]  # uint8 [B, T, size, size, 3] or float32 [B, T, n], by key
    action: Tensor  # [B, T, A], the action that led to observation[t]; zeros at is_first
    reward: Tensor  # [B, T], the reward that came with observation[t]
    is_first: Tensor  # bool [B, T]
    is_terminal: Tensor  # bool [B, T]
    mask: Tensor  # bool [B, T], False on the padding of an episode shorter than the chunk


class Rollout(NamedTuple):
    """What a dynamics predicts for sequences: `reward` and `discount` [B, N, H].

    `last` is a pytree of states [B, N, ...]. The other fields are set only for an objective with a
    cost: `states` [B, N, H, ...], in which the `actions` [B, N, H, A] were taken, and `previous`
    [B, N, H, A], the actions one step before.
    """

    reward: Tensor
    discount: Tensor
    last: Any
    states: Any = None
    actions: Tensor | None = None
    previous: Tensor | None = None


# what a plan is worth: the returns [B, N] of a rollout, higher is better; see planners.Objective
ObjectiveFunction = Callable[[Rollout], Tensor]


class Plan(NamedTuple):
    """A decision for each row: `action` [B, A], `sequence` [B, H, A], `value` [B], diagnostics."""

    action: Tensor
    sequence: Tensor
    value: Tensor
    diagnostics: dict[str, Tensor]


class Dynamics(ABC, Generic[S]):
    """A model that can be searched: any torch module, an RSSM, a simulator."""

    differentiable = False  # whether gradients reach the actions; `check_dynamics` tries it
    # whether `rollout` may be captured as a CUDA graph: never waits, always reads the same memory
    capturable = False

    @abstractmethod
    def rollout(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...]; for `noise` see `noise_shape`."""

    def trace(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what `rollout` does and fill in the `states`; used only if the objective has a cost.

        Raises:
            PlanetError: this dynamics has no such method.
        """
        raise PlanetError(
            f"cost: {type(self).__name__} does not return the states on the way; give it a "
            "trace() method"
        )

    @abstractmethod
    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return the shape of the normal noise that a `rollout` needs; None: deterministic."""

    def prepare(self, precision: str) -> "Dynamics[S]":
        """Return the same model made fast in `precision`, for a prepared planner. Here itself."""
        return self

    def fused(self) -> "Dynamics[S]":
        """Return the same with all steps in one kernel, for `planner.rollout=triton`.

        Raises:
            PlanetError: this dynamics has none, or not here.
        """
        raise PlanetError(
            f"planner.rollout = 'triton': {type(self).__name__} has no such kernel; "
            "set planner.rollout=torch"
        )

    def refresh(self) -> None:
        """Take up weights that have changed since `prepare`. Here there are no copies of any."""

    def renewed(self) -> "Dynamics[S]":
        """Return the same with the weights as they are now, in a way that may be captured."""
        return self

    def places(self) -> tuple[int, ...]:
        """Return where in memory the weights lie that `renewed` reads: a graph reads them there."""
        return ()


class Planner(ABC, Generic[S, C]):
    """A way to choose actions: all that an agent and a control loop ask of one.

    It has settings only; its memory is the carry, in and out. `testing.check_planner` tries it.
    """

    horizon: int  # H, the steps of its plans

    @property
    def rounds(self) -> int:
        """The most rounds of search in a decision; `plan` may be asked for fewer. Here 1."""
        return 1

    @abstractmethod
    def initial(self, batch: int, device: torch.device | None = None) -> C:
        """Return the carry of rows that have decided nothing yet."""

    @abstractmethod
    def plan(
        self,
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
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
        """Decide for each row of `state`; rows whose `is_first` [B] is set forget their carry.

        A planner that has no use for one of the options ignores it.

        Args:
            dynamics: the model that is searched.
            objective: the returns [B, N] of a rollout, higher is better.
            state: pytree of tensors [B, ...].
            carry: what `initial` or the previous call returned.
            is_first: bool [B].
            generator: source of the noise, on the state's device; None is torch's global one. If
                there is one for each row, a row does not depend on its neighbours.
            executed: steps of the last plan that were executed since, at least 1.
            rounds: stop after this many, at least 1; None: all.
            proposals: sequences [B, K, H, A] from elsewhere that are worth a try.
            previous: the action [B, A] before this decision, for a cost; None: zeros.

        Returns:
            The plan, whose `sequence` has `horizon` steps and whose `action` is its first, and the
            next carry.
        """

    def prepare(
        self, dynamics: Dynamics[S], objective: ObjectiveFunction, precision: str = "float32"
    ) -> "PreparedPlanner[S, C]":
        """Bind the planner to a model and an objective; `precision` is that of the products."""
        return PreparedPlanner(self, dynamics.prepare(precision), objective)


class PreparedPlanner(Generic[S, C]):
    """A planner bound to a dynamics and an objective: the same decisions, often faster.

    It follows a model that goes on learning. Not for two threads at once.
    """

    def __init__(
        self,
        planner: Planner[S, C],
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
        plan: Callable[..., tuple[Plan, C]] | None = None,
    ) -> None:
        """Take the model as it is searched.

        `plan` decides in place of the planner's own, and takes up changed weights itself.
        """
        self.planner = planner
        self.dynamics = dynamics
        self.objective = objective
        self._plan = plan

    def plan(
        self,
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
        """Decide with the weights as they are now; see `Planner.plan`."""
        if self._plan is None:
            self.refresh()
        decide = self._plan or self.planner.plan
        return decide(
            self.dynamics,
            self.objective,
            state,
            carry,
            is_first,
            generator,
            executed=executed,
            rounds=rounds,
            proposals=proposals,
            previous=previous,
        )

    def refresh(self) -> None:
        """Follow weights that have changed since the last time; `plan` does so itself."""
        self.dynamics.refresh()
