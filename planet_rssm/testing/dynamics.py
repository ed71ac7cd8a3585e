"""What a dynamics must do."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.planners.box import Bound, Box
from planet_rssm.planners.choices import Groups, groups_of
from planet_rssm.testing.compare import close, copied, raise_broken, same, some_actions, take
from planet_rssm.types import Dynamics

CANDIDATES, HORIZON = 3, 4  # of the sequences that a dynamics is tried on


def check_dynamics(
    dynamics: Dynamics,
    state: object,
    action_size: int,
    *,
    low: Bound = -1.0,
    high: Bound = 1.0,
    discrete: bool | Groups = False,
    tolerance: float = 1e-4,
) -> None:
    """Try a dynamics.

    Shapes, dtype, discounts, determinism, causality, rows and candidates alone, trace and prepare.

    Args:
        dynamics: yours.
        state: a pytree of tensors [B, ...] that it may start from; at least two rows that differ
            show the most.
        action_size: A.
        low: the least action, a number or [A].
        high: the greatest.
        discrete: actions are one-hot instead, by group if these are the sizes of some.
        tolerance: relative and absolute, where the same numbers are computed in another order.

    Raises:
        AssertionError: it breaks the contract; a line for each way in which it does.
    """
    groups = groups_of(discrete, action_size)
    box = Box(low, high, action_size)
    actions = some_actions(state, action_size, box, groups, CANDIDATES, HORIZON)
    trial = _Trial(dynamics, state, actions, tolerance)
    raise_broken(trial.shapes())
    lines = [*trial.repeats(), *trial.alone(), *trial.causal(), *trial.gradients()]
    raise_broken([*lines, *trial.traced(), *trial.prepared()])


class _Trial:
    """A dynamics and what it is tried on."""

    def __init__(
        self,
        dynamics: Dynamics,
        state: object,
        actions: Tensor,
        tolerance: float,
    ) -> None:
        self.dynamics = dynamics
        self.state = state
        self.actions = actions
        self.tolerance = tolerance
        shape = dynamics.noise_shape(*actions.shape[:3])
        self.noise = None
        if shape is not None:
            self.noise = torch.randn(shape, device=actions.device, dtype=actions.dtype)

    def shapes(self) -> Iterator[str]:
        rows = tuple(self.actions.shape[:2])
        shape = tuple(self.actions.shape[:3])
        if self.noise is not None and self.noise.shape[:1] != rows[:1]:
            yield (
                f"noise_shape{shape} = {tuple(self.noise.shape)}: its first axis must be the "
                f"batch, {rows[0]}"
            )
            return
        rollout = self.dynamics.rollout(self.state, self.actions, self.noise)
        dtype = self.actions.dtype
        for name in ("reward", "discount"):
            value = getattr(rollout, name)
            if tuple(value.shape) != shape:
                yield f"{name} of shape {tuple(value.shape)}: must be [B, N, H] = {shape}"
            elif value.dtype != dtype:
                yield f"{name} of {value.dtype}: must be {dtype}, as the state and the actions are"
        if not ((rollout.discount >= 0) & (rollout.discount <= 1)).all():
            yield "discount outside 0 to 1: it is the probability that the episode continues"
        for leaf in pytree.tree_leaves(rollout.last):
            if tuple(leaf.shape[:2]) != rows:
                given = tuple(leaf.shape)
                yield f"last has a tensor of shape {given}: must begin with [B, N] = {rows}"

    def repeats(self) -> Iterator[str]:
        given = (self.state, self.actions, self.noise)
        before = copied(given)
        random = torch.get_rng_state()
        first = self._repeated()
        ask = "ask for noise by noise_shape"
        if not same(before, given):
            yield "rollout changes its inputs: work on copies"
        if not same(first, self._repeated()):
            yield f"two rollouts on the same noise differ: draw nothing inside, {ask}"
        if not torch.equal(random, torch.get_rng_state()):
            yield f"rollout draws from torch's global generator: {ask}"

    def alone(self) -> Iterator[str]:
        together = self._repeated()
        for row in range(len(self.actions)):
            part = slice(row, row + 1)
            single = self._roll(take(self.state, part), self.actions[part], take(self.noise, part))
            if not self._near(single, take(together, part)):
                yield (
                    f"row {row} alone differs from row {row} of the batch: rows must not depend on "
                    "each other"
                )
                break
        if self.noise is not None and self.noise.shape[1:2] != self.actions.shape[1:2]:
            return  # noise that candidates share cannot be taken apart
        noise = None if self.noise is None else self.noise[:, -1:]
        last = take(together, slice(None), slice(-1, None))
        if not self._near(self._roll(self.state, self.actions[:, -1:], noise), last):
            yield (
                "the last candidate alone differs from itself among the others: candidates must "
                "not depend on each other"
            )

    def causal(self) -> Iterator[str]:
        changed = self.actions[:, :, -1:].flip(0, 1)
        later = torch.cat([self.actions[:, :, :-1], changed], 2)
        before = self._repeated()
        after = self._roll(self.state, later, self.noise)
        for name, one, other in zip(("reward", "discount"), before[:2], after[:2], strict=True):
            if not self._near(one[:, :, :-1], other[:, :, :-1]):
                yield f"{name} depends on later actions: step h may depend on the actions up to h"

    def gradients(self) -> Iterator[str]:
        if not self.dynamics.differentiable:
            return
        actions = self.actions.clone().requires_grad_()
        with torch.enable_grad():
            reward = self.dynamics.rollout(self.state, actions, self.noise).reward
        if not reward.requires_grad:
            yield "differentiable is True, but no gradient reaches the actions: set it to False"

    def traced(self) -> Iterator[str]:
        if type(self.dynamics).trace is Dynamics.trace:
            return  # it has none, and raises so when it is asked
        traced = self.dynamics.trace(self.state, self.actions, self.noise)
        shape = tuple(self.actions.shape[:3])
        if not self._near(traced[:3], self._repeated()):
            yield "trace and rollout differ: they must predict the same"
        leaves = pytree.tree_leaves(traced.states)
        if any(tuple(leaf.shape[:3]) != shape for leaf in leaves):
            yield f"trace gives states that do not begin with [B, N, H] = {shape}"
            return
        starts = pytree.tree_leaves(self.state)
        pairs = zip(leaves, starts, strict=True)
        if not all(self._near(leaf[:, 0, 0], start) for leaf, start in pairs):
            yield (
                "the first state of trace is not the one that was given: they are those that "
                "actions are taken in"
            )

    def prepared(self) -> Iterator[str]:
        made = self.dynamics.prepare("float32")
        made.refresh()
        if not self._near(made.rollout(self.state, self.actions, self.noise)[:3], self._repeated()):
            yield "prepare('float32') predicts something else than the dynamics itself"

    def _repeated(self) -> tuple[Tensor, Tensor, object]:
        return self._roll(self.state, self.actions, self.noise)

    def _roll(
        self, state: object, actions: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor, object]:
        return self.dynamics.rollout(state, actions, noise)[:3]

    def _near(self, left: object, right: object) -> bool:
        return close(left, right, self.tolerance)
