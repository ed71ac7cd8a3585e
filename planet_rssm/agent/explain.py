"""Why an agent chose what it chose: what its planner tried, and what the model imagined of it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent.agent import Agent, AgentCarry
from planet_rssm.base.device import generator
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior import ActorPlanner, ActorProposals, Behavior, CriticValue
from planet_rssm.planners import Objective, SearchPlanner
from planet_rssm.planners.objective import risk_adjusted
from planet_rssm.planners.recorded import Asked, RecordedDynamics
from planet_rssm.types import Plan, State
from planet_rssm.world_model import ModelDynamics, WorldModel

FUTURES = 16  # plans whose futures are decoded, the best ones
PICTURES = 8  # steps of the horizon that are decoded, evenly spread
SHARE = 10  # where a planner names no elites, a tenth of its candidates are its best


class Decision(NamedTuple):
    """One decision for row 0, as arrays; what there is none of is empty or None.

    H steps of the plan, K best plans, P steps of it that were decoded. Actions are in [-1, 1] or
    one-hot by group. Pictures are of the first image key, by the latents' modes.
    """

    sequence: np.ndarray  # [H, A], the chosen plan
    value: float  # what the planner says that it is worth
    reward: np.ndarray  # [H], predicted along it
    critic: np.ndarray | None  # [H + 1], the critic's value of the belief and along the plan
    counts_critic: bool  # whether the planner adds the critic's value of the last state
    returns: list[np.ndarray]  # [N] of each round, -inf where not finite
    proposals: int  # how many candidates, the last ones of each round, come from the actor
    elites: np.ndarray  # [K, H, A], the best plans of the last round, or draws of the actor
    elite_reward: np.ndarray  # [K, H], predicted along them
    actor: np.ndarray | None  # [H, A], what the actor would do, by modes
    steps: np.ndarray  # [P], agent steps ahead that were decoded, from 1 to H
    belief: np.ndarray | None  # uint8 [size, size, 3], what the present belief decodes to
    imagined: np.ndarray | None  # uint8 [P, size, size, 3], the chosen plan's future
    spread: np.ndarray | None  # float16 [P, size, size], std over the futures' pixels, of 0 to 1
    vectors: np.ndarray | None  # [H + 1, n], decoded vectors of the belief and along the plan
    vector_spread: np.ndarray | None  # [H, n], std over the futures


class Explainer:
    """Explains the decisions of row 0 of an agent; the agent decides as before.

    For each decision call `explain` once, after `agent.decide`.
    """

    def __init__(self, agent: Agent[Any], behavior: Behavior | None = None) -> None:
        """Record what the agent's planner asks of the model.

        `behavior` is the run's, if any; that of a critic which the planner counts is known without.
        """
        self._agent = agent
        objective = agent.prepared.objective
        recorded = RecordedDynamics(ModelDynamics(agent.model), objective)
        self._asked: list[Asked] = recorded.asked
        agent.plan_in(recorded)
        value = objective.terminal_value if isinstance(objective, Objective) else None
        self._counts_critic = isinstance(value, CriticValue)
        counted = value.behavior if isinstance(value, CriticValue) else None
        self._behavior = behavior or counted

    @torch.inference_mode()
    def explain(self, carry: AgentCarry[Any], plan: Plan) -> Decision:
        """Return what led to `plan`, and what the model imagines of it.

        `carry` is what `agent.observe` returned before the decision, without `committed` actions.
        """
        asked = [self._candidates(one) for one in self._asked]
        self._asked.clear()
        state = State(*(part[:1] for part in carry.state))
        sequence, elites, rewards, actor = self._plans(state, plan.sequence[0], asked)
        model = self._agent.model
        horizon = len(sequence)
        steps = torch.linspace(1, horizon, min(horizon, PICTURES)).round().long()
        states = _joined(state, model.rssm.imagine(state, sequence[None], None))
        feat = model.rssm.feat(states)[0]
        futures = None
        if len(elites) > 1:
            some = elites[:FUTURES]
            start = State(*(part.expand(len(some), -1) for part in state))
            futures = model.rssm.imagine(start, some, None)
        pictures = _pictures(model, states, futures, steps)
        vectors = _vectors(model, states, futures)
        return Decision(
            sequence=_array(sequence),
            value=float(plan.value[0]),
            reward=_array(model.predict_reward(State(*(part[0, 1:] for part in states)))),
            critic=None if self._behavior is None else _array(self._behavior.critic(feat)),
            counts_critic=self._counts_critic,
            returns=[_array(one.returns) for one in asked],
            proposals=self._agent.proposals.count if self._agent.proposals and asked else 0,
            elites=_array(elites),
            elite_reward=_array(rewards),
            actor=None if actor is None else _array(actor),
            steps=steps.cpu().numpy(),
            belief=pictures[0],
            imagined=pictures[1],
            spread=pictures[2],
            vectors=vectors[0],
            vector_spread=vectors[1],
        )

    def _candidates(self, asked: Asked) -> Asked:
        """Return one row a candidate, where each was imagined as several particles."""
        planner = self._agent.planner
        if not isinstance(planner, SearchPlanner) or planner.settings.particles == 1:
            return asked
        particles = planner.settings.particles
        returns = risk_adjusted(asked.returns[None], particles, planner.settings.risk)[0]
        reward = asked.reward.unflatten(0, (-1, particles)).mean(1)
        return Asked(asked.actions[::particles], returns, reward)

    def _plans(
        self, state: State, sequence: Tensor, asked: list[Asked]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the chosen plan, the best ones with their rewards, and what the actor would do."""
        actor = None
        behavior = self._behavior
        if behavior is not None:
            acts = isinstance(self._agent.planner, ActorPlanner)
            horizon = behavior.settings.horizon if acts else len(sequence)
            propose = ActorProposals(self._agent.model, behavior, 1 + FUTURES, horizon)
            seed = stream_seed(0, Stream.EXPLAIN)
            drawn = propose(state, generator(seed, self._agent.device))[0]
            actor = drawn[0]
            if acts:  # a plan of one step says little: follow the actor, as it learned to be good
                followed = torch.cat([sequence[:1], actor[1:]])
                return followed, drawn[1:], self._rewards(state, drawn[1:]), actor
        if not asked:
            return sequence, sequence[None][:0], sequence[None, :, 0][:0], actor
        last = asked[-1]
        count = max(2, len(last.returns) // SHARE)
        planner = self._agent.planner
        if isinstance(planner, SearchPlanner) and "elites" in planner.settings.read:
            count = min(planner.settings.elites, len(last.returns))
        best = last.returns.argsort(descending=True, stable=True)[:count]
        best = best[last.returns[best] > -torch.inf]
        return sequence, last.actions[best].float(), last.reward[best], actor

    def _rewards(self, state: State, sequences: Tensor) -> Tensor:
        start = State(*(part.expand(len(sequences), -1) for part in state))
        model = self._agent.model
        return model.predict_reward(model.rssm.imagine(start, sequences, None))


def _pictures(
    model: WorldModel, states: State, futures: State | None, steps: Tensor
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return `belief`, `imagined` and `spread` of a Decision."""
    if not model.encoder.image_keys:
        return None, None, None
    key = model.encoder.image_keys[0]
    shown = torch.cat([steps.new_zeros(1), steps])
    own = model.observations(State(*(part[0, shown] for part in states)))[key].cpu().numpy()
    if futures is None:
        return own[0], own[1:], None
    some = State(*(part[:, steps - 1].flatten(0, 1) for part in futures))
    pixels = model.observations(some)[key].float().unflatten(0, (-1, len(steps))) / 255
    spread = pixels.std(0, correction=0).mean(-1)
    return own[0], own[1:], spread.half().cpu().numpy()


def _vectors(
    model: WorldModel, states: State, futures: State | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return `vectors` and `vector_spread` of a Decision, all keys beside one another."""
    if not model.decoder.vector_keys:
        return None, None
    keys = model.decoder.vector_keys
    own = model.observations(State(*(part[0] for part in states)))
    vectors = _array(torch.cat([own[key] for key in keys], -1))
    if futures is None:
        return vectors, None
    rows = model.observations(State(*(part.flatten(0, 1) for part in futures)))
    values = torch.cat([rows[key] for key in keys], -1).unflatten(0, futures.deter.shape[:2])
    return vectors, _array(values.std(0, correction=0))


def _joined(state: State, ahead: State) -> State:
    """Return states [1, H + 1, ...]: the present one and those that follow."""
    return State(
        *(torch.cat([one[:, None], two], 1) for one, two in zip(state, ahead, strict=True))
    )


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
