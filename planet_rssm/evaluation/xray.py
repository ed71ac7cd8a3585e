"""An episode with the reasons of its decisions: what an x-ray film and a trace are made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from planet_rssm.agent import Agent, AgentCarry, Decision, Explainer
from planet_rssm.base.stopwatch import Stages
from planet_rssm.behavior import Behavior
from planet_rssm.envs.pool import Pool, Step
from planet_rssm.types import Plan

SIZE = 320  # pixels a side of the real frame


class Explained(NamedTuple):
    """An episode of T decisions of row 0."""

    title: str  # task and planner
    interval: float  # seconds from one decision to the next
    frames: list[np.ndarray]  # T of uint8 [SIZE, SIZE, 3], what each decision was made in
    decisions: list[Decision]  # T
    rewards: list[float]  # T, what each brought


WriteExplained = Callable[[Explained], Path]  # writes a film or a file, and returns it


class XRay:
    """Explains the decisions of row 0 of a pool until its first episode ends."""

    def __init__(
        self, agent: Agent[Any], behavior: Behavior | None, label: str, pool: Pool, stages: Stages
    ) -> None:
        """Watch `agent`, whose run has that `behavior`; the time counts as stage `x-ray`.

        `label` is the planner's.
        """
        title = f"{agent.spec.id}, {label}"
        self.episode = Explained(title, agent.spec.control_interval, [], [], [])
        self._explainer = Explainer(agent, behavior)
        self._pool = pool
        self._stages = stages
        self._frame: np.ndarray | None = None  # what the coming decision is made in
        self._last: tuple[AgentCarry[Any], Plan] | None = None
        self._done = False

    def on_plan(self, carry: AgentCarry[Any], plan: Plan) -> None:
        """Remember a decision: it is timed, so it is explained after its step."""
        if self._done:
            return
        self._last = carry, plan
        if self._frame is None:  # the episode has just begun
            with self._stages("x-ray"):
                self._frame = self._pool.render(0, SIZE)

    def on_step(self, steps: Mapping[int, Step]) -> None:
        """Explain the decision, and take what its action brought."""
        if self._done or self._last is None or self._frame is None:
            return
        step = steps[0]
        with self._stages("x-ray"):
            decision = self._explainer.explain(*self._last)
            if step.lost:  # its episode begins again
                for part in self.episode[2:]:
                    part.clear()
                self._frame = None
                return
            self.episode.frames.append(self._frame)
            self.episode.decisions.append(decision)
            self.episode.rewards.append(step.reward)
            self._done = step.terminated or step.truncated
            if not self._done:
                self._frame = self._pool.render(0, SIZE)
