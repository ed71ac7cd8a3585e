"""A planner made ready for one model: prepared weights, and on a CUDA device rounds that are captured graphs."""

from collections.abc import Callable
from typing import Any, Generic

from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.graphs import Graphs
from planet_rssm.planners.noise import Rng
from planet_rssm.planners.objective import Objective
from planet_rssm.types import C, Dynamics, Plan, Rollout, S

SORTS = 8  # of decisions whose graphs a session remembers: numbers of rows, say


class Session(Generic[S, C]):
    """A planner bound to a dynamics and an objective; decides as the planner's `plan` does, but faster.

    It follows a model that goes on learning. `planner.fast=false` makes it the plain path. Not for
    two threads at once.
    """

    def __init__(
        self,
        planner: SearchPlanner[C, Any],
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        precision: str = "float32",
    ) -> None:
        """Prepare `dynamics`; `precision` is that of its products, see device.DTYPES."""
        self.planner, self.objective = planner, objective
        self.dynamics = dynamics.prepare(precision) if planner.settings.fast else dynamics
        own = (
            type(objective) is Objective
            and objective.cost is None
            and objective.terminal_value is None
        )
        # A user's functions may wait for the device, which no graph can.
        kinds = 2 * len(
            set(planner.populations)
        )  # of rounds within a decision; the last round is another
        self._run = Graphs(SORTS * kinds) if self.dynamics.capturable and own else None

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
        """Decide; see `SearchPlanner.plan`."""
        self.refresh()
        noise = self.planner.draw(self.dynamics, state, generator, rounds)
        return self.planner.solve(
            self.dynamics, self.objective, state, carry, is_first, noise, executed, proposals=proposals,
            previous=previous, run=self._run,
        )  # fmt: skip

    def refresh(self) -> None:
        """Follow weights that have changed since this session was made or last refreshed; `plan` does so itself."""
        self.dynamics.refresh()
