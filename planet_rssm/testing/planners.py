"""What a planner must do."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.planners import FunctionDynamics, Objective, SearchPlanner
from planet_rssm.planners.box import Bound, Box
from planet_rssm.planners.choices import Groups, groups_of, likeliest
from planet_rssm.testing.compare import (
    close,
    copied,
    precision,
    raise_broken,
    same,
    some_actions,
    take,
)
from planet_rssm.types import Dynamics, Plan, Planner, PreparedPlanner, Rollout

OPTIONS = ("executed", "rounds", "proposals", "previous")


def check_planner(
    planner: Planner,
    action_size: int,
    *,
    dynamics: Dynamics | None = None,
    state: object = None,
    low: Bound = -1.0,
    high: Bound = 1.0,
    discrete: bool | Groups = False,
) -> None:
    """Try a planner: all that `Agent` and `ControlLoop` ask of one.

    Horizon and rounds, shapes, dtype, bounds, determinism, untouched inputs, resets by row, rows
    with generators of their own, every option of `plan`, `prepare`, and models that break. A
    SearchPlanner is tried on rows alone and on its proposals and diagnostics too.

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
        dynamics = _walk()
        state = {"x": torch.linspace(-1, 1, 3 * action_size).reshape(3, action_size)}
    trial = _Trial(planner, dynamics, state, action_size, box, groups_of(discrete, action_size))
    raise_broken(trial.contract())
    if isinstance(planner, SearchPlanner):  # the loop reads it before anything else
        raise_broken(trial.search_state(planner))
    raise_broken(trial.shapes())
    lines = [*trial.repeats(), *trial.resets(), *trial.survives(), *trial.takes_options()]
    lines += [*trial.rows_with_own_noise(), *trial.prepares()]
    if isinstance(planner, SearchPlanner):
        lines += [*trial.rows_alone(planner), *trial.stops_early(), *trial.tries_proposals()]
    raise_broken(lines)


class _Trial:
    """A planner and what it is tried on."""

    def __init__(
        self,
        planner: Planner,
        dynamics: Dynamics,
        state: object,
        action_size: int,
        box: Box,
        groups: Groups,
    ) -> None:
        self.planner = planner
        self.dynamics = _Watched(dynamics)
        self.state = state
        self.action_size = action_size
        self.box = box
        self.groups = groups
        leaf = pytree.tree_leaves(state)[0]
        self.batch = len(leaf)
        self.device = leaf.device
        self.first = torch.ones(self.batch, dtype=torch.bool, device=self.device)

    def contract(self) -> Iterator[str]:
        for name in ("horizon", "rounds"):
            value = getattr(self.planner, name, None)
            if not isinstance(value, int) or value < 1:
                yield f"{name} is {value!r}: must be an int from 1 on; agents and loops read it"
        parameters = inspect.signature(self.planner.plan).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        missing = [name for name in OPTIONS if name not in parameters]
        if missing and not takes_any:
            yield (
                f"plan() does not take {', '.join(missing)}: an agent gives them by name; take "
                "them, or **options where they are of no use"
            )

    def search_state(self, planner: SearchPlanner) -> Iterator[str]:
        noise = planner.draw(self.dynamics, self.state, self._generator())[0].actions
        search = planner.start(planner.initial(self.batch, self.device), self.first, noise)
        expected = {"std": (self.batch, noise.shape[2], self.action_size), "entropy": (self.batch,)}
        for name, shape in expected.items():
            value = getattr(search, name, None)
            if name == "entropy" and type(planner).entropies is not SearchPlanner.entropies:
                value = planner.entropies([search])[:, 0]
            if value is None:
                kind = type(search).__name__
                yield (
                    f"start() returns a {kind} without `{name}`: diagnostics need it, "
                    f"a tensor {shape}"
                )
            elif not isinstance(value, Tensor) or tuple(value.shape) != shape:
                given = f"a {type(value).__name__}"
                if isinstance(value, Tensor):
                    given = str(tuple(value.shape))
                yield f"`{name}` of what start() returns is {given}: must be a tensor {shape}"

    def shapes(self) -> Iterator[str]:
        plan, _ = self._plan()
        expected = {
            "action": (self.batch, self.action_size),
            "sequence": (self.batch, self.planner.horizon, self.action_size),
            "value": (self.batch,),
        }
        for name, shape in expected.items():
            if tuple(getattr(plan, name).shape) != shape:
                yield f"{name} of shape {tuple(getattr(plan, name).shape)}: must be {shape}"
        for name, value in plan.diagnostics.items():
            if value.shape[:1] != (self.batch,):
                yield (
                    f"diagnostics[{name!r}] of shape {tuple(value.shape)}: must begin with the "
                    f"batch, {self.batch}"
                )
        dtype = precision(self.state)
        if plan.action.dtype != dtype:
            yield f"action of {plan.action.dtype}: must be {dtype} for a state of that precision"
        if any(leaf.requires_grad for leaf in pytree.tree_leaves(plan)):
            yield "the plan has a gradient graph: plan under torch.no_grad()"

    def repeats(self) -> Iterator[str]:
        _, carry = self._plan()
        given = (self.state, carry, self.first)
        before = copied(given)
        random = torch.get_rng_state()
        one = self._plan(carry, ~self.first)
        if not torch.equal(random, torch.get_rng_state()):
            yield "plan draws from torch's global generator though it was given one"
        if not same(before, given):
            yield "plan changes its inputs: work on copies; the carry goes in and comes out"
        if not same(one, self._plan(carry, ~self.first)):
            yield "two plans from generators of one seed differ"
        initial = self.planner.initial(self.batch, self.device)
        shapes = [[leaf.shape for leaf in pytree.tree_leaves(tree)] for tree in (carry, initial)]
        if shapes[0] != shapes[1]:
            yield "the carry after a plan is shaped otherwise than that of initial()"

    def resets(self) -> Iterator[str]:
        _, carry = self._plan()
        some = ~self.first
        some[1:2] = True
        mixed, _ = self._plan(carry, some)
        fresh, _ = self._plan()
        kept, _ = self._plan(carry, ~self.first)
        for row in range(self.batch):
            alike = fresh if some[row] else kept
            if not close(mixed.sequence[row], alike.sequence[row]):
                what = "still remembers" if some[row] else "forgets, as another row does,"
                yield f"row {row} with is_first {bool(some[row])} {what} its carry: reset by row"

    def survives(self) -> Iterator[str]:
        """Yield what happens to bounds, and where the model breaks on some or all sequences."""
        shares = {"sound": 0.0, "broken in part": 0.5, "broken everywhere": 1.0}
        for name, share in shares.items():
            self.dynamics.broken = share
            plan, _ = self._plan()
            self.dynamics.broken = 0.0
            if not plan.sequence.isfinite().all():
                yield (
                    f"the plan is not finite with a model that is {name}: rank NaN and infinity "
                    "below all else"
                )
            elif not self._inside(plan.sequence):
                yield f"the plan is not {self._where()} with a model that is {name}"
        if not all(self._inside(actions) for actions in self.dynamics.asked):
            yield f"candidates are not {self._where()}: clip or map what is drawn"

    def takes_options(self) -> Iterator[str]:
        plan, carry = self._plan()
        horizon = self.planner.horizon
        proposals = self._proposals()
        options: list[dict[str, Any]] = [
            {"rounds": 1},
            {"proposals": proposals},
            {"previous": proposals[:, 0, 0]},
            *({"executed": steps} for steps in (2, horizon, horizon + 1)),
        ]
        for option in options:
            other, _ = self._plan(carry, ~self.first, **option)
            if other.sequence.shape != plan.sequence.shape:
                name, value = next(iter(option.items()))
                shown = value if isinstance(value, int) else tuple(value.shape)
                yield f"{name} {shown} gives a sequence of shape {tuple(other.sequence.shape)}"

    def rows_with_own_noise(self) -> Iterator[str]:
        generators = [self._generator(row) for row in range(self.batch)]
        together, _ = self._plan(generator=generators)
        for row in range(self.batch):
            part = slice(row, row + 1)
            state, first = take((self.state, self.first), part)
            carry = self.planner.initial(1, self.device)
            alone, _ = self.planner.plan(
                self.dynamics, Objective(), state, carry, first, [self._generator(row)]
            )
            if not close(alone.sequence[0], together.sequence[row], 1e-3):
                yield (
                    f"row {row} with a generator of its own plans otherwise alone: of several "
                    "generators each draws for a row, see planners.normal"
                )
                break

    def prepares(self) -> Iterator[str]:
        prepared = self.planner.prepare(self.dynamics, Objective(), "float32")
        if not isinstance(prepared, PreparedPlanner):
            yield f"prepare() returns a {type(prepared).__name__}: must be a PreparedPlanner"
            return
        prepared.refresh()
        carry = self.planner.initial(self.batch, self.device)
        with torch.inference_mode():  # as an agent decides
            plan, _ = prepared.plan(self.state, carry, self.first, self._generator())
        if not close(plan.sequence, self._plan()[0].sequence, 1e-3):
            yield "prepare() gives a planner that decides otherwise than plan()"

    def rows_alone(self, planner: SearchPlanner) -> Iterator[str]:
        noise = planner.draw(self.dynamics, self.state, self._generator())
        carry = planner.initial(self.batch, self.device)
        together, _ = planner.plan(
            self.dynamics, Objective(), self.state, carry, self.first, noise=noise
        )
        for row in range(self.batch):
            part = slice(row, row + 1)
            state, own, first = take((self.state, carry, self.first), part)
            alone, _ = planner.plan(
                self.dynamics, Objective(), state, own, first, noise=take(noise, part)
            )
            if not close(alone.sequence[0], together.sequence[row], 1e-3):
                yield f"row {row} alone plans otherwise than in the batch on the same noise"
                break

    def stops_early(self) -> Iterator[str]:
        plan, _ = self._plan(rounds=1)
        if any(value.ndim == 2 and value.shape[1] != 1 for value in plan.diagnostics.values()):
            yield "diagnostics have more rounds than the one round that was asked for"

    def tries_proposals(self) -> Iterator[str]:
        proposals = self._proposals()
        self.dynamics.asked.clear()
        self._plan(proposals=proposals)
        if not any(
            torch.isclose(asked, proposals, atol=1e-5).flatten(2).all(2).any(1).all()
            for asked in self.dynamics.asked
        ):
            yield "proposals are not among the candidates"

    def _proposals(self) -> Tensor:
        """Return a sequence [B, 1, H, A]."""
        horizon = self.planner.horizon
        return some_actions(self.state, self.action_size, self.box, self.groups, 1, horizon)

    def _plan(
        self,
        carry: object = None,
        is_first: Tensor | None = None,
        **options: Any,  # noqa: ANN401
    ) -> tuple[Plan, object]:
        carry = self.planner.initial(self.batch, self.device) if carry is None else carry
        first = self.first if is_first is None else is_first
        options = {"generator": self._generator()} | options
        return self.planner.plan(self.dynamics, Objective(), self.state, carry, first, **options)

    def _generator(self, seed: int = 0) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _inside(self, actions: Tensor) -> bool:
        if self.groups:
            return torch.equal(actions, likeliest(actions, self.groups))
        moved = self.box.actions(self.box.sequences(actions))
        return bool((moved - actions).abs().max() <= 1e-5 * self.box.size)

    def _where(self) -> str:
        return "one-hot in each group" if self.groups else "within the bounds"


class _Watched(Dynamics[Any]):
    """A dynamics that keeps the actions it is asked about.

    It breaks on a share `broken` of the sequences.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.differentiable = dynamics.differentiable
        self.asked: list[Tensor] = []
        self.broken = 0.0

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> tuple[int, ...] | None:
        return self.dynamics.noise_shape(batch, candidates, horizon)

    def rollout(self, state: object, actions: Tensor, noise: Tensor | None) -> Rollout:
        self.asked.append(actions.clone())
        rollout = self.dynamics.rollout(state, actions, noise)
        count = round(self.broken * actions.shape[1])
        broken = torch.arange(actions.shape[1], device=actions.device) < count
        return rollout._replace(reward=rollout.reward.masked_fill(broken[None, :, None], torch.nan))


def _walk() -> FunctionDynamics[dict[str, Tensor]]:
    """Return a point that actions move, paid for being near the origin."""
    return FunctionDynamics(
        lambda state, action: {"x": state["x"] + action},
        lambda state, action, following: -following["x"].square().sum(-1),
    )
