"""A planner made ready for one model: prepared weights, and on a CUDA device the rounds as captured graphs."""

from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor

from planet_rssm.planners.base import SearchPlanner
from planet_rssm.types import C, Dynamics, Plan, Rollout, S


class Session(Generic[S, C]):
    """A planner bound to a dynamics and an objective; decides as the planner's `plan` does, but faster."""

    def __init__(
        self,
        planner: "SearchPlanner[C, Any]",
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        precision: str = "float32",
    ) -> None:
        """Prepare `dynamics`; `precision` is that of its products, see device.DTYPES."""
        self.planner, self.objective = planner, objective
        self.dynamics = dynamics.prepare(precision)

    def plan(
        self,
        state: S,
        carry: C,
        is_first: Tensor,
        generator: torch.Generator | None = None,
        *,
        executed: int = 1,
        rounds: int | None = None,
    ) -> tuple[Plan, C]:
        """Decide; see `SearchPlanner.plan`."""
        return self.planner.plan(
            self.dynamics, self.objective, state, carry, is_first, generator, executed=executed, rounds=rounds
        )

    def refresh(self) -> None:
        """Follow weights that have changed since this session was made or last refreshed."""
        self.dynamics.refresh()
