"""Policies of the diagnosis, with models that are the simulator, its negative, or wrong."""

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.behavior import ActorProposals, untrained_behavior
from planet_rssm.diagnosis.model_accuracy import model_accuracy
from planet_rssm.diagnosis.policies import (
    FILTERS,
    BestBeliefPolicy,
    ScoringPolicy,
    last_round,
    random_sequences,
)
from planet_rssm.envs.registry import resolve
from planet_rssm.evaluation.protocol import play
from planet_rssm.simulator.dynamics import SimulatorDynamics
from planet_rssm.simulator.local import LocalPool
from planet_rssm.simulator.shadow import ShadowedPool
from planet_rssm.types import Dynamics
from planet_rssm.world_model import untrained_model

SETTINGS = config.load(
    "planet",
    "env.id=dmc/cartpole-balance env.observe=vectors env.renderer=none env.time_limit=80 "
    "model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8 "
    "model.vector_units=8 planner.candidates=20 planner.iterations=2 "
    "planner.elites=4 planner.horizon=4 device=cpu".split(),
)
SETTINGS = SETTINGS.model_copy(update={"env": resolve(SETTINGS.env)})
CPU = torch.device("cpu")


class Seer(Dynamics):
    """Follows the true episodes, whatever is believed.

    Rewards are times `factor`, and off by what `off` returns of the belief.
    """

    differentiable = False

    def __init__(self, pool, factor=1.0, off=None):
        self._pool, self._factor, self._off = pool, factor, off

    def noise_shape(self, batch, candidates, horizon):
        return None

    def rollout(self, state, actions, noise=None):
        truth = SimulatorDynamics(self._pool.simulators)
        each = len(actions) // self._pool.count  # beliefs of a row
        real = truth.rollout(truth.state(), actions[::each])
        reward = (self._factor * real.reward).repeat_interleave(each, 0)
        if self._off is not None:
            reward = reward + self._off(state)[:, None, None]
        return real._replace(reward=reward, discount=real.discount.repeat_interleave(each, 0))


@pytest.fixture
def pool() -> ShadowedPool:
    return ShadowedPool(LocalPool(SETTINGS.env), SETTINGS.env, threads=1)


def agent() -> Agent:
    torch.manual_seed(0)
    spec = LocalPool(SETTINGS.env).spec
    return Agent.build(SETTINGS, spec, untrained_model(SETTINGS, spec), device=CPU)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_candidates_of_the_simulator_and_its_negative(pool, factor):
    made = agent()
    made.prepared.dynamics = Seer(pool, factor)
    policy = ScoringPolicy(made, pool, every=9)
    play(pool, policy, [1000, 1001])
    assert [moment.episode for moment in policy.moments] == [0, 0, 1, 1]
    result = model_accuracy(policy.moments, SETTINGS, False)
    for kind in ("random", "planned"):
        for cell in result.rank_correlation[kind]["one"]:
            assert cell.mean == pytest.approx(factor, abs=1e-3)  # rewards come back in float32
    if factor == 1:
        assert [cell.mean for cell in result.optimism] == pytest.approx([0.0] * 3, abs=1e-4)


def test_an_actors_sequences_are_its_own_in_imagination(pool):
    settings = config.override(SETTINGS, ["behavior=v3", "behavior.units=8", "planner.name=actor"])
    spec = LocalPool(settings.env).spec
    torch.manual_seed(0)
    model = untrained_model(settings, spec)
    behavior = untrained_behavior(settings, model)
    made = Agent.build(settings, spec, model, behavior, device=CPU)
    made.prepared.dynamics = Seer(pool)
    actor = ActorProposals(model, behavior, 12, 4)
    policy = ScoringPolicy(made, pool, every=9, horizon=4, actor=actor, values_rewards=False)
    assert play(pool, policy, [1000]) == play(
        LocalPool(SETTINGS.env),
        AgentPolicy(Agent.build(settings, spec, model, behavior, device=CPU), 1),
        [1000],
    )
    sizes = {kind: part.real_reward.shape for kind, part in policy.moments[0].candidates.items()}
    assert sizes == {"random": (64, 4), "planned": (12, 4), "chosen": (1, 4)}
    result = model_accuracy(policy.moments, settings, False)
    assert result.claimed is None  # what the critic says is no sum of rewards
    assert [cell.mean for cell in result.optimism] == pytest.approx([0.0] * 3, abs=1e-4)


def test_an_agent_that_scores_acts_as_ever(pool):
    alone = play(LocalPool(SETTINGS.env), AgentPolicy(agent(), 1), [1000])
    assert play(pool, ScoringPolicy(agent(), pool, every=5), [1000]) == alone


def test_the_last_round_draws_as_the_planner_does_and_its_plan_lies_among_its_draws(pool):
    made, rng = agent(), torch.Generator().manual_seed(0)
    made.prepared.dynamics = Seer(pool)
    pool.reset({0: 1000})
    carry = made.initial(1)
    proposed = last_round(made, carry, 15, rng)
    assert proposed.shape == (1, 15, 4, 1) and proposed.abs().max() <= 1
    assert last_round(made, carry, 99, rng).shape[1] == 20  # there are no more
    assert proposed.std() < random_sequences(made, 50, 1, rng).std() * 1.8
    assert not torch.equal(proposed, last_round(made, carry, 15, rng))


def test_the_belief_that_is_acted_by_is_the_one_that_predicts_best(pool):
    """The model's error is the belief's first number: the least must be chosen, and survive."""
    made = agent()
    made.prepared.dynamics = Seer(pool, off=lambda state: state.stoch[:, 0].abs())
    policy, acted, filtered = BestBeliefPolicy(made, pool), [], []
    decide, observe = made.decide, made.observe

    def observed(*args, **options):
        filtered.append(observe(*args, **options))
        return filtered[-1]

    def decided(carry, **options):
        acted.append(carry.state)
        return decide(carry, **options)

    made.observe, made.decide = observed, decided
    play(pool, policy, [1000])
    assert len(acted) == len(filtered) == 10
    for chosen, all_of_them in zip(acted, filtered, strict=True):
        off = all_of_them.state.stoch[:, 0].abs()
        assert len(off) == FILTERS and off.unique().numel() > FILTERS // 2
        assert chosen.stoch[0, 0].abs() == off.min()
