"""Filter the observation, decide, add noise. No environment, no run folder.

    agent = Agent.load("runs/cartpole")
    carry = agent.initial(batch=1)
    plan, carry = agent.act(carry, {"image": image}, executed_action, is_first)

Actions are in [-1, 1], or one-hot by group where the environment has choices; `plan.action` is what
to execute.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent.exploration import explore
from planet_rssm.agent.goal import goal_belief, goal_objective
from planet_rssm.agent.inputs import check_inputs
from planet_rssm.agent.noise import filter_noise, latent_noise
from planet_rssm.agent.parts import decider_for, parts_of
from planet_rssm.agent.timing import RoundTimes, time_rounds
from planet_rssm.base.device import autocast, generator, to_device
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.trust import allowed
from planet_rssm.behavior import ActorProposals, Behavior
from planet_rssm.config import PlannerSettings, Settings, learned_parts, no_actor
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, SearchPlanner
from planet_rssm.planners.limits import require_search
from planet_rssm.precision import planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.types import C, Dynamics, Plan, Planner, State
from planet_rssm.world_model import ModelDynamics, WorldModel

Array = np.ndarray | Tensor


class AgentCarry(NamedTuple, Generic[C]):
    """What an agent remembers between decisions, for B rows."""

    state: State  # the filtered belief
    planner: C  # the planner's own carry
    fresh: Tensor  # bool [B], rows whose episode began since the last decision
    step: int  # observations taken in so far: names the random draws


class Agent(Generic[C]):
    """A world model and a planner, for B environments or robots at once."""

    def __init__(
        self,
        model: WorldModel,
        planner: Planner[State, C],
        spec: EnvSpec,
        *,
        device: torch.device,
        objective: Objective | None = None,
        proposals: ActorProposals | None = None,
        precision: str = "float32",
        exploration_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            model: on `device`; read at every call, so an agent follows a model that goes on
                learning.
            planner: how actions are chosen.
            spec: the spaces and rates that the model was trained with.
            device: where everything runs.
            objective: what a plan is worth; None: the sum of the predicted rewards.
            proposals: whose sequences take the place of some candidates.
            precision: of matrix products, see device.DTYPES.
            exploration_noise: std of the Gaussian added to the chosen action before it is clipped
                to [-1, 1]; of choices the chance, in each group by itself, of a random one instead.
            seed: of every draw; two agents with equal seeds and observations act equally.
        """
        self.model = model
        self.spec = spec
        self.device = device
        self.planner = planner
        self.prepared = planner.prepare(ModelDynamics(model), objective or Objective(), precision)
        self.precision = precision
        self._noise = exploration_noise
        self._seed = seed
        self.proposals = proposals

    @classmethod
    def build(
        cls,
        settings: Settings,
        spec: EnvSpec,
        model: WorldModel,
        behavior: Behavior | None = None,
        *,
        device: torch.device,
        precision: str | None = None,
        exploration_noise: float = 0.0,
        seed: int = 0,
    ) -> "Agent[Any]":
        """Return the agent that `settings` describe around `model` and `behavior`.

        The other arguments are the constructor's. Without a `precision` it decides in
        `planner.precision`, of which `auto` is what is fast here.

        Raises:
            PlanetError: the settings need an actor or a critic and there is none, or name no
                planner for this.
        """
        if behavior is None and (asked := learned_parts(settings.planner)):
            raise PlanetError(no_actor(asked))
        require_search(settings.planner, device)
        decider = decider_for(settings, spec, model, behavior)
        return cls(
            model,
            decider.planner,
            spec,
            device=device,
            objective=decider.objective,
            proposals=decider.proposals,
            precision=precision or planning_precision(settings, device),
            exploration_noise=exploration_noise,
            seed=seed,
        )

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str = "last",
        device: str = "auto",
        *,
        planner: PlannerSettings | None = None,
        overrides: Sequence[str] = (),
        seed: int = 0,
        allow_code: bool = False,
    ) -> "Agent[Any]":
        """Load a trained agent from a run folder.

        Args:
            run: the folder that `planet train` wrote, `pretrained:NAME` or `hf:OWNER/NAME`.
            checkpoint: `last`, `best` or a number of env_steps.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            planner: searched with instead of the run's own settings.
            overrides: `key=value` texts, as `planet plan -s` takes: `planner.…`, `rssm.plan_by` and
                `rssm.filter_by`.
            seed: of the agent's draws.
            allow_code: import what the run's settings name as `module:Class`, though you have not
                named it yourself.

        Raises:
            PlanetError: no such run or checkpoint, a damaged one, an override that is refused, no
                such device, or code that is not allowed.
        """
        with allowed(allow_code):
            opened, where, _ = checkpoints.open_run(run, checkpoint, device=device)
        if planner is not None:
            settings = opened.settings.model_copy(update={"planner": planner})
            opened = replace(opened, settings=settings)
        opened = opened.acting(overrides)
        model, behavior = parts_of(opened, where)
        return cls.build(opened.settings, opened.spec, model, behavior, device=where, seed=seed)

    def towards(self, goal: Mapping[str, Array]) -> "Agent[C]":
        """Return an agent that plans to bring about an observation; rewards do not count.

        It has this one's model, planner and seed. What a plan is worth is its nearness to the
        goal's belief, see `goal.GoalDistance`.

        Args:
            goal: what `spec.observation` names, without a batch axis: uint8 [size, size, 3] and
                float32 [n].

        Raises:
            PlanetError: the planner is an actor, which has learned a goal of its own; or the goal
                has other keys or shapes.
        """
        if not isinstance(self.planner, SearchPlanner):
            raise PlanetError("a goal: an actor has learned its own; give --planner cem, a search")
        rows = {key: np.asarray(value)[None] for key, value in goal.items()}
        still = np.zeros((1, self.spec.action_size), np.float32)
        check_inputs(self.spec, 1, rows, still, np.ones(1, bool))
        observation = {
            key: torch.as_tensor(rows[key], device=self.device) for key in self.spec.observation
        }
        discount = self.planner.settings.discount
        return Agent(
            self.model,
            self.planner,
            self.spec,
            device=self.device,
            objective=goal_objective(goal_belief(self.model, observation), discount),
            precision=self.precision,
            exploration_noise=self._noise,
            seed=self._seed,
        )

    def plan_in(self, dynamics: Dynamics[State]) -> None:
        """Search `dynamics` from now on, say the model that records what is asked of it."""
        self.prepared = self.planner.prepare(dynamics, self.prepared.objective, self.precision)

    def initial(self, batch: int = 1) -> AgentCarry[C]:
        """Return the carry of `batch` rows before their first observation."""
        state = self.model.rssm.initial_state(batch)
        fresh = torch.ones(batch, dtype=torch.bool, device=self.device)
        return AgentCarry(state, self.planner.initial(batch, self.device), fresh, 0)

    def act(
        self,
        carry: AgentCarry[C],
        observation: Mapping[str, Array] | None,
        executed_action: Array,
        is_first: Array,
        *,
        committed: Array | None = None,
        executed: int = 1,
        rounds: int | None = None,
    ) -> tuple[Plan, AgentCarry[C]]:
        """Observe, then decide; see both."""
        carry = self.observe(carry, observation, executed_action, is_first)
        return self.decide(carry, committed=committed, executed=executed, rounds=rounds)

    @torch.inference_mode()
    def observe(
        self,
        carry: AgentCarry[C],
        observation: Mapping[str, Array] | None,
        executed_action: Array,
        is_first: Array,
        *,
        rngs: Sequence[torch.Generator] | None = None,
    ) -> AgentCarry[C]:
        """Take in an observation: move the belief to it.

        Args:
            carry: from `initial` or the last call.
            observation: what `spec.observation` names, uint8 images [B, size, size, 3] and float32
                vectors [B, n], or None for a dropped frame: the belief then advances by the prior
                alone.
            executed_action: [B, A] in [-1, 1], what the actuators really applied since the last
                observation; ignored in rows where `is_first` is set.
            is_first: bool [B], rows in which an episode begins with this observation.
            rngs: one a row to draw from, instead of what the agent's seed names for all rows
                together.

        Raises:
            PlanetError: an input is missing, of another shape or type, not finite or out of range.
        """
        check_inputs(self.spec, len(carry.fresh), observation, executed_action, is_first)
        done = _as_type(torch.float32, executed_action)
        begins = _as_type(torch.bool, is_first)
        values = [] if observation is None else list(observation.values())
        action, first, *features = to_device([done, begins, *values], self.device)
        rngs = rngs or [self._generator(carry.step, 0)]
        latent, pixels = filter_noise(self.model, len(first), rngs)
        rssm = self.model.rssm
        with autocast(self.device, self.precision):
            if observation is None:
                before = rssm.forget(carry.state, first)
                action = action * (~first).float()[:, None]
                state = rssm.imagine_step(before, action, latent)
            else:
                embed = self.model.encode(dict(zip(observation, features, strict=True)), pixels)
                state, _ = rssm.observe_step(carry.state, action, embed, first, latent)
        state = State(state.deter.float(), state.stoch.float())
        return carry._replace(state=state, fresh=carry.fresh | first, step=carry.step + 1)

    @torch.inference_mode()
    def decide(
        self,
        carry: AgentCarry[C],
        *,
        committed: Array | None = None,
        executed: int = 1,
        rounds: int | None = None,
        rngs: Sequence[torch.Generator] | None = None,
        ahead_rngs: Sequence[torch.Generator] | None = None,
    ) -> tuple[Plan, AgentCarry[C]]:
        """Choose an action for each row from its belief.

        The plan's `action` [B, A] includes the exploration noise.

        Args:
            carry: from `observe`.
            committed: [B, d, A], actions that will be executed before the one that is chosen here:
                the plan begins at the belief that the prior predicts after them. The carry's own
                belief stays at the last observation.
            executed: steps between the beginnings of the last plan and of this one, at least 1.
            rounds: of the search, at least 1; None: all. The diagnostic `rounds_done` [B] counts
                them.
            rngs: as for `observe`; the exploration noise and the `committed` actions' never come
                from them.
            ahead_rngs: the same for what the `committed` actions draw.
        """
        rng = self._generator(carry.step, 1)
        with autocast(self.device, self.precision):
            state = carry.state
            if committed is not None:
                state = self._ahead(carry, committed, ahead_rngs)
            proposals = None if self.proposals is None else self.proposals(state, rngs or rng)
            plan, memory = self.prepared.plan(
                state,
                carry.planner,
                carry.fresh,
                rngs or rng,
                executed=executed,
                rounds=rounds,
                proposals=proposals,
            )
        count = min(rounds or self.planner.rounds, self.planner.rounds)
        done = torch.full((len(carry.fresh),), count, device=self.device)
        plan = plan._replace(diagnostics=plan.diagnostics | {"rounds_done": done})
        if self._noise > 0:
            action = explore(plan.action, self._noise, self.spec.groups, rng)
            plan = plan._replace(action=action)
        return plan, carry._replace(planner=memory, fresh=torch.zeros_like(carry.fresh))

    @torch.inference_mode()
    def features(self, carry: AgentCarry[C]) -> Tensor:
        """Return the belief, float32 [B, F], as the heads read it: deter and stoch."""
        return self.model.rssm.feat(carry.state)

    @torch.inference_mode()
    def decode(self, carry: AgentCarry[C]) -> dict[str, Tensor]:
        """Return the observations that the model expects, by key.

        Images are uint8 [B, size, size, 3], vectors float32 [B, n].
        """
        return self.model.observations(carry.state)

    def warmup(
        self,
        batch: int = 1,
        *,
        delay: int = 0,
        repeats: int = 3,
        pick: Callable[[Sequence[float]], float] = max,
    ) -> RoundTimes:
        """Act on blank observations until all is ready, then measure it by number of rounds.

        Args:
            batch: rows.
            delay: how many `committed` actions each decision is given.
            repeats: times that each number is measured, after a first that is not.
            pick: which of these times counts, the slowest if not given.
        """
        shapes = self.spec.observation
        blank = {key: np.zeros((batch, *shape), dtype) for key, (shape, dtype) in shapes.items()}
        still = np.zeros((batch, self.spec.action_size), np.float32)
        first = np.ones(batch, bool)
        committed = still[:, None].repeat(delay, 1) if delay else None

        def act(rounds: int) -> Plan:
            carry = self.initial(batch)
            plan, _ = self.act(carry, blank, still, first, committed=committed, rounds=rounds)
            return plan

        return time_rounds(act, self.planner.rounds, repeats, pick)

    def _ahead(
        self, carry: AgentCarry[C], committed: Array, rngs: Sequence[torch.Generator] | None
    ) -> State:
        """Return the belief after `committed` [B, d, A], by the prior."""
        [actions] = to_device([_as_type(torch.float32, committed)], self.device)
        rngs = rngs or [self._generator(carry.step, 2)]
        state = carry.state
        for action in actions.unbind(1):
            noise = latent_noise(self.model.rssm, len(action), rngs)
            state = self.model.rssm.imagine_step(state, action, noise)
        return State(state.deter.float(), state.stoch.float())

    def _generator(self, *index: int) -> torch.Generator:
        return generator(stream_seed(self._seed, Stream.PLAN, *index), self.device)


def _as_type(dtype: torch.dtype, values: Array) -> Array:
    """Return values in a dtype; an array stays one, and goes to a device together with others."""
    if isinstance(values, Tensor):
        return values.to(dtype)
    return torch.as_tensor(values, dtype=dtype).numpy()
