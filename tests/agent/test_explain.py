"""Explained decisions say what the planner did, and the agent decides as without them."""

import dataclasses

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, Explainer
from planet_rssm.behavior import untrained_behavior
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.types import Plan, Planner
from planet_rssm.world_model import untrained_model

CPU = torch.device("cpu")
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    2,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)
TINY = (
    "env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 planner.candidates=16 "
    "planner.elites=4 planner.iterations=2 planner.horizon=5"
).split()
ACTOR = "behavior.units=8 behavior.horizon=6 model.reward_units=8".split()
B = 3


@pytest.fixture(autouse=True)
def calm(one_thread_and_seed):
    """Every test of this file is of tiny tensors."""


def tiny(overrides):
    """TINY, without elites where the planner has none."""
    without = {"planner.name=mppi", "planner.name=shooting"} & set(overrides)
    by_elites = "planner.weigh=elites" in overrides
    return [word for word in TINY if "elites" not in word or by_elites or not without]


def made(preset="planet", *overrides, spec=SPEC):
    """Two equal agents, and what the second one's explainer reads."""
    settings = config.load(preset, [*tiny(overrides), *overrides])
    model = untrained_model(settings, spec)
    behavior = untrained_behavior(settings, model)
    plain, watched = (Agent.build(settings, spec, model, behavior, device=CPU) for _ in range(2))
    return plain, watched, Explainer(watched, behavior)


def observed(agent):
    rng = torch.Generator().manual_seed(0)
    shapes = agent.spec.observation
    observation = {
        key: torch.randint(0, 256, (B, *shape), generator=rng, dtype=torch.uint8)
        if dtype == "uint8"
        else torch.randn(B, *shape, generator=rng)
        for key, (shape, dtype) in shapes.items()
    }
    none = torch.zeros(B, agent.spec.action_size)
    return agent.observe(agent.initial(B), observation, none, torch.ones(B, dtype=torch.bool))


@pytest.mark.parametrize(
    ("planner", "extra"),
    [
        ("cem", []),
        ("icem", []),
        ("mppi", []),
        ("mppi", ["planner.weigh=elites"]),
        ("shooting", []),
        ("cem", ["planner.particles=3", "planner.risk=worst"]),
        ("cem", ["planner.fast=false", "planner.precision=float32"]),
    ],
)
def test_searches_are_recorded_and_decide_the_same(planner, extra):
    plain, watched, explainer = made("planet", f"planner.name={planner}", *extra)
    belief, expected = observed(watched), observed(plain)
    for _ in range(2):  # the second begins where the first ended
        plan, after = watched.decide(belief)
        same, expected = plain.decide(expected)
        assert torch.equal(plan.sequence, same.sequence)
        one = explainer.explain(belief, plan)
        belief = after
        best = np.array([returns.max() for returns in one.returns])
        np.testing.assert_allclose(best, plan.diagnostics["returns_max"][0], rtol=1e-5)
        named = planner in ("cem", "icem") or "planner.weigh=elites" in extra
        assert len(one.returns[0]) == 16 and len(one.elites) == (4 if named else 2)
        assert one.sequence.shape == (5, 2) and one.reward.shape == (5,)
        assert one.imagined.shape == (5, 32, 32, 3) and one.imagined.dtype == np.uint8
        assert one.spread.shape == (5, 32, 32) and (one.spread >= 0).all()
        assert one.actor is None and one.critic is None and one.proposals == 0


def test_the_elites_of_cem_are_what_its_plan_is_the_mean_of():
    _, agent, explainer = made()
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    np.testing.assert_allclose(one.elites.mean(0), one.sequence, atol=1e-5)
    returns = np.sort(one.returns[-1])[::-1][:4]
    assert one.value == pytest.approx(returns.mean(), rel=1e-5)
    np.testing.assert_allclose(one.elite_reward.sum(1), returns, rtol=1e-4, atol=1e-5)


def test_an_actor_is_followed_and_has_no_rounds():
    _, agent, explainer = made("quickstart", *ACTOR)
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    assert one.returns == [] and one.elites.shape == (16, 6, 2) and one.sequence.shape == (6, 2)
    np.testing.assert_allclose(one.sequence[0], plan.action[0])
    np.testing.assert_allclose(one.sequence, one.actor, atol=1e-5)
    assert one.critic[0] == pytest.approx(float(plan.value[0]), rel=1e-5)
    assert one.critic.shape == (7,) and not one.counts_critic


def test_a_search_with_actor_and_critic_shows_what_they_add():
    words = "planner.name=cem planner.proposals=actor planner.terminal_value=critic".split()
    _, agent, explainer = made("quickstart", *ACTOR, *words)
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    assert one.counts_critic and one.proposals == 2 and one.actor.shape == (5, 2)


def test_vectors_and_choices():
    spec = dataclasses.replace(
        SPEC, observation={"a": ((3,), "float32"), "b": ((2,), "float32")}, discrete=True
    )
    _, agent, explainer = made("planet", spec=spec)
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    assert one.imagined is one.belief is one.spread is None
    assert one.vectors.shape == (6, 5) and one.vector_spread.shape == (5, 5)
    assert set(np.unique(one.elites)) == {0.0, 1.0}


def test_a_search_with_a_cost_is_recorded_too():
    settings = config.load("planet", TINY)
    model = untrained_model(settings, SPEC)
    planner = planner_from_settings(settings.planner, 2)
    objective = Objective(cost=lambda state, action, previous: action.square().sum(1))
    agent = Agent(model, planner, SPEC, device=CPU, objective=objective)
    explainer = Explainer(agent)
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    best = np.array([returns.max() for returns in one.returns])
    np.testing.assert_allclose(best, plan.diagnostics["returns_max"][0], rtol=1e-4)
    assert (one.returns[0] < one.elite_reward.sum(1).max()).any()


def test_a_critic_that_is_counted_is_shown_without_being_handed_in():
    both = ("behavior=v3", "behavior.units=8", "planner.name=cem", "planner.proposals=actor")
    handed = made("planet", *both, "planner.terminal_value=critic")[2]
    alone = Explainer(made("planet", *both, "planner.terminal_value=critic")[0])
    decided = []
    for explainer in (handed, alone):
        agent = explainer._agent
        belief = observed(agent)
        decided.append(explainer.explain(belief, agent.decide(belief)[0]))
    assert decided[0].counts_critic and decided[1].critic is not None
    np.testing.assert_allclose(decided[1].critic, decided[0].critic, rtol=1e-4, atol=1e-5)


def test_plans_to_a_goal_are_explained_too():
    plain, _, _ = made()
    agent = plain.towards({"image": np.full((32, 32, 3), 90, np.uint8)})
    explainer = Explainer(agent)
    belief = observed(agent)
    plan, _ = agent.decide(belief)
    one = explainer.explain(belief, plan)
    best = np.array([returns.max() for returns in one.returns])
    np.testing.assert_allclose(best, plan.diagnostics["returns_max"][0], rtol=1e-4)


class Fixed(Planner):
    """A planner from elsewhere; it asks the model for as many rollouts as it is given."""

    horizon = 4

    def __init__(self, asks: int) -> None:
        self.asks = asks

    def initial(self, batch, device=None):
        return torch.zeros(batch)

    def plan(self, dynamics, objective, state, carry, is_first, generator=None, **_):
        sequence = torch.zeros(len(is_first), 4, 2)
        for asked in range(self.asks):
            tried = torch.full((len(is_first), 30, 4, 2), asked / 10)
            objective(dynamics.rollout(state, tried, None))
        return Plan(sequence[:, 0], sequence, torch.zeros(len(is_first)), {}), carry


@pytest.mark.parametrize("asks", [0, 3])
def test_a_planner_from_outside_is_shown_as_far_as_it_asks_the_model(asks):
    settings = config.load("planet", [*TINY, "rssm.plan_by=mode"])
    model = untrained_model(settings, SPEC)
    agent = Agent(model, Fixed(asks), SPEC, device=CPU)
    explainer = Explainer(agent)
    belief = observed(agent)
    for _ in range(2):  # nothing of a decision is left for the next
        plan, _ = agent.decide(belief)
        one = explainer.explain(belief, plan)
        assert len(one.returns) == asks and len(one.elites) == (3 if asks else 0)
        assert one.imagined.shape[0] == 4 and (one.spread is None) == (not asks)
