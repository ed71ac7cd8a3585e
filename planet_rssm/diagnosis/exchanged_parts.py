"""The run's episodes, as it is and with one part exchanged for a better one."""

import logging
import math
from collections.abc import Callable

import torch

from planet_rssm.agent import Agent, AgentPolicy, parts_of
from planet_rssm.collect import Policy
from planet_rssm.config import PlannerSettings, is_dm_control
from planet_rssm.diagnosis.model_accuracy import Moment
from planet_rssm.envs.pool import EnvPool, Pool
from planet_rssm.envs.spec import require_same_environment
from planet_rssm.evaluation.protocol import PARALLEL, EpisodeResult, episode_seeds, play
from planet_rssm.planners import planner_from_settings
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.simulator.headless import forbid_gl

_log = logging.getLogger("planet_rssm")


class ExchangedParts:
    """Plays the same episodes by the run's agent, and with each of its parts exchanged in turn.

    `played` has the results by part, `as is` first; `left_out` the parts that cannot be exchanged,
    and why.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        episodes: int,
        on_stage: Callable[[str], None],
        on_episode: Callable[[EpisodeResult], None],
    ) -> None:
        """Load the model.

        Args:
            checkpoint: of the run.
            device: where the model runs.
            episodes: how many, of each part.
            on_stage: given the name of each part as its episodes begin.
            on_episode: given each episode as it ends.
        """
        self._checkpoint = checkpoint
        self._settings = checkpoint.settings
        self._device = device
        self._model, self._behavior = parts_of(checkpoint, device)
        self._rows = min(episodes, PARALLEL)
        self._seeds = episode_seeds(episodes)
        self._on_stage = on_stage
        self._on_episode = on_episode
        self.played: dict[str, list[EpisodeResult]] = {}
        self.left_out: dict[str, str] = {}

    def play_all(self, every: int, budget: int) -> list[Moment]:
        """Play with all parts; return the moments whose candidates were scored.

        Args:
            every: decisions from one that is scored to the next.
            budget: times as many sequences for the larger planner.
        """
        env = self._settings.env
        with EnvPool(env, self._rows) as pool:
            require_same_environment(self._checkpoint.spec, pool.spec)
            if not is_dm_control(env.id):
                reason = f"{env.id}: only dm_control's tasks can be simulated beside the model"
                self.left_out = dict.fromkeys(("candidates", "filter", "model"), reason)
                self._play("as is", pool, AgentPolicy(self._agent(), self._rows))
                self._play("planner", pool, AgentPolicy(self._agent(budget), self._rows))
                return []
            return self._play_beside_simulator(pool, every, budget)

    def _play_beside_simulator(self, pool: EnvPool, every: int, budget: int) -> list[Moment]:
        forbid_gl()
        from planet_rssm.diagnosis.policies import BestBeliefPolicy, ScoringPolicy
        from planet_rssm.simulator.dynamics import SimulatorPolicy
        from planet_rssm.simulator.local import LocalPool
        from planet_rssm.simulator.physics import Simulator
        from planet_rssm.simulator.shadow import ShadowedPool, drawing_nothing

        env = self._settings.env
        threads = torch.get_num_threads()
        shadowed = ShadowedPool(pool, env, threads)
        if not shadowed.simulators[0].batched:
            _log.warning(
                "%s: its reward is asked of the task, state by state: "
                "slower than PlaNet's six tasks",
                env.id,
            )
        scoring = ScoringPolicy(self._agent(), shadowed, every)
        self._play("as is", shadowed, scoring)
        self._play("planner", pool, AgentPolicy(self._agent(budget), self._rows))
        if self._settings.rssm.filter_by == "sample":
            self._play("filter", shadowed, BestBeliefPolicy(self._agent(), shadowed))
        else:
            self.left_out["filter"] = (
                "rssm.filter_by = mode: of each belief there is one only, none to choose from"
            )
        alone = LocalPool(drawing_nothing(env))
        planner = planner_from_settings(self._settings.planner, pool.spec.action_size)
        simulator = Simulator(alone.env, threads)
        discount = self._settings.planner.discount
        self._play("model", alone, SimulatorPolicy([simulator], planner, discount=discount))
        return scoring.moments

    def _play(self, name: str, pool: Pool, policy: Policy) -> None:
        self._on_stage(name)
        self.played[name] = play(pool, policy, self._seeds, on_episode=self._on_episode)

    def _agent(self, budget: int = 1) -> Agent:
        planner = larger(self._settings.planner, budget)
        return Agent.build(
            self._settings.model_copy(update={"planner": planner}),
            self._checkpoint.spec,
            self._model,
            self._behavior,
            device=self._device,
        )


def larger(planner: PlannerSettings, budget: int) -> PlannerSettings:
    """Return a planner that scores about `budget` times as many sequences.

    It has more rounds and more candidates in each, since few rounds do not narrow down many
    candidates.
    """
    rounds = round(math.sqrt(budget))
    more = {
        "iterations": rounds * planner.iterations,
        "candidates": round(budget / rounds * planner.candidates),
        "elites": math.floor(budget / rounds * planner.elites),
        # icem: over all rounds the population shrinks as much as before
        "decay": planner.decay ** (1 / rounds),
    }
    return planner.model_copy(update=more)
