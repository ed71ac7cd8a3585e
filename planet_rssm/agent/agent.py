"""Filter the observation, decide, add noise: all that a control loop needs. No environment, no run folder.

    agent = Agent.load("runs/cartpole")
    carry = agent.initial(batch=1)
    plan, carry = agent.act(carry, {"image": image}, executed_action, is_first)

Actions are in [-1, 1], or one-hot by group where the environment has choices; `plan.action` is what
to execute.
"""

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent.inputs import check_inputs
from planet_rssm.base.device import (
    autocast,
    generator,
    require_memory,
    synchronize,
    to_device,
)
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.stopwatch import Stages
from planet_rssm.base.trust import allowed
from planet_rssm.behavior import (
    ActorPlanner,
    ActorProposals,
    Behavior,
    CriticValue,
    untrained_behavior,
)
from planet_rssm.config import PlannerSettings, Settings, learned_parts, no_actor
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, SearchPlanner, choices, planner_from_settings
from planet_rssm.precision import planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.checkpoint import Checkpoint, fill
from planet_rssm.types import C, Plan, Planner, State
from planet_rssm.world_model import ModelDynamics, WorldModel, model_for

_log = logging.getLogger("planet_rssm")


class RoundTimes(NamedTuple):
    """How long it takes from observation to action by number of rounds: `ms[i]` with i + 1, never less than with i."""

    ms: tuple[float, ...]

    def within(self, budget_ms: float) -> int:
        """Return how many rounds fit into the budget; at least one, with a warning where not even that fits."""
        if budget_ms < self.ms[0]:
            line = "budget_ms %g: one round takes %.1f ms here and is done all the same; lower planner.candidates"
            _log.warning(line, budget_ms, self.ms[0])
        return max(1, sum(ms <= budget_ms for ms in self.ms))


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
            objective: what a plan is worth; None: the sum of the foretold rewards.
            proposals: whose sequences take the place of some candidates.
            precision: of matrix products, see device.DTYPES.
            exploration_noise: std of the Gaussian added to the chosen action before it is clipped
                to [-1, 1]; of choices the chance, in each group by itself, of a random one instead.
            seed: of every draw; two agents with equal seeds and observations act equally.
        """
        self.model, self.spec, self.device = model, spec, device
        self.planner = planner
        self.prepared = planner.prepare(ModelDynamics(model), objective or Objective(), precision)
        self.precision = precision
        self._noise, self._seed, self._proposals = exploration_noise, seed, proposals

    @classmethod
    def build(
        cls,
        settings: Settings,
        spec: EnvSpec,
        model: WorldModel,
        behavior: Behavior | None = None,
        **options: Any,  # noqa: ANN401
    ) -> "Agent[Any]":
        """Return the agent that `settings` describe around `model` and `behavior`; `options` as for the constructor.

        Without a `precision` among them it decides in `planner.precision`, of which `auto` is what
        is fast here.

        Raises:
            PlanetError: the settings need an actor or a critic and there is none, or name no
                planner for this.
        """
        if behavior is None and (asked := learned_parts(settings.planner)):
            raise PlanetError(no_actor(asked))
        if "device" in options:
            require_search(settings.planner, options["device"])
        if "precision" not in options:
            options["precision"] = planning_precision(settings, options["device"])
        told = _decided_by(settings, spec, model, behavior) | options
        return cls(model, spec=spec, **told)

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
            run: the folder that `planet train` wrote, or `pretrained:NAME`.
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
            held, where, _ = checkpoints.open_run(run, checkpoint, device=device)
        if planner is not None:
            held = replace(held, settings=held.settings.model_copy(update={"planner": planner}))
        held = held.acting(overrides)
        return cls.build(held.settings, held.spec, *parts_of(held, where), device=where, seed=seed)

    def initial(self, batch: int = 1) -> AgentCarry[C]:
        """Return the carry of `batch` rows before their first observation."""
        state = self.model.rssm.initial_state(batch)
        fresh = torch.ones(batch, dtype=torch.bool, device=self.device)
        return AgentCarry(state, self.planner.initial(batch, self.device), fresh, 0)

    @torch.inference_mode()
    def observe(
        self,
        carry: AgentCarry[C],
        observation: Mapping[str, np.ndarray | Tensor] | None,
        executed_action: np.ndarray | Tensor,
        is_first: np.ndarray | Tensor,
        *,
        rngs: Sequence[torch.Generator] | None = None,
    ) -> AgentCarry[C]:
        """Take in what was seen.

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
        told = [
            _of(torch.float32, executed_action),
            _of(torch.bool, is_first),
            *(observation or {}).values(),
        ]
        action, first, *seen = to_device(told, self.device)
        latent, pixels = self._draw(len(first), rngs or [self._generator(carry.step, 0)])
        with autocast(self.device, self.precision):
            if observation is None:
                before = self.model.rssm.forget(carry.state, first)
                state = self.model.rssm.imagine_step(
                    before, action * (~first).float()[:, None], latent
                )
            else:
                embed = self.model.encode(dict(zip(observation, seen, strict=True)), pixels)
                state, _ = self.model.rssm.observe_step(carry.state, action, embed, first, latent)
        state = State(state.deter.float(), state.stoch.float())
        return carry._replace(state=state, fresh=carry.fresh | first, step=carry.step + 1)

    @torch.inference_mode()
    def decide(
        self,
        carry: AgentCarry[C],
        *,
        committed: np.ndarray | Tensor | None = None,
        executed: int = 1,
        rounds: int | None = None,
        rngs: Sequence[torch.Generator] | None = None,
    ) -> tuple[Plan, AgentCarry[C]]:
        """Choose an action for each row from its belief; the plan's `action` [B, A] includes the exploration noise.

        Args:
            carry: from `observe`.
            committed: [B, d, A], actions that will be executed before the one that is chosen here:
                the plan begins at the belief that the prior foretells after them. The carry's own
                belief stays at the last observation.
            executed: steps between the beginnings of the last plan and of this one, at least 1.
            rounds: of the search, at least 1; None: all. The diagnostic `rounds_done` [B] says how
                many it did.
            rngs: as for `observe`; the exploration noise and the `committed` actions' never come
                from them.
        """
        rng = self._generator(carry.step, 1)
        with autocast(self.device, self.precision):
            state = carry.state if committed is None else self._ahead(carry, committed)
            given = None if self._proposals is None else self._proposals(state, rngs or rng)
            plan, memory = self.prepared.plan(
                state,
                carry.planner,
                carry.fresh,
                rngs or rng,
                executed=executed,
                rounds=rounds,
                proposals=given,
            )
        made = self.planner.rounds if rounds is None else min(rounds, self.planner.rounds)
        done = torch.full((len(carry.fresh),), made, device=self.device)
        plan = plan._replace(diagnostics=plan.diagnostics | {"rounds_done": done})
        if self._noise > 0:
            plan = plan._replace(action=self._explore(plan.action, rng))
        return plan, carry._replace(planner=memory, fresh=torch.zeros_like(carry.fresh))

    def act(
        self,
        carry: AgentCarry[C],
        observation: Mapping[str, np.ndarray | Tensor] | None,
        executed_action: np.ndarray | Tensor,
        is_first: np.ndarray | Tensor,
        *,
        committed: np.ndarray | Tensor | None = None,
        executed: int = 1,
        rounds: int | None = None,
    ) -> tuple[Plan, AgentCarry[C]]:
        """Observe, then decide; see both."""
        carry = self.observe(carry, observation, executed_action, is_first)
        return self.decide(carry, committed=committed, executed=executed, rounds=rounds)

    @torch.inference_mode()
    def features(self, carry: AgentCarry) -> Tensor:
        """Return the belief as one vector a row, float32 [B, F]: what the heads read, deter and stoch."""
        return self.model.rssm.feat(carry.state)

    @torch.inference_mode()
    def decode(self, carry: AgentCarry) -> dict[str, Tensor]:
        """Return what the model believes to see: images uint8 [B, size, size, 3], vectors float32 [B, n], by key."""
        return self.model.observations(carry.state)

    def warmup(self, batch: int = 1, *, delay: int = 0, repeats: int = 3) -> RoundTimes:
        """Act on blank observations until all is ready, then measure it by number of rounds.

        Args:
            batch: rows.
            delay: how many `committed` actions each decision is given.
            repeats: times that each number is measured, after a first that is not; the slowest
                counts.
        """
        spec = self.spec
        blank = {
            key: np.zeros((batch, *shape), dtype)
            for key, (shape, dtype) in spec.observation.items()
        }
        still, first = np.zeros((batch, spec.action_size), np.float32), np.ones(batch, bool)
        committed = np.zeros((batch, delay, spec.action_size), np.float32) if delay else None

        def act(rounds: int) -> float:
            begin = time.perf_counter()
            plan, _ = self.act(
                self.initial(batch), blank, still, first, committed=committed, rounds=rounds
            )
            plan.action.cpu()  # waits for the device
            return 1000 * (time.perf_counter() - begin)

        every = range(1, self.planner.rounds + 1)
        act(every[-1])
        slowest = [
            max([act(rounds) for _ in range(1 + repeats)][1:]) for rounds in every
        ]  # a round is first captured
        return RoundTimes(tuple(itertools.accumulate(slowest, max)))

    def _ahead(self, carry: AgentCarry[C], committed: np.ndarray | Tensor) -> State:
        """Return the belief after `committed` [B, d, A], by the prior."""
        [actions] = to_device([_of(torch.float32, committed)], self.device)
        rng, state = self._generator(carry.step, 2), carry.state
        for action in actions.unbind(1):
            state = self.model.rssm.imagine_step(
                state, action, self._latent_noise(len(action), rng)
            )
        return State(state.deter.float(), state.stoch.float())

    def _draw(
        self, rows: int, rngs: Sequence[torch.Generator]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the noise of the belief and of the pixels by key: each generator draws an equal share of the rows."""
        each = rows // len(rngs)
        drawn = [
            (self._latent_noise(each, rng), self.model.draw_pixels((each,), rng, self.device))
            for rng in rngs
        ]
        latents, pixels = zip(*drawn, strict=True)
        joined = {key: torch.cat([share[key] for share in pixels]) for key in pixels[0]}
        return None if latents[0] is None else torch.cat(latents), joined

    def _latent_noise(self, rows: int, rng: torch.Generator) -> Tensor | None:
        """Return standard normal noise for the belief, or None where it is the posterior's mode."""
        rssm = self.model.rssm
        noise = torch.randn(rows, rssm.noise_size, generator=rng, device=self.device)
        return noise if rssm.settings.filter_by == "sample" else None

    def _explore(self, action: Tensor, rng: torch.Generator) -> Tensor:
        """Add Gaussian noise and clip; of choices, take any of a group with the chance that the noise says."""
        groups = self.spec.groups
        if not groups:
            noise = torch.randn(action.shape, generator=rng, device=self.device)
            return (action + self._noise * noise).clamp(-1, 1)
        draw, which = torch.rand(2, len(action), len(groups), generator=rng, device=self.device)
        anything = choices.uniform(which, groups, action.dtype)
        return torch.where(choices.each_entry(draw < self._noise, groups), anything, action)

    def _generator(self, *index: int) -> torch.Generator:
        return generator(stream_seed(self._seed, Stream.PLAN, *index), self.device)


class AgentPolicy:
    """An agent as a policy over NumPy observations, what collect.collect drives."""

    def __init__(
        self,
        agent: Agent,
        batch: int,
        *,
        episodes: Sequence[int] | None = None,
        stages: Stages | None = None,
    ) -> None:
        """Act for `batch` rows.

        Args:
            agent: it decides.
            batch: rows.
            episodes: a seed a row, from which all is drawn for it: an episode then meets the same
                noise whatever is played beside it. A row that begins again draws the same again, so
                each plays one episode. None: the agent's own draws.
            stages: told how long `filter` and `plan` take.
        """
        self._agent, self._carry = agent, agent.initial(batch)
        self._episodes, self._stages, self._timed = episodes, stages or Stages(), stages is not None
        self._steps = np.zeros(batch, int)  # of each row's episode so far

    @classmethod
    def of_episodes(
        cls, agent: Agent, seeds: Sequence[int], batch: int, *, stages: Stages | None = None
    ) -> Self:
        """Act in one episode a seed, the first of `batch` rows; the others idle.

        What is drawn for an episode is named by its seed, whatever is played beside it.
        """
        return cls(agent, batch, episodes=[*seeds, *[0] * (batch - len(seeds))], stages=stages)

    def __call__(
        self,
        observation: Mapping[str, np.ndarray],
        executed_action: np.ndarray,
        is_first: np.ndarray,
    ) -> np.ndarray:
        """Return actions [B, A] for observations [B, ...]; see Agent.act."""
        agent, self._steps = self._agent, np.where(is_first, 0, self._steps + 1)
        with self._stages("filter"):
            self._carry = agent.observe(
                self._carry, observation, executed_action, is_first, rngs=self._rngs(0)
            )
            if self._timed:
                synchronize(agent.device)
        with self._stages("plan"):
            plan, self._carry = agent.decide(self._carry, rngs=self._rngs(1))
            return plan.action.cpu().numpy()

    def _rngs(self, part: int) -> list[torch.Generator] | None:
        if self._episodes is None:
            return None
        counts = zip(self._episodes, self._steps.tolist(), strict=True)
        seeds = [stream_seed(0, Stream.EVALUATE, seed, step, part) for seed, step in counts]
        return [generator(seed, self._agent.device) for seed in seeds]


def _of(dtype: torch.dtype, values: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Return values in a dtype; of an array an array, which goes to a device together with others."""
    return (
        values.to(dtype)
        if isinstance(values, Tensor)
        else torch.as_tensor(values, dtype=dtype).numpy()
    )


def check_noise(name: str, noise: float, spec: EnvSpec) -> None:
    """Refuse exploration noise that is no chance where actions are choices; `name` is what the user calls it.

    Raises:
        PlanetError: it is more than 1.
    """
    if spec.groups and noise > 1:
        raise PlanetError(
            f"{name} {noise:g}: in {spec.id} it is the chance of a random choice; give at most 1"
        )


def require_search(planner: PlannerSettings, device: torch.device) -> None:
    """Refuse a search whose sequences of one decision cannot fit into the memory of `device`.

    Raises:
        PlanetError: they cannot.
    """
    if "candidates" not in planner.read:  # an actor searches for nothing
        return
    rounds, size, steps = planner.iterations, planner.candidates, planner.horizon
    numbers = rounds * size * planner.particles * steps  # the noise of all rounds is drawn at once
    what = (
        f"planner.candidates = {size} of planner.horizon = {steps}, planner.iterations = {rounds}"
    )
    require_memory(device, 4 * numbers, what + (f", planner.particles = {planner.particles}" if planner.particles > 1
                   else ""), "lower one of them")  # fmt: skip


def _decided_by(
    settings: Settings, spec: EnvSpec, model: WorldModel, behavior: Behavior | None
) -> dict[str, Any]:
    """Return the planner, what a plan is worth to it, and who proposes, as the constructor's options."""
    chosen = settings.planner
    if chosen.name == "actor" and behavior is not None:
        return {"planner": ActorPlanner(chosen, behavior, model.rssm.feat)}
    planner = planner_from_settings(chosen, spec.action_size, spec.groups)
    told: dict[str, Any] = {"planner": planner, "objective": Objective(chosen.discount)}
    if chosen.terminal_value == "critic" and behavior is not None:
        told["objective"] = Objective(
            min(chosen.discount, behavior.discount), CriticValue(model, behavior)
        )
    if chosen.proposals == "actor" and behavior is not None:
        if not isinstance(planner, SearchPlanner):
            raise PlanetError(
                f"planner.proposals = 'actor': {chosen.name} has no candidates among which they "
                "could be; set planner.proposals=none"
            )
        if (most := min(planner.populations) - planner.reserved) < 1:
            counts = f"planner.candidates = {chosen.candidates}, planner.reuse = {chosen.reuse}"
            raise PlanetError(
                f"planner.proposals = 'actor': {chosen.name} has no place for them ({counts}); raise the first"
            )
        count = min(most, max(1, round(chosen.proposal_share * planner.populations[0])))
        told["proposals"] = ActorProposals(model, behavior, count, chosen.horizon)
    return told


def model_of(held: Checkpoint) -> WorldModel:
    """Build the world model of a checkpoint and fill in its weights, on the CPU."""
    model = model_for(held.settings, held.spec, held.name)
    fill(model, held.model, f"{held.name}: model")
    return model


def parts_of(held: Checkpoint, device: torch.device) -> tuple[WorldModel, Behavior | None]:
    """Build what a checkpoint holds the weights of, on `device`: the world model, and behaviour where there is any."""
    model = model_of(held).to(device)
    return model, behavior_of(held, model)


def behavior_of(held: Checkpoint, model: WorldModel) -> Behavior | None:
    """Build the actor and critic of a checkpoint for its `model`, and fill in their weights; None: it has none."""
    behavior = untrained_behavior(held.settings, model)
    if behavior is not None:
        fill(behavior, held.behavior, f"{held.name}: behavior")
    return behavior
