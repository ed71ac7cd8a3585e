"""The run's episodes, as it is and with one part exchanged for a better one."""

import logging
import math
from collections.abc import Callable

import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy, parts_of
from planet_rssm.behavior import ActorProposals
from planet_rssm.collect import Policy
from planet_rssm.config import PlannerSettings, Settings, is_dm_control, learned_parts
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

    `played` has the results by part, `as is` first; `exchanged_for` says what each was exchanged
    for, in words; `left_out` names what cannot be exchanged or compared, and why.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        episodes: int,
        budget: int,
        on_stage: Callable[[str], None],
        on_episode: Callable[[EpisodeResult], None],
    ) -> None:
        """Load the model.

        Args:
            checkpoint: of the run.
            device: where the model runs.
            episodes: how many, of each part.
            budget: times as many sequences for a larger planner.
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
        planner = self._settings.planner
        self._stronger = stronger(self._settings, budget)
        self._in_simulator = in_simulator(self._settings, budget)
        self.played: dict[str, list[EpisodeResult]] = {}
        self.exchanged_for = {
            "planner": f"{budget} times the sequences",
            "filter": "best of many beliefs",
            "model": "the simulator itself",
        }
        if planner.name == "actor":
            self.exchanged_for["planner"] = f"{_in_words(self._stronger)}, in the same model"
        if learned_parts(planner):
            self.exchanged_for["model"] = f"the simulator, by {_in_words(self._in_simulator)}"
        self.left_out: dict[str, str] = {}

    def play_all(self, every: int) -> list[Moment]:
        """Play with all parts; return the moments whose candidates were scored.

        From one decision that is scored to the next there are `every`.
        """
        env = self._settings.env
        with EnvPool(env, self._rows) as pool:
            require_same_environment(self._checkpoint.spec, pool.spec)
            if not is_dm_control(env.id):
                reason = f"{env.id}: only dm_control's tasks can be simulated beside the model"
                self.left_out = dict.fromkeys(("candidates", "filter", "model"), reason)
                self._play("as is", pool, AgentPolicy(self._agent(), self._rows))
                self._play("planner", pool, AgentPolicy(self._agent(self._stronger), self._rows))
                return []
            return self._play_beside_simulator(pool, every)

    def _play_beside_simulator(self, pool: EnvPool, every: int) -> list[Moment]:
        forbid_gl()
        from planet_rssm.diagnosis.policies import CANDIDATES, BestBeliefPolicy, ScoringPolicy
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
        horizon = self._settings.planner.horizon  # an actor's own is one step
        values_rewards = self._values_rewards()
        scoring = ScoringPolicy(
            self._agent(),
            shadowed,
            every,
            horizon=horizon,
            actor=self._actor(CANDIDATES, horizon),
            values_rewards=values_rewards,
        )
        if not values_rewards:
            self.left_out["value"] = (
                "the critic counts what comes after the plan, so what the planner expects is not "
                "compared with the rewards of its steps"
            )
        self._play("as is", shadowed, scoring)
        self._play("planner", pool, AgentPolicy(self._agent(self._stronger), self._rows))
        if self._settings.rssm.filter_by == "sample":
            self._play("filter", shadowed, BestBeliefPolicy(self._agent(), shadowed, horizon))
        else:
            self.left_out["filter"] = (
                "rssm.filter_by = mode: of each belief there is one only, none to choose from"
            )
        alone = LocalPool(drawing_nothing(env))
        planner = planner_from_settings(self._in_simulator, pool.spec.action_size)
        simulator = Simulator(alone.env, threads)
        discount = self._settings.planner.discount
        self._play("model", alone, SimulatorPolicy([simulator], planner, discount=discount))
        return scoring.moments

    def _play(self, name: str, pool: Pool, policy: Policy) -> None:
        self._on_stage(name)
        self.played[name] = play(pool, policy, self._seeds, on_episode=self._on_episode)

    def _agent(self, planner: PlannerSettings | None = None) -> Agent:
        return Agent.build(
            self._settings.model_copy(update={"planner": planner or self._settings.planner}),
            self._checkpoint.spec,
            self._model,
            self._behavior,
            device=self._device,
        )

    def _actor(self, count: int, horizon: int) -> ActorProposals | None:
        """Return who imagines the sequences that are scored, where the actor decides."""
        if self._settings.planner.name != "actor" or self._behavior is None:
            return None
        return ActorProposals(self._model, self._behavior, count, horizon)

    def _values_rewards(self) -> bool:
        planner = self._settings.planner
        return planner.name != "actor" and planner.terminal_value == "none"


def stronger(settings: Settings, budget: int) -> PlannerSettings:
    """Return the search that a run's planner is exchanged for, in the same model.

    It scores `budget` times the sequences. An actor is exchanged for CEM with its proposals and the
    critic's value, `budget` times as large as the run's settings of a search.
    """
    planner = settings.planner
    if planner.name == "actor":
        helped = {"proposals": "actor", "terminal_value": "critic"}
        planner = _changed(settings, name="cem", **helped)
    return larger(planner, budget)


def in_simulator(settings: Settings, budget: int) -> PlannerSettings:
    """Return the search of the simulator: the run's own, as far as it needs no belief.

    Actor and critic read beliefs, which a simulator has none of. A run that decides by them has
    them replaced by `budget` times the sequences.
    """
    planner = settings.planner
    if learned_parts(planner) is None:
        return planner
    name = "cem" if planner.name == "actor" else planner.name
    alone = _changed(settings, name=name, proposals="none", terminal_value="none")
    return larger(alone, budget)


def _changed(settings: Settings, **planner: str) -> PlannerSettings:
    flat = config.flatten(settings)
    return config.resolve(
        flat | {f"planner.{key}": value for key, value in planner.items()}
    ).planner


def _in_words(planner: PlannerSettings) -> str:
    return f"{planner.label} {planner.candidates} × {planner.iterations}"


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
