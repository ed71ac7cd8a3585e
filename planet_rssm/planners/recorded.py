"""A dynamics that remembers what a planner asked of it: what a decision was chosen from."""

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.planners.objective import one_step_before, rank
from planet_rssm.types import Dynamics, ObjectiveFunction, Rollout, S


class Asked(NamedTuple):
    """One rollout of row 0: sequences, their returns (−inf: not finite), and predicted rewards."""

    actions: Tensor  # [N, H, A]
    returns: Tensor  # [N]
    reward: Tensor  # [N, H]


class RecordedDynamics(Dynamics[S]):
    """The same model; `asked` collects the rollouts of row 0, in the order of the calls.

    It works with every planner that searches through `rollout` or `trace`, in rounds or not.
    Nothing is captured as a CUDA graph meanwhile: a graph would repeat the numbers without these
    calls.
    """

    def __init__(
        self,
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
        asked: list[Asked] | None = None,
    ) -> None:
        """Take the model, what a plan is worth, and the list to add to; None: a new one."""
        self.differentiable = dynamics.differentiable
        self.asked = [] if asked is None else asked
        self._dynamics = dynamics
        self._objective = objective

    def rollout(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what the model does, and remember row 0 of it."""
        result = self._dynamics.rollout(state, actions, noise)
        self._remember(result, actions)
        return result

    def trace(self, state: S, actions: Tensor, noise: Tensor | None) -> Rollout:
        """Do what the model does, and remember row 0 of it.

        The action before the first is not known here and counts as zeros.
        """
        result = self._dynamics.trace(state, actions, noise)
        before = one_step_before(actions, None)
        self._remember(result._replace(actions=actions, previous=before), actions)
        return result

    def _remember(self, rollout: Rollout, actions: Tensor) -> None:
        row = Rollout._make(None if part is None else _first(part) for part in rollout)
        returns = rank(self._objective(row))[0]
        # copies: a prepared model may use its buffers again
        self.asked.append(Asked(actions[0].detach().clone(), returns, row.reward[0].clone()))

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        """Return what the model returns."""
        return self._dynamics.noise_shape(batch, candidates, horizon)

    def prepare(self, precision: str) -> "RecordedDynamics[S]":
        """Return the prepared model, which adds to the same list."""
        return RecordedDynamics(self._dynamics.prepare(precision), self._objective, self.asked)

    def fused(self) -> "RecordedDynamics[S]":
        """Return the model with its kernel, which adds to the same list."""
        return RecordedDynamics(self._dynamics.fused(), self._objective, self.asked)

    def refresh(self) -> None:
        """Take up changed weights."""
        self._dynamics.refresh()


def _first(part: Any) -> Any:  # noqa: ANN401 (a pytree)
    """Return row 0 of a pytree [B, ...], as [1, ...]."""
    return pytree.tree_map(lambda leaf: leaf[:1].detach(), part)
