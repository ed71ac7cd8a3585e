"""Requests of several sessions, taken in and decided together."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from planet_rssm.agent import Agent, AgentCarry
from planet_rssm.base.device import generator, to_host
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.control.wire import Reply, Request
from planet_rssm.types import State

Array = np.ndarray


class Joined:
    """Carries of some rows put together, parted only when their sessions come apart."""

    def __init__(self, carry: AgentCarry[Any]) -> None:
        """Take the carry of all rows."""
        self.carry = carry

    @functools.cached_property
    def rows(self) -> list[AgentCarry[Any]]:
        """The carry of each row, in the same memory."""
        leaves, form = pytree.tree_flatten(self.carry[:3])
        rows = zip(*(leaf.split(1) for leaf in leaves), strict=True)
        parts = (pytree.tree_unflatten(row, form) for row in rows)
        return [AgentCarry(state, planner, fresh, 0) for state, planner, fresh in parts]


class Belief(NamedTuple):
    """What a session believes: a row of carries."""

    joined: Joined
    place: int


@dataclass
class Row:
    """A request, and the belief that it is taken in with."""

    request: Request
    belief: Belief
    seed: int  # of the session's draws
    reply: Reply | None = None


@torch.inference_mode()
def answer(agent: Agent[Any], rows: Sequence[Row]) -> None:
    """Take in each row's frames and decide; beliefs and replies of the rows are then new.

    A row's draws are named by its seed and step, as those of an agent of its own.

    Raises:
        Exception: whatever the agent raises; no row has changed.
    """
    beliefs = [row.belief for row in rows]
    for number in range(max(len(row.request.frames) for row in rows)):
        frames = {
            at: row.request.frames[number]
            for at, row in enumerate(rows)
            if len(row.request.frames) > number
        }
        observed = [at for at, frame in frames.items() if frame.observation is not None]
        for group in (observed, [at for at in frames if at not in observed]):
            if group:
                _observe(agent, rows, beliefs, group, number)
    asked = [at for at, row in enumerate(rows) if row.request.plan]
    replies: dict[int, Reply] = {}
    for _, alike in itertools.groupby(
        sorted(asked, key=lambda at: _kind(rows[at].request)),
        lambda at: _kind(rows[at].request),
    ):
        replies |= _decide(agent, rows, beliefs, list(alike))
    for at, row in enumerate(rows):
        row.belief, row.reply = beliefs[at], replies.get(at)


def check_rows(agent: Agent[Any]) -> None:
    """Refuse a planner whose memory of several rows cannot be put together.

    Raises:
        PlanetError: its carry is something else than tensors [B, ...].
    """
    leaves = pytree.tree_leaves(agent.planner.initial(2, agent.device))
    if not all(isinstance(leaf, torch.Tensor) and leaf.shape[:1] == (2,) for leaf in leaves):
        name = type(agent.planner).__name__
        raise PlanetError(
            f"planner {name}: its carry is not of tensors [B, ...], so robots cannot be planned "
            "for together; use another planner"
        )


def _observe(
    agent: Agent[Any],
    rows: Sequence[Row],
    beliefs: list[Belief],
    group: Sequence[int],
    number: int,
) -> None:
    frames = [rows[at].request.frames[number] for at in group]
    observed = [frame.observation for frame in frames if frame.observation is not None]
    observation = (
        {key: np.concatenate([one[key] for one in observed]) for key in agent.spec.observation}
        if observed
        else None
    )
    carry = agent.observe(
        _joined([beliefs[at] for at in group]),
        observation,
        np.concatenate([frame.executed for frame in frames]),
        np.array([frame.is_first for frame in frames]),
        rngs=_rngs(agent, rows, group, number, 0),
    )
    _part(carry, beliefs, group)


def _decide(
    agent: Agent[Any],
    rows: Sequence[Row],
    beliefs: list[Belief],
    group: Sequence[int],
) -> dict[int, Reply]:
    first = rows[group[0]].request
    given = [rows[at].request.committed for at in group]
    committed = [one for one in given if one is not None]
    plan, carry = agent.decide(
        _joined([beliefs[at] for at in group]),
        committed=np.concatenate(committed) if committed else None,
        executed=first.executed,
        rounds=first.rounds,
        rngs=_rngs(agent, rows, group, None, 1),
        ahead_rngs=_rngs(agent, rows, group, None, 2),
    )
    # as a control loop takes them: the action may be another than the sequence's first
    sequence = torch.cat([plan.action[:, None], plan.sequence[:, 1:]], 1).float()
    numbers = plan.action.float(), sequence, plan.value.float(), plan.diagnostics["rounds_done"]
    actions, sequences, values, done = (part.numpy() for part in to_host(numbers))
    _part(carry, beliefs, group)
    replies = {}
    for place, at in enumerate(group):
        part = slice(place, place + 1)
        replies[at] = Reply(actions[part], sequences[part], values[part], int(done[place]))
    return replies


class _Rngs(Sequence[torch.Generator]):
    """A generator a row, made when the first is drawn from: an actor may not draw at all."""

    def __init__(self, named: Sequence[tuple[int, int]], part: int, device: torch.device) -> None:
        """Take seed and step of each row, and which part of the step draws."""
        self._named, self._part, self._device = named, part, device

    @functools.cached_property
    def _made(self) -> list[torch.Generator]:
        return [
            generator(stream_seed(seed, Stream.PLAN, step, self._part), self._device)
            for seed, step in self._named
        ]

    def __len__(self) -> int:
        return len(self._named)

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401
        return self._made[at]


def _rngs(
    agent: Agent[Any], rows: Sequence[Row], group: Iterable[int], number: int | None, part: int
) -> Sequence[torch.Generator]:
    """Return a generator a row: where a local agent has it, at its frame `number` or after all."""
    named = []
    for at in group:
        request = rows[at].request
        step = request.step + (len(request.frames) if number is None else number)
        named.append((rows[at].seed, step))
    return _Rngs(named, part, agent.device)


def _kind(request: Request) -> tuple[int, int, int]:
    """Return what rows must have alike to be decided together."""
    ahead = 0 if request.committed is None else request.committed.shape[1]
    return ahead, request.executed, request.rounds or 0


def _joined(beliefs: Sequence[Belief]) -> AgentCarry[Any]:
    whole = beliefs[0].joined
    in_turn = [(whole, place) for place in range(len(whole.carry.fresh))]
    if list(beliefs) == in_turn:
        return whole.carry
    states, planners, fresh, _ = zip(*(one.joined.rows[one.place] for one in beliefs), strict=True)
    return AgentCarry(
        State(*map(torch.cat, zip(*states, strict=True))),
        pytree.tree_map(lambda *parts: torch.cat(parts), *planners),
        torch.cat(fresh),
        0,
    )


def _part(carry: AgentCarry[Any], beliefs: list[Belief], group: Iterable[int]) -> None:
    joined = Joined(carry)
    for place, at in enumerate(group):
        beliefs[at] = Belief(joined, place)
