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
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError

S = TypeVar("S")  # state of a dynamics: any pytree of tensors whose leading axis is B
C = TypeVar("C")  # carry of a planner: what it remembers from one decision to the next


class State(NamedTuple):
    """RSSM state: `deter` [*B, D] and `stoch` [*B, S]."""

    deter: Tensor
    stoch: Tensor

    @property
    def feat(self) -> Tensor:
        """What the heads read, [*B, D + S]."""
        return torch.cat([self.deter, self.stoch], -1)


class Batch(NamedTuple):
    """A batch of chunks, aligned as drawn in data/episode.py."""

    observation: dict[str, Tensor]  # uint8 [B, T, size, size, 3] or float32 [B, T, n], by key
    action: Tensor  # [B, T, A], the action that led to observation[t]; zeros at is_first
    reward: Tensor  # [B, T], the reward that came with observation[t]
    is_first: Tensor  # bool [B, T]
    is_terminal: Tensor  # bool [B, T]
    mask: Tensor  # bool [B, T], False on the padding of an episode shorter than the chunk


class Rollout(NamedTuple):
    """What a dynamics says of sequences: `reward` and `discount` [B, N, H], `last` a pytree of states [B, N, ...].

    The other fields are there only for an objective that has a cost: `states` [B, N, H, ...], those
    in which the `actions` [B, N, H, A] were taken, and the `previous` [B, N, H, A], the actions one
    step before.
    """

    reward: Tensor
    discount: Tensor
    last: Any
    states: Any = None
    actions: Tensor | None = None
    previous: Tensor | None = None


class Plan(NamedTuple):
    """A decision for each row: `action` [B, A], `sequence` [B, H, A], `value` [B], and diagnostics by name."""

    action: Tensor
    sequence: Tensor
    value: Tensor
    diagnostics: dict[str, Tensor]


class Dynamics(ABC, Generic[S]):
    """A model that can be searched: any torch module, an RSSM, a simulator."""

    differentiable: bool
    # whether `rollout` may be captured as a CUDA graph: never waits, always reads the same memory
    capturable = False

    @abstractmethod
    def rollout(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...] with the `noise` that `noise_shape` asks for."""

    def trace(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what `rollout` does and fill in the `states` too; asked for only by an objective that has a cost.

        Raises:
            PlanetError: this dynamics does not tell its states.
        """
        raise PlanetError(
            f"cost: {type(self).__name__} does not tell the states on the way; give it a trace() method"
        )

    @abstractmethod
    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return the shape of the standard normal noise one `rollout` needs, or None when it is deterministic."""

    def prepare(self, precision: str) -> "Dynamics[S]":
        """Return what a session searches in place of this: the same model made fast in `precision`. Here itself."""
        return self

    def refresh(self) -> None:
        """Take up weights that have changed since `prepare`. Here there are no copies of any."""


class Planner(ABC, Generic[C]):
    """A way to choose actions. It holds settings only: its memory is the carry, in and out."""

    @abstractmethod
    def initial(self, batch: int, device: torch.device | None = None) -> C:
        """Return the carry of rows that have decided nothing yet."""

    @abstractmethod
    def plan(
        self,
        dynamics: Dynamics[S],
        objective: Any,  # noqa: ANN401 (planners.Objective: types imports nothing of the package)
        state: S,
        carry: C,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Plan, C]:
        """Decide for each row of `state`; rows whose `is_first` [B] is set forget their carry first."""
