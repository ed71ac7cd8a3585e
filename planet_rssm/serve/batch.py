"""Requests of several sessions, taken in and decided together."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from planet_rssm.agent import Agent, AgentCarry
from planet_rssm.base.device import generator, to_host
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.control.wire import Reply, Request

Array = np.ndarray


@dataclass
class Row:
    """A request, and the belief that it is taken in with."""

    request: Request
    carry: AgentCarry[Any]  # of one row
    seed: int  # of the session's draws
    reply: Reply | None = None


def answer(agent: Agent[Any], rows: Sequence[Row]) -> None:
    """Take in each row's frames and decide; carries and replies of the rows are then new.

    A row's draws are named by its seed and step, as those of an agent of its own.

    Raises:
        Exception: whatever the agent raises; no row has changed.
    """
    carries = [row.carry for row in rows]
    for number in range(max(len(row.request.frames) for row in rows)):
        frames = {
            at: row.request.frames[number]
            for at, row in enumerate(rows)
            if len(row.request.frames) > number
        }
        observed = [at for at, frame in frames.items() if frame.observation is not None]
        for group in (observed, [at for at in frames if at not in observed]):
            if group:
                _observe(agent, rows, carries, group, number)
    asked = [at for at, row in enumerate(rows) if row.request.plan]
    replies: dict[int, Reply] = {}
    for _, alike in itertools.groupby(
        sorted(asked, key=lambda at: _kind(rows[at].request)),
        lambda at: _kind(rows[at].request),
    ):
        replies |= _decide(agent, rows, carries, list(alike))
    for at, row in enumerate(rows):
        step = row.request.step + len(row.request.frames)
        row.carry, row.reply = carries[at]._replace(step=step), replies.get(at)


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
    carries: list[AgentCarry[Any]],
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
        _joined([carries[at] for at in group]),
        observation,
        np.concatenate([frame.executed for frame in frames]),
        np.array([frame.is_first for frame in frames]),
        rngs=_rngs(agent, rows, group, number, 0),
    )
    for at, one in zip(group, _parted(carry, len(group)), strict=True):
        carries[at] = one


def _decide(
    agent: Agent[Any],
    rows: Sequence[Row],
    carries: list[AgentCarry[Any]],
    group: Sequence[int],
) -> dict[int, Reply]:
    first = rows[group[0]].request
    given = [rows[at].request.committed for at in group]
    committed = [one for one in given if one is not None]
    plan, carry = agent.decide(
        _joined([carries[at] for at in group]),
        committed=np.concatenate(committed) if committed else None,
        executed=first.executed,
        rounds=first.rounds,
        rngs=_rngs(agent, rows, group, None, 1),
        ahead_rngs=_rngs(agent, rows, group, None, 2),
    )
    # as a control loop takes them: the action may be another than the sequence's first
    sequence = torch.cat([plan.action[:, None], plan.sequence[:, 1:]], 1).float()
    numbers = plan.action.float(), sequence, plan.value.float(), plan.diagnostics["rounds_done"]
    action, sequence, value, done = to_host(numbers)
    replies = {}
    for place, (at, one) in enumerate(zip(group, _parted(carry, len(group)), strict=True)):
        carries[at] = one
        part = slice(place, place + 1)
        replies[at] = Reply(
            action[part].numpy(), sequence[part].numpy(), value[part].numpy(), int(done[place])
        )
    return replies


def _rngs(
    agent: Agent[Any], rows: Sequence[Row], group: Iterable[int], number: int | None, part: int
) -> list[torch.Generator]:
    """Return a generator a row: where a local agent has it, at its frame `number` or after all."""
    generators = []
    for at in group:
        request = rows[at].request
        step = request.step + (len(request.frames) if number is None else number)
        generators.append(
            generator(stream_seed(rows[at].seed, Stream.PLAN, step, part), agent.device)
        )
    return generators


def _kind(request: Request) -> tuple[int, int, int]:
    """Return what rows must have alike to be decided together."""
    ahead = 0 if request.committed is None else request.committed.shape[1]
    return ahead, request.executed, request.rounds or 0


def _joined(carries: Sequence[AgentCarry[Any]]) -> AgentCarry[Any]:
    trees = [carry._replace(step=0) for carry in carries]
    return pytree.tree_map(_cat, *trees)


def _cat(*parts: Any) -> Any:  # noqa: ANN401
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0]


def _parted(carry: AgentCarry[Any], count: int) -> list[AgentCarry[Any]]:
    """Return the rows of a carry, each with memory of its own."""

    def row(place: int) -> Any:  # noqa: ANN401
        return pytree.tree_map(
            lambda leaf: (
                leaf[place : place + 1].clone() if isinstance(leaf, torch.Tensor) else leaf
            ),
            carry,
        )

    return [row(place) for place in range(count)]
