"""Policies for `planet diagnose`: an agent that scores candidates, and one that picks beliefs."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent import Agent, AgentCarry
from planet_rssm.base.device import generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior import ActorProposals
from planet_rssm.diagnosis.model_accuracy import KINDS, Moment, ScoredCandidates
from planet_rssm.planners import SearchPlanner
from planet_rssm.planners.choices import likeliest
from planet_rssm.simulator.dynamics import SimulatorDynamics
from planet_rssm.simulator.shadow import ShadowedPool
from planet_rssm.types import Dynamics, Rollout, State

T = TypeVar("T")
CANDIDATES = 64  # sequences of each kind that are scored at a moment
FUTURES = 8  # that a stochastic model imagines of each
FILTERS = 16  # beliefs of a row to choose from
PROBES = 16  # random sequences that they are compared by


class ScoringPolicy:
    """An agent that scores candidates by its model and by the simulator, one decision in `every`.

    It acts as AgentPolicy does: scoring takes separate draws. The model begins at the filtered
    belief, the simulator at the true state. Candidates are random actions, and those that the
    planner's last round would draw. An actor's are the sequences that it draws in imagination, and
    its plan is the one by its modes.
    """

    def __init__(
        self,
        agent: Agent,
        pool: ShadowedPool,
        every: int,
        *,
        horizon: int | None = None,
        actor: ActorProposals | None = None,
        values_rewards: bool = True,
    ) -> None:
        """Take an agent and the pool that it will play in.

        Args:
            agent: it decides.
            pool: of the episodes.
            every: decisions from one that is scored to the next.
            horizon: steps of the sequences; None: the planner's own.
            actor: whose sequences are scored, where the agent does not search.
            values_rewards: whether the value of a plan is that of its rewards alone: only then it
                is compared with them.
        """
        self._agent = agent
        self._pool = pool
        self._every = every
        self._horizon = horizon or agent.planner.horizon
        self._actor = actor
        self._values_rewards = values_rewards
        self._carry = agent.initial(pool.count)
        self._age = np.zeros(pool.count, int)  # decisions of each row's episode
        self._episode = np.zeros(pool.count, int)  # of each row
        self._begun = 0
        self.moments: list[Moment] = []

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Return actions [B, A]; see Policy."""
        for row in np.flatnonzero(is_first):
            self._age[row] = 0
            self._episode[row] = self._begun
            self._begun += 1
        carry = self._agent.observe(self._carry, observation, executed_action, is_first)
        plan, self._carry = self._agent.decide(carry)
        rows = [row for row in sorted(self._pool.running) if self._age[row] % self._every == 0]
        if rows:
            self._score(carry, rows, plan.sequence, plan.value)
        self._age += 1
        return plan.action.cpu().numpy()

    @torch.inference_mode()
    def _score(self, carry: AgentCarry, rows: list[int], sequence: Tensor, value: Tensor) -> None:
        rng = generator(stream_seed(0, Stream.DIAGNOSE, carry.step), self._agent.device)
        if self._actor is None:
            planned = last_round(self._agent, carry, CANDIDATES, rng)
        else:
            planned = self._actor(carry.state, rng)
            sequence = planned[:, 0]
        candidates = {
            "random": random_sequences(
                self._agent, CANDIDATES, len(carry.fresh), rng, self._horizon
            )[rows],
            "planned": planned[rows],
            "chosen": sequence[rows, None],
        }
        sizes = [candidates[kind].shape[1] for kind in KINDS]
        actions = torch.cat([candidates[kind] for kind in KINDS], 1)
        belief = State(*(part[rows] for part in carry.state))
        imagined = imagine(self._agent.prepared.dynamics, belief, actions, rng)
        real = follow(self._pool, rows, actions)
        parts = zip(*(part.split(sizes, -2) for part in (*imagined, *real)), strict=True)
        scored = dict(zip(KINDS, parts, strict=True))
        for index, row in enumerate(rows):
            of_row = {
                kind: ScoredCandidates(*(part.select(-3, index).numpy() for part in scored[kind]))
                for kind in KINDS
            }
            claimed = float(value[row]) if self._values_rewards else np.nan
            self.moments.append(Moment(int(self._episode[row]), claimed, of_row))


class BestBeliefPolicy:
    """An agent that acts by the one of many beliefs that predicts the simulator best.

    What a better filter could gain needs a belief nearer to the truth, and a true state has no
    belief: one can only be reached by filtering. A belief as after an endless warm-up
    would predict the rewards that really come. So `FILTERS` filters run side by side on the same
    observations, each with its own posterior samples. At every step random sequences are followed
    from each belief and, by the simulator, from the true state; beliefs are ranked by the squared
    error of their rewards. The agent acts by the best; the worse half is replaced by copies of the
    better half. Model, planner and budget stay as they are. Beliefs that no sample of the posterior
    comes near stay out of reach: what the encoder does not observe counts as the model's error.
    """

    def __init__(self, agent: Agent, pool: ShadowedPool, horizon: int | None = None) -> None:
        """Take an agent whose beliefs are samples, and the pool that it will play in.

        `horizon` is that of the sequences by which beliefs are ranked; None: the planner's own.
        """
        self._agent = agent
        self._pool = pool
        self._horizon = horizon or agent.planner.horizon
        self._filters = agent.initial(pool.count * FILTERS)
        self._decider = agent.initial(pool.count)

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Return actions [B, A]; see Policy."""
        many = {key: value.repeat(FILTERS, 0) for key, value in observation.items()}
        actions = executed_action.repeat(FILTERS, 0)
        beliefs = self._agent.observe(self._filters, many, actions, is_first.repeat(FILTERS, 0))
        order = self._errors(beliefs).argsort(1)  # [B, FILTERS]
        offset = torch.arange(len(is_first), device=order.device)[:, None] * FILTERS
        better = (offset + order[:, : FILTERS // 2]).repeat(1, 2).flatten()
        best = State(*(part[offset[:, 0] + order[:, 0]] for part in beliefs.state))
        self._filters = beliefs._replace(state=State(*(part[better] for part in beliefs.state)))
        fresh = self._decider.fresh | torch.as_tensor(is_first, device=order.device)
        plan, self._decider = self._agent.decide(
            self._decider._replace(state=best, fresh=fresh, step=beliefs.step)
        )
        return plan.action.cpu().numpy()

    @torch.inference_mode()
    def _errors(self, beliefs: AgentCarry) -> Tensor:
        """Return the mean squared error [B, FILTERS] of the rewards that each belief predicts."""
        agent = self._agent
        batch = self._pool.count
        rng = generator(stream_seed(1, Stream.DIAGNOSE, beliefs.step), agent.device)
        actions = random_sequences(agent, PROBES, batch, rng, self._horizon)
        real = follow(self._pool, list(range(batch)), actions)[0].to(agent.device)
        dynamics = agent.prepared.dynamics
        shape = dynamics.noise_shape(1, PROBES, actions.shape[2])
        rows = batch * FILTERS  # the same noise in each: they differ by their beliefs alone
        noise = None
        if shape is not None:
            drawn = torch.randn(shape, generator=rng, device=agent.device)
            noise = drawn.expand(rows, *shape[1:]).contiguous()
        imagined = dynamics.rollout(beliefs.state, actions.repeat_interleave(FILTERS, 0), noise)
        reward = imagined.reward.double().unflatten(0, (batch, FILTERS))
        return (reward - real[:, None]).square().nanmean((2, 3))


def random_sequences(
    agent: Agent, count: int, batch: int, rng: torch.Generator, horizon: int | None = None
) -> Tensor:
    """Return action sequences [batch, count, H, A]; without a `horizon` the planner's own.

    They are uniform in [-1, 1], or among the choices of each group.
    """
    shape = batch, count, horizon or agent.planner.horizon, agent.spec.action_size
    uniform = torch.rand(shape, generator=rng, device=agent.device)
    return likeliest(uniform, agent.spec.groups) if agent.spec.groups else 2 * uniform - 1


@torch.no_grad()
def last_round(agent: Agent, carry: AgentCarry, count: int, rng: torch.Generator) -> Tensor:
    """Return at most `count` action sequences [B, N, H, A] of the last round of a decision.

    The search is repeated with separate draws, an actor's proposals included, and so are the
    sequences that are returned: none has been scored yet.
    """
    planner = agent.planner
    prepared = agent.prepared
    if not isinstance(planner, SearchPlanner):
        kind = type(planner).__name__
        raise PlanetError(f"planner {kind}: it is no search, so it has no last round to look at")
    searches = []

    def run(one: Callable[..., T], tensors: tuple[Any, ...]) -> T:  # see SearchPlanner.plan
        searches.append(tensors[0])
        return one(*tensors)

    state = carry.state
    drawn = planner.draw(prepared.dynamics, state, rng)
    proposed = None if agent.proposals is None else agent.proposals(state, rng)
    planner.plan(
        dynamics=prepared.dynamics,
        objective=prepared.objective,
        state=state,
        carry=carry.planner,
        is_first=carry.fresh,
        noise=drawn,
        run=run,
        proposals=proposed,
    )
    fresh = planner.draw(prepared.dynamics, state, rng)[-1].actions
    return planner.box.actions(planner.propose(searches[-1], fresh, last=True)[:, :count])


def imagine(
    dynamics: Dynamics[State], belief: State, actions: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return rewards and discounts [S, B, N, H], float64 on the CPU, of `FUTURES` futures.

    Where nothing is drawn all futures are the same, and there is one.
    """
    shape = dynamics.noise_shape(*actions.shape[:3])
    drawn: list[Tensor | None] = [None]
    if shape is not None:
        drawn = [torch.randn(shape, generator=rng, device=rng.device) for _ in range(FUTURES)]
    futures: list[Rollout] = [dynamics.rollout(belief, actions, noise) for noise in drawn]
    reward = torch.stack([future.reward for future in futures])
    discount = torch.stack([future.discount for future in futures])
    return reward.double().cpu(), discount.double().cpu()


def follow(pool: ShadowedPool, rows: list[int], actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return rewards and discounts [B, N, H] of `actions` in the simulators of `rows`.

    They are float64 on the CPU.
    """
    dynamics = SimulatorDynamics([pool.simulators[row] for row in rows])
    real = dynamics.rollout(dynamics.state(), actions.double().cpu())
    return real.reward, real.discount
