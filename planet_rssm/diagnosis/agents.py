"""An agent watched beside the simulator, and one whose beliefs are chosen by it: policies for `diagnosis`."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent import Agent, AgentCarry
from planet_rssm.base.device import generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.diagnosis.forecast import Foretold
from planet_rssm.planners import SearchPlanner
from planet_rssm.planners.choices import likeliest
from planet_rssm.simulator.dynamics import SimulatorDynamics
from planet_rssm.simulator.shadow import ShadowedPool
from planet_rssm.types import Dynamics, Rollout, State

CANDIDATES = 64  # sequences of each kind that are scored at a moment
FUTURES = 8  # that a stochastic model imagines of each
FILTERS = 16  # beliefs of a row that are judged
PROBES = 16  # random sequences that they are judged by
KINDS = ("random", "planned", "chosen")


class Moment(NamedTuple):
    """What was scored at one decision."""

    episode: int  # as they began
    claimed: float  # what the planner believed that its plan returns
    foretold: dict[
        str, Foretold
    ]  # by KINDS: random sequences, the last round's, and the chosen plan alone


class WatchedAgent:
    """An agent as a policy that scores candidates by its model and by the simulator at every so-manieth decision.

    It acts as AgentPolicy does: what it scores takes draws of its own. The model begins at the
    filtered belief, the simulator at the true state. Candidates are random actions, and those that
    the planner's last round would draw.
    """

    def __init__(self, agent: Agent, pool: ShadowedPool, every: int) -> None:
        """Take an agent, the pool that it will play in, and how many decisions lie between two that are scored."""
        self._agent, self._pool, self._every = agent, pool, every
        self._carry = agent.initial(pool.count)
        self._age, self._episode = np.zeros(pool.count, int), np.zeros(pool.count, int)  # by row
        self._begun = 0
        self.moments: list[Moment] = []

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Return actions [B, A]; see Policy."""
        for row in np.flatnonzero(is_first):
            self._age[row], self._episode[row], self._begun = 0, self._begun, self._begun + 1
        seen = self._agent.observe(self._carry, observation, executed_action, is_first)
        plan, self._carry = self._agent.decide(seen)
        rows = [row for row in sorted(self._pool.running) if self._age[row] % self._every == 0]
        if rows:
            self._score(seen, rows, plan.sequence, plan.value)
        self._age += 1
        return plan.action.cpu().numpy()

    @torch.inference_mode()
    def _score(self, carry: AgentCarry, rows: list[int], sequence: Tensor, value: Tensor) -> None:
        rng = generator(stream_seed(0, Stream.DIAGNOSE, carry.step), self._agent.device)
        candidates = {
            "random": random_sequences(self._agent, CANDIDATES, len(carry.fresh), rng)[rows],
            "planned": last_round(self._agent, carry, CANDIDATES, rng)[rows],
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
            foretold = {
                kind: Foretold(*(part.select(-3, index).numpy() for part in scored[kind]))
                for kind in KINDS
            }
            self.moments.append(Moment(int(self._episode[row]), float(value[row]), foretold))


class JudgedFilter:
    """An agent whose belief is, at every decision, the one of many that foretells the simulator best.

    What a better filter could gain needs a belief nearer to the truth, and a true state has no
    belief of its own: it can only be reached by filtering. A belief as after an endless warm-up
    would foretell the rewards that really come. So `FILTERS` filters run side by side on the same
    observations, each with posterior samples of its own. At every step random sequences are
    followed from each belief and, by the simulator, from the true state; beliefs are ranked by the
    squared error of their rewards. The agent acts by the best; the worse half goes on as copies of
    the better half. Model, planner and budget stay as they are. Beliefs that no sample of the
    posterior comes near stay out of reach: what the encoder does not see counts as the model's
    error.
    """

    def __init__(self, agent: Agent, pool: ShadowedPool) -> None:
        """Take an agent whose beliefs are samples, and the pool that it will play in."""
        self._agent, self._pool = agent, pool
        self._filters, self._decider = (
            agent.initial(pool.count * FILTERS),
            agent.initial(pool.count),
        )

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Return actions [B, A]; see Policy."""
        many = {key: value.repeat(FILTERS, 0) for key, value in observation.items()}
        first = is_first.repeat(FILTERS, 0)
        held = self._agent.observe(self._filters, many, executed_action.repeat(FILTERS, 0), first)
        order = self._errors(held).argsort(1)  # [B, FILTERS]
        offset = torch.arange(len(is_first), device=order.device)[:, None] * FILTERS
        better = (offset + order[:, : FILTERS // 2]).repeat(1, 2).flatten()
        best = State(*(part[offset[:, 0] + order[:, 0]] for part in held.state))
        self._filters = held._replace(state=State(*(part[better] for part in held.state)))
        fresh = self._decider.fresh | torch.as_tensor(is_first, device=order.device)
        plan, self._decider = self._agent.decide(
            self._decider._replace(state=best, fresh=fresh, step=held.step)
        )
        return plan.action.cpu().numpy()

    @torch.inference_mode()
    def _errors(self, held: AgentCarry) -> Tensor:
        """Return the mean squared error [B, FILTERS] of the rewards that each belief foretells."""
        agent, batch = self._agent, self._pool.count
        rng = generator(stream_seed(1, Stream.DIAGNOSE, held.step), agent.device)
        actions = random_sequences(agent, PROBES, batch, rng)
        real = follow(self._pool, list(range(batch)), actions)[0].to(agent.device)
        dynamics = agent.prepared.dynamics
        shape = dynamics.noise_shape(1, PROBES, actions.shape[2])
        rows = batch * FILTERS  # the same noise in each: they differ by their beliefs alone
        noise = None
        if shape is not None:
            noise = (
                torch.randn(shape, generator=rng, device=agent.device)
                .expand(rows, *shape[1:])
                .contiguous()
            )
        said = dynamics.rollout(
            held.state, actions.repeat_interleave(FILTERS, 0), noise
        ).reward.double()
        return (said.unflatten(0, (batch, FILTERS)) - real[:, None]).square().nanmean((2, 3))


def random_sequences(agent: Agent, count: int, batch: int, rng: torch.Generator) -> Tensor:
    """Return action sequences [batch, count, H, A], uniform in [-1, 1] or among the choices of each group."""
    shape = batch, count, agent.planner.horizon, agent.spec.action_size
    uniform = torch.rand(shape, generator=rng, device=agent.device)
    return likeliest(uniform, agent.spec.groups) if agent.spec.groups else 2 * uniform - 1


@torch.no_grad()
def last_round(agent: Agent, carry: AgentCarry, count: int, rng: torch.Generator) -> Tensor:
    """Return at most `count` action sequences [B, N, H, A] as the last round of a decision proposes them.

    The search is made anew, with draws of its own, and so are the proposals: none has been scored
    yet.
    """
    planner, prepared = agent.planner, agent.prepared
    if not isinstance(planner, SearchPlanner):
        kind = type(planner).__name__
        raise PlanetError(f"planner {kind}: it is no search, so it has no last round to look at")
    searches = []

    def run(one: Any, tensors: tuple[Any, ...]) -> Any:  # noqa: ANN401 (see SearchPlanner.plan)
        searches.append(tensors[0])
        return one(*tensors)

    state = carry.state
    drawn = planner.draw(prepared.dynamics, state, rng)
    given = (prepared.dynamics, prepared.objective, state, carry.planner, carry.fresh)
    planner.plan(*given, noise=drawn, run=run)
    fresh = planner.draw(prepared.dynamics, state, rng)[-1].actions
    return planner.box.actions(planner.propose(searches[-1], fresh, last=True)[:, :count])


def imagine(
    dynamics: Dynamics[State], belief: State, actions: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return rewards and discounts [S, B, N, H], float64 on the CPU, of `FUTURES` futures, of one if no more differ."""
    shape = dynamics.noise_shape(*actions.shape[:3])
    drawn = (
        [None]
        if shape is None
        else [torch.randn(shape, generator=rng, device=rng.device) for _ in range(FUTURES)]
    )
    futures: list[Rollout] = [dynamics.rollout(belief, actions, noise) for noise in drawn]
    reward, discount = (
        torch.stack(parts) for parts in zip(*((f.reward, f.discount) for f in futures), strict=True)
    )
    return reward.double().cpu(), discount.double().cpu()


def follow(pool: ShadowedPool, rows: list[int], actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return rewards and discounts [B, N, H], float64 on the CPU, of `actions` in the simulators of `rows`."""
    dynamics = SimulatorDynamics([pool.simulators[row] for row in rows])
    real = dynamics.rollout(dynamics.state(), actions.double().cpu())
    return real.reward, real.discount
