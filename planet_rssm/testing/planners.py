"""What a planner must do."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.planners import FunctionDynamics, Objective, SearchPlanner
from planet_rssm.planners.box import Bound, Box
from planet_rssm.planners.choices import Groups, groups_of, likeliest
from planet_rssm.testing.compare import close, copied, precision, same, some_actions, take, tell
from planet_rssm.types import Dynamics, Plan, Planner, Rollout


def check_planner(
    planner: Planner,
    action_size: int,
    *,
    dynamics: Dynamics | None = None,
    state: Any = None,  # noqa: ANN401
    low: Bound = -1.0,
    high: Bound = 1.0,
    discrete: bool | Groups = False,
) -> None:
    """Try a planner: shapes, dtype, bounds, determinism, untouched inputs, resets by row, models that break.

    One that is a SearchPlanner is tried on rows alone, fewer rounds, longer shifts and proposals
    too.

    Args:
        planner: yours.
        action_size: A.
        dynamics: what it searches; None: a point that is moved by its actions.
        state: three or more rows that `dynamics` may start from; None with that point.
        low: the least action, a number or [A].
        high: the greatest.
        discrete: actions are one-hot instead, by group if these are the sizes of some.

    Raises:
        AssertionError: it breaks the contract; a line for each way in which it does.
    """
    box = Box(low, high, action_size)
    if dynamics is None:
        dynamics, state = (
            _walk(),
            {"x": torch.linspace(-1, 1, 3 * action_size).reshape(3, action_size)},
        )
    use = _Use(planner, dynamics, state, action_size, box, groups_of(discrete, action_size))
    if isinstance(planner, SearchPlanner):
        tell(use.search_state(planner))  # the loop reads it before anything else can be said
    tell(use.shapes())
    lines = [*use.repeats(), *use.resets(), *use.survives()]
    if isinstance(planner, SearchPlanner):
        lines += [*use.rows_alone(planner), *use.takes_options(planner)]
    tell(lines)


class _Use:
    """A planner and what it is tried on."""

    def __init__(
        self,
        planner: Planner,
        dynamics: Dynamics,
        state: Any,  # noqa: ANN401
        action_size: int,
        box: Box,
        groups: Groups,
    ) -> None:
        self.planner, self.dynamics, self.state = planner, _Watched(dynamics), state
        self.action_size, self.box, self.groups = action_size, box, groups
        leaf = pytree.tree_leaves(state)[0]
        self.batch, self.device = len(leaf), leaf.device
        self.first = torch.ones(self.batch, dtype=torch.bool, device=self.device)

    def search_state(self, planner: SearchPlanner) -> Iterator[str]:
        noise = planner.draw(self.dynamics, self.state, self._generator())[0].actions
        search = planner.start(planner.initial(self.batch, self.device), self.first, noise)
        wanted = {"std": (self.batch, noise.shape[2], self.action_size), "entropy": (self.batch,)}
        for name, shape in wanted.items():
            value = getattr(search, name, None)
            found = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            if value is None:
                kind = type(search).__name__
                yield f"start() returns a {kind} without `{name}`: diagnostics need it, a tensor {shape}"
            elif found != shape:
                yield f"`{name}` of what start() returns is {found}: must be a tensor {shape}"

    def shapes(self) -> Iterator[str]:
        plan, _ = self._plan()
        horizon = plan.sequence.shape[1] if plan.sequence.ndim == 3 else "H"
        for name, shape in {
            "action": (self.batch, self.action_size),
            "sequence": (self.batch, horizon, self.action_size),
            "value": (self.batch,),
        }.items():
            if tuple(getattr(plan, name).shape) != shape:
                yield f"{name} of shape {tuple(getattr(plan, name).shape)}: must be {shape}"
        for name, value in plan.diagnostics.items():
            if value.shape[:1] != (self.batch,):
                yield f"diagnostics[{name!r}] of shape {tuple(value.shape)}: must begin with the batch, {self.batch}"
        wanted = precision(self.state)
        if plan.action.dtype != wanted:
            yield f"action of {plan.action.dtype}: must be {wanted} for a state of that precision"
        if any(leaf.requires_grad for leaf in pytree.tree_leaves(plan)):
            yield "the plan holds a graph: plan under torch.no_grad()"

    def repeats(self) -> Iterator[str]:
        _, carry = self._plan()
        given = (self.state, carry, self.first)
        before, random = copied(given), torch.get_rng_state()
        one = self._plan(carry, ~self.first)
        if not torch.equal(random, torch.get_rng_state()):
            yield "plan draws from torch's global generator though it was given one"
        if not same(before, given):
            yield "plan changes its inputs: work on copies; the carry goes in and comes out"
        if not same(one, self._plan(carry, ~self.first)):
            yield "two plans from generators of one seed differ"
        if [leaf.shape for leaf in pytree.tree_leaves(carry)] != [
            leaf.shape for leaf in pytree.tree_leaves(self.planner.initial(self.batch, self.device))
        ]:
            yield "the carry after a plan is shaped otherwise than that of initial()"

    def resets(self) -> Iterator[str]:
        _, carry = self._plan()
        some = ~self.first
        some[1:2] = True
        (mixed, _), (fresh, _), (kept, _) = (
            self._plan(carry, some),
            self._plan(None),
            self._plan(carry, ~self.first),
        )
        for row in range(self.batch):
            alike = fresh if some[row] else kept
            if not close(mixed.sequence[row], alike.sequence[row]):
                what = "still remembers" if some[row] else "forgets, as another row does,"
                yield f"row {row} with is_first {bool(some[row])} {what} its carry: reset by row"

    def survives(self) -> Iterator[str]:
        """Yield what happens to bounds, and where the model breaks on some or on all sequences."""
        for name, part in {"sound": 0.0, "broken in part": 0.5, "broken everywhere": 1.0}.items():
            self.dynamics.broken = part
            plan, _ = self._plan()
            self.dynamics.broken = 0.0
            if not plan.sequence.isfinite().all():
                yield f"the plan is not finite with a model that is {name}: rank NaN and infinity below all else"
            elif not self._inside(plan.sequence):
                yield f"the plan is not {self._where()} with a model that is {name}"
        if not all(self._inside(actions) for actions in self.dynamics.seen):
            yield f"candidates are not {self._where()}: clip or map what is drawn"

    def rows_alone(self, planner: SearchPlanner) -> Iterator[str]:
        noise = planner.draw(self.dynamics, self.state, self._generator())
        carry = planner.initial(self.batch, self.device)
        whole, _ = planner.solve(self.dynamics, Objective(), self.state, carry, self.first, noise)
        for row in range(self.batch):
            part = slice(row, row + 1)
            given = take((self.state, carry, self.first, noise), part)
            single, _ = planner.solve(self.dynamics, Objective(), *given)
            if not close(single.sequence[0], whole.sequence[row], 1e-3):
                yield f"row {row} alone plans otherwise than in the batch on the same noise"
                break

    def takes_options(self, planner: SearchPlanner) -> Iterator[str]:
        plan, carry = self._plan(rounds=1)
        horizon = plan.sequence.shape[1]
        if any(value.ndim == 2 and value.shape[1] != 1 for value in plan.diagnostics.values()):
            yield "diagnostics by round tell of more than the one round that was asked for"
        for executed in (2, horizon, horizon + 1):
            shifted, _ = self._plan(carry, ~self.first, executed=executed)
            if shifted.sequence.shape != plan.sequence.shape:
                yield f"a carry shifted by {executed} steps gives a sequence of shape {tuple(shifted.sequence.shape)}"
        wanted = some_actions(self.state, self.action_size, self.box, self.groups, 1, horizon)
        self.dynamics.seen.clear()
        self._plan(proposals=wanted)
        if not any(
            torch.isclose(seen, wanted, atol=1e-5).flatten(2).all(2).any(1).all()
            for seen in self.dynamics.seen
        ):
            yield "proposals are not among the candidates"

    def _plan(
        self,
        carry: Any = None,  # noqa: ANN401
        is_first: Tensor | None = None,
        **options: Any,  # noqa: ANN401
    ) -> tuple[Plan, Any]:
        carry = self.planner.initial(self.batch, self.device) if carry is None else carry
        first = self.first if is_first is None else is_first
        return self.planner.plan(
            self.dynamics, Objective(), self.state, carry, first, self._generator(), **options
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def _inside(self, actions: Tensor) -> bool:
        if self.groups:
            return torch.equal(actions, likeliest(actions, self.groups))
        return bool(
            (self.box.actions(self.box.sequences(actions)) - actions).abs().max()
            <= 1e-5 * self.box.size
        )

    def _where(self) -> str:
        return "one-hot in each group" if self.groups else "within the bounds"


class _Watched(Dynamics[Any]):
    """A dynamics that keeps the actions it is asked about, and breaks on a share `broken` of the sequences."""

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics, self.differentiable = dynamics, dynamics.differentiable
        self.seen: list[Tensor] = []
        self.broken = 0.0

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        return self.dynamics.noise_shape(batch, candidates, horizon)

    def rollout(self, state: Any, actions: Tensor, noise: Tensor | None) -> Rollout:  # noqa: ANN401
        self.seen.append(actions.clone())
        rollout = self.dynamics.rollout(state, actions, noise)
        hurt = torch.arange(actions.shape[1], device=actions.device) < round(
            self.broken * actions.shape[1]
        )
        return rollout._replace(reward=rollout.reward.masked_fill(hurt[None, :, None], torch.nan))


def _walk() -> FunctionDynamics[dict[str, Tensor]]:
    """Return a point that actions move, paid for being near the origin."""
    return FunctionDynamics(
        lambda state, action: {"x": state["x"] + action},
        lambda state, action, following: -following["x"].square().sum(-1),
    )
