"""What a plan is worth: one number a candidate, from the rewards that a dynamics predicts."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.types import Dynamics, ObjectiveFunction, Rollout, S


class Objective:
    """The discounted sum of rewards, less costs, plus what the last state is worth.

    Reward h counts by `discount**h` and by the product of the rollout's own discounts *before* h: a
    discount of 0 at step h says that the episode ends there, so its own reward still counts and
    nothing later does.
    """

    def __init__(
        self,
        discount: float = 1.0,
        terminal_value: Callable[[Any], Tensor] | None = None,
        cost: Callable[[Any, Tensor, Tensor], Tensor] | None = None,
        reward_scale: float = 1.0,
    ) -> None:
        """Take what counts; the functions see M rows at once, as those of FunctionDynamics do.

        Args:
            discount: of one agent step, 0 to 1.
            terminal_value: `terminal_value(last_state) -> [M]`, what may still come after the last
                step.
            cost: `cost(state, action, previous_action) -> [M]`, taken off the reward that the
                action brings. The state is the one that the action is taken in; before the first
                action of a plan comes the `previous` of `plan`.
            reward_scale: of the predicted rewards, 0 where only the cost counts.
        """
        self.discount = discount
        self.terminal_value = terminal_value
        self.cost = cost
        self.reward_scale = reward_scale

    def __call__(self, rollout: Rollout) -> Tensor:
        """Return the returns [B, N]; they are not finite where a reward or a discount is not.

        Raises:
            PlanetError: a function returned another shape than [M], or there is a cost and no
                `states` of the rollout.
        """
        discount, reward = rollout.discount, rollout.reward
        weight = (discount if self.discount == 1 else self.discount * discount).cumprod(-1)
        if self.reward_scale != 1.0:
            reward = self.reward_scale * reward
        if self.cost is not None:
            reward = reward - self._costs(self.cost, rollout)
        returns = reward[..., 0] + (weight[..., :-1] * reward[..., 1:]).sum(-1)
        if self.terminal_value is None:
            return returns
        value = self.terminal_value(pytree.tree_map(lambda leaf: leaf.flatten(0, 1), rollout.last))
        return returns + weight[..., -1] * _rows("terminal_value", value, returns.shape)

    def _costs(self, cost: Callable[[Any, Tensor, Tensor], Tensor], rollout: Rollout) -> Tensor:
        if rollout.actions is None or rollout.previous is None or rollout.states is None:
            raise PlanetError(
                "cost: the rollout has no states; score it with planners.score, or use trace()"
            )
        parts = (rollout.states, rollout.actions, rollout.previous)
        state, action, previous = pytree.tree_map(lambda leaf: leaf.flatten(0, 2), parts)
        return _rows("cost", cost(state, action, previous), rollout.reward.shape)


def _rows(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    if value.shape != (math.prod(shape),):
        raise PlanetError(
            f"{name} of shape {tuple(value.shape)}: must be ({math.prod(shape)},), one number a row"
        )
    return value.unflatten(0, shape)


def score(
    dynamics: Dynamics[S],
    objective: ObjectiveFunction,
    state: S,
    actions: Tensor,
    noise: Tensor | None,
    *,
    previous: Tensor | None = None,
    particles: int = 1,
    risk: str | float = "mean",
) -> Tensor:
    """Imagine `actions` [B, N, H, A] from `state`; return their returns [B, N], −inf if not finite.

    Args:
        dynamics: the model.
        objective: the returns of a rollout.
        state: pytree of tensors [B, ...].
        actions: [B, N, H, A].
        noise: of the model, for B · N · `particles` sequences.
        previous: the action [B, A] before the first, for a cost; None: zeros.
        particles: times that each sequence is imagined.
        risk: see `risk_adjusted`.

    Raises:
        PlanetError: the objective returns another shape.
    """
    if particles > 1:  # those of one candidate stand together
        actions = actions.repeat_interleave(particles, 1)
    if isinstance(objective, Objective) and objective.cost is not None:
        rollout = dynamics.trace(state, actions, noise)
        before = one_step_before(actions, previous)
        rollout = rollout._replace(actions=actions, previous=before)
    else:
        rollout = dynamics.rollout(state, actions, noise)
    returns = objective(rollout)
    if returns.shape != actions.shape[:2]:
        raise PlanetError(
            f"returns of shape {tuple(returns.shape)}: the objective must give "
            f"{tuple(actions.shape[:2])}, one number a sequence"
        )
    return risk_adjusted(rank(returns), particles, risk)


def reads_tensors_only(objective: ObjectiveFunction) -> bool:
    """Return whether an objective never waits for a device; a user's function may."""
    return (
        type(objective) is Objective and objective.cost is None and objective.terminal_value is None
    )


def one_step_before(actions: Tensor, previous: Tensor | None) -> Tensor:
    """Return `actions` [B, N, H, A] one step later, with `previous` [B, A] or zeros at first."""
    first = torch.zeros_like(actions[:, :, :1])
    if previous is not None:
        first = first + previous.to(actions)[:, None, None]
    return torch.cat([first, actions[:, :, :-1]], 2)


def rank(returns: Tensor) -> Tensor:
    """Return `returns` with −inf for NaN and both infinities: where the model breaks never wins."""
    return returns.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def risk_adjusted(returns: Tensor, particles: int, risk: str | float) -> Tensor:
    """Return one return [B, N] a candidate from those [B, N · P] of its P particles.

    `risk` is "mean", "worst", or the share of the worst particles whose mean counts (CVaR). A
    particle of −inf makes every form −inf.
    """
    if particles == 1:
        return returns
    each = returns.unflatten(1, (-1, particles))
    if isinstance(risk, str):
        count = {"mean": particles, "worst": 1}[risk]
    else:
        count = math.ceil(risk * particles)
    worst = each if count == particles else each.topk(count, -1, largest=False).values
    return worst.mean(-1)
