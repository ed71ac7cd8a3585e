"""An agent as a policy over NumPy observations."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self

import numpy as np
import torch

from planet_rssm.base.device import generator, synchronize
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages
from planet_rssm.types import C, Plan

if TYPE_CHECKING:
    from planet_rssm.agent.agent import Agent, AgentCarry

OnPlan = Callable[["AgentCarry[Any]", Plan], object]


class AgentPolicy(Generic[C]):
    """An agent as a policy over NumPy observations, which collect.collect drives."""

    def __init__(
        self,
        agent: "Agent[C]",
        batch: int,
        *,
        episodes: Sequence[int] | None = None,
        stages: Stages | None = None,
        on_plan: "OnPlan | None" = None,
    ) -> None:
        """Act for `batch` rows.

        Args:
            agent: it decides.
            batch: rows.
            episodes: a seed a row, from which all is drawn for it: an episode then meets the same
                noise whatever is played beside it. A row that begins again draws the same again, so
                each plays one episode. None: the agent's own draws.
            stages: counts how long `filter` and `plan` take.
            on_plan: given the belief and the plan after each decision.
        """
        self._agent = agent
        self._carry = agent.initial(batch)
        self._episodes = episodes
        self._stages = stages or Stages()
        self._timed = stages is not None
        self._on_plan = on_plan
        self._steps = np.zeros(batch, int)  # of each row's episode so far

    @classmethod
    def of_episodes(
        cls,
        agent: "Agent[C]",
        seeds: Sequence[int],
        batch: int,
        *,
        stages: Stages | None = None,
        on_plan: "OnPlan | None" = None,
    ) -> Self:
        """Act in one episode a seed, the first of `batch` rows; the others idle.

        What is drawn for an episode is named by its seed, whatever is played beside it.
        """
        rows = [*seeds, *[0] * (batch - len(seeds))]
        return cls(agent, batch, episodes=rows, stages=stages, on_plan=on_plan)

    def __call__(
        self,
        observation: Mapping[str, np.ndarray],
        executed_action: np.ndarray,
        is_first: np.ndarray,
    ) -> np.ndarray:
        """Return actions [B, A] for observations [B, ...]; see Agent.act."""
        agent = self._agent
        self._steps = np.where(is_first, 0, self._steps + 1)
        with self._stages("filter"):
            self._carry = agent.observe(
                self._carry, observation, executed_action, is_first, rngs=self._rngs(0)
            )
            if self._timed:
                synchronize(agent.device)
        with self._stages("plan"):
            belief = self._carry
            plan, self._carry = agent.decide(belief, rngs=self._rngs(1))
            action = plan.action.cpu().numpy()
        if self._on_plan is not None:
            self._on_plan(belief, plan)
        return action

    def _rngs(self, part: int) -> list[torch.Generator] | None:
        if self._episodes is None:
            return None
        counts = zip(self._episodes, self._steps.tolist(), strict=True)
        seeds = [stream_seed(0, Stream.EVALUATE, seed, step, part) for seed, step in counts]
        return [generator(seed, self._agent.device) for seed in seeds]
