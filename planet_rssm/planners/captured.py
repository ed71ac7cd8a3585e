"""A decision as one CUDA graph: the weights' fast form, the noise and all rounds in one launch."""

import functools
from typing import Any, Generic, Protocol

from torch import Tensor

from planet_rssm.graphs import Graphs
from planet_rssm.types import C, Dynamics, ObjectiveFunction, Plan, Rng, S

KEPT = 8  # sorts of decisions, by numbers of rows say, whose graphs are kept


class Search(Protocol):
    """What is asked of a planner that searches in rounds, see `SearchPlanner`."""

    warm_start: bool
    shifts_by_tensor: bool

    @property
    def rounds(self) -> int:
        """How many rounds a decision has."""

    def plan(self, *arguments: Any, **options: Any) -> tuple[Plan, Any]:  # noqa: ANN401
        """Decide; see `Planner.plan`."""


class CapturedPlan(Generic[S, C]):
    """Decides as a planner's `plan` does, by one graph for each sort of decision.

    A graph reads the model's own weights and brings them to their fast form itself. So it needs no
    answer to whether one has changed, which the host would wait for.
    """

    def __init__(self, planner: Search) -> None:
        """Take a planner whose rounds never wait for the device."""
        self._planner = planner
        # A control loop times each number of rounds at its start, and uses them all later.
        self.graphs = Graphs(KEPT + planner.rounds)

    def __call__(
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
        """Decide; see `Planner.plan`."""
        planner = self._planner
        some = rounds if rounds is None or rounds < planner.rounds else None
        decision = functools.partial(
            _decide, planner=planner, dynamics=dynamics, objective=objective, rounds=some
        )
        steps: int | None = None
        if planner.warm_start and planner.shifts_by_tensor:
            steps = executed  # in a loop it changes where a decision is late
        elif planner.warm_start:
            decision = functools.partial(decision, shift=executed)
        tensors = (state, carry, is_first, steps, proposals, previous)
        return self.graphs(decision, tensors, generator, dynamics.places())


def _decide(
    state: S,
    carry: C,
    is_first: Tensor,
    executed: Tensor | None,
    proposals: Tensor | None,
    previous: Tensor | None,
    generator: Rng,
    *,
    planner: Search,
    dynamics: Dynamics[S],
    objective: ObjectiveFunction,
    rounds: int | None,
    shift: int = 1,
) -> tuple[Plan, C]:
    """Do all of a decision: what is captured."""
    return planner.plan(
        dynamics.renewed(),
        objective,
        state,
        carry,
        is_first,
        generator,
        executed=shift if executed is None else executed,
        rounds=rounds,
        proposals=proposals,
        previous=previous,
    )
