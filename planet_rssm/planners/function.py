"""Any torch model as a dynamics: a step function and a reward function."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.types import Dynamics, Rollout, S


class FunctionDynamics(Dynamics[S]):
    """A deterministic dynamics from functions of M = B · N rows at once.

    Gradients reach the actions wherever the functions let them through.

    Args:
        step: `step(state, action) -> next_state`; the state is any pytree of tensors [M, ...], the
            action [M, A].
        reward: `reward(state, action, next_state) -> [M]`: what comes with the next state.
        discount: `discount(state, action, next_state) -> [M]`, 0 where the episode ends, else 1;
            None is 1 throughout.
    """

    differentiable = True

    def __init__(
        self,
        step: Callable[[S, Tensor], S],
        reward: Callable[[S, Tensor, S], Tensor],
        discount: Callable[[S, Tensor, S], Tensor] | None = None,
    ) -> None:
        self.step = step
        self.reward = reward
        self.discount = discount or _never_ends

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> None:
        """Return None: nothing is drawn."""
        return None

    def rollout(self, state: S, actions: Tensor, noise: Tensor | None = None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, ...].

        Raises:
            PlanetError: the reward or the discount is not of shape [M].
        """
        return self._follow(state, actions, None)

    def trace(self, state: S, actions: Tensor, noise: Tensor | None = None) -> Rollout:
        """Do what `rollout` does and keep the states on the way."""
        before: list[S] = []
        rollout = self._follow(state, actions, before)
        rows = actions.shape[:2]
        states = pytree.tree_map(lambda *leaves: torch.stack(leaves, 1).unflatten(0, rows), *before)
        return rollout._replace(states=states)

    def _follow(self, state: S, actions: Tensor, before: list[S] | None) -> Rollout:
        """Follow `actions`; the states that they were taken in are appended to `before`."""
        rows = actions.shape[:2]
        # batch-major, as flattened actions are: row b · N + n holds the state of environment b
        state = pytree.tree_map(lambda leaf: leaf.repeat_interleave(rows[1], 0), state)
        rewards = []
        discounts = []
        for action in actions.flatten(0, 1).unbind(1):
            following = self.step(state, action)
            reward = self.reward(state, action, following)
            discount = self.discount(state, action, following)
            rewards.append(_check("reward", reward, len(action)))
            discounts.append(_check("discount", discount, len(action)))
            if before is not None:
                before.append(state)
            state = following
        last = pytree.tree_map(lambda leaf: leaf.unflatten(0, rows), state)
        return Rollout(
            torch.stack(rewards, 1).unflatten(0, rows),
            torch.stack(discounts, 1).unflatten(0, rows),
            last,
        )


def _never_ends(state: object, action: Tensor, following: object) -> Tensor:
    return torch.ones_like(action[:, 0])


def _check(name: str, value: Tensor, rows: int) -> Tensor:
    if value.shape != (rows,):
        raise PlanetError(
            f"{name} of shape {tuple(value.shape)}: must be ({rows},), one number a row; squeeze it"
        )
    return value
