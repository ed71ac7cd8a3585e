"""The actor in the planner's place and beside it: what it decides, and what is refused."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.base.device import generator
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import (
    ActorPlanner,
    ActorProposals,
    Behavior,
    CriticValue,
    untrained_behavior,
)
from planet_rssm.config import PlannerSettings, Settings
from planet_rssm.control import ControlLoop, SimulatedTime
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import planner_from_settings, score
from planet_rssm.testing import check_planner
from planet_rssm.types import Plan, State
from planet_rssm.world_model import untrained_model

B, A, CPU = 3, 2, torch.device("cpu")
SIZE = """
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=8 model.reward_units=8
    behavior.units=8 behavior.actor_outscale=3 behavior.critic_outscale=1 planner.candidates=20
    planner.iterations=2 planner.elites=5 planner.horizon=4
""".split()
SPEC = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0")
MIX = ("planner.proposals=actor", "planner.terminal_value=critic")
CHOICES = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0", discrete=True
)

SEVERAL = replace(CHOICES, groups=(1,) * A)


def settings_of(*overrides: str) -> Settings:
    return config.override(config.load("planet", ["behavior=v3", *SIZE]), overrides)


def agent_of(*overrides: str, spec: EnvSpec = SPEC, **options: object) -> Agent:
    settings = settings_of(*overrides)
    model = untrained_model(settings, spec)
    return Agent.build(
        settings, spec, model, untrained_behavior(settings, model), device=CPU, **options
    )


def decide(agent: Agent, batch: int = B, rngs: Sequence[torch.Generator] | None = None) -> Plan:
    speed = torch.arange(3.0).expand(B, 3)[:batch] * torch.arange(1.0, 1 + batch)[:, None]
    carry = agent.observe(
        agent.initial(batch),
        {"speed": speed},
        torch.zeros(batch, A),
        torch.ones(batch, dtype=torch.bool),
    )
    return agent.decide(carry, rngs=rngs)[0]


def seeded(seeds: Iterable[int]) -> list[torch.Generator]:
    return [generator(seed, CPU) for seed in seeds]


@pytest.mark.parametrize("spec", [SPEC, CHOICES], ids=["numbers", "choices"])
def test_the_actor_decides_by_its_mode_and_explores_by_drawing(spec: EnvSpec) -> None:
    quiet, same = (
        decide(agent_of("planner.name=actor", "rssm.filter_by=mode", spec=spec, seed=s))
        for s in (0, 1)
    )
    assert torch.equal(quiet.action, same.action)
    assert quiet.sequence.shape == (B, 1, A) and quiet.value.shape == (B,)
    drawn = [
        decide(agent_of("planner.name=actor", "planner.act_by=draw", spec=spec, seed=s)).action
        for s in range(9)
    ]
    assert any(not torch.equal(action, drawn[0]) for action in drawn)
    assert all((action.abs() <= 1).all() for action in drawn)
    if spec.discrete:
        assert all(torch.equal(action.sum(-1), torch.ones(B)) for action in drawn)


def test_rows_are_decided_as_if_alone() -> None:
    agent = agent_of("planner.name=actor", "rssm.filter_by=mode")
    torch.testing.assert_close(decide(agent).action[:1], decide(agent, 1).action, rtol=0, atol=1e-6)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        (name, spec)
        for spec in (SPEC, CHOICES, SEVERAL)
        for name in ("cem", "icem", "mppi", "shooting")
    ],
)
def test_every_planner_takes_proposals_and_the_critics_value(
    name: str, spec: EnvSpec, latent: str
) -> None:
    """With particles too; rows that draw from generators of their own are decided as if alone."""
    options = (
        f"planner.name={name}",
        f"rssm.latent={latent}",
        "rssm.classes=3",
        "rssm.filter_by=mode",
    )
    mixed = agent_of(*options, *MIX, "planner.particles=2", spec=spec)
    together = decide(mixed, rngs=seeded(range(B)))
    assert together.sequence.shape == (B, 4, A) and together.value.isfinite().all()
    if spec.discrete:
        assert torch.equal(together.sequence.sum(-1), torch.full((B, 4), float(len(spec.groups))))
    else:
        assert not torch.equal(
            together.action, decide(agent_of(*options, spec=spec), rngs=seeded(range(B))).action
        )
    torch.testing.assert_close(
        decide(mixed, 1, seeded([0])).sequence, together.sequence[:1], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("fast", ["true", "false"])
def test_the_mix_decides_in_half_precision_too(precision: str, fast: str) -> None:
    plan = decide(agent_of(*MIX, f"train.precision={precision}", f"planner.fast={fast}"))
    assert plan.action.dtype == plan.value.dtype == torch.float32 and plan.value.isfinite().all()
    assert (plan.action.abs() <= 1).all() and int(plan.diagnostics["nonfinite"].sum()) == 0


@pytest.mark.parametrize("particles", [1, 2])
def test_a_plan_is_worth_its_rewards_and_what_the_critic_says_of_its_end(particles: int) -> None:
    options = (
        "planner.terminal_value=critic",
        "planner.discount=0.9",
        f"planner.particles={particles}",
    )
    settings = settings_of(*options, "rssm.plan_by=mode")
    model = untrained_model(settings, SPEC)
    behavior = untrained_behavior(settings, model)
    agent = Agent.build(settings, SPEC, model, behavior, device=CPU)
    state = State(torch.randn(1, 16, generator=generator(0, CPU)), torch.zeros(1, 4))
    actions = 2 * torch.rand(1, 3, 4, A, generator=generator(1, CPU)) - 1
    with torch.no_grad():
        prepared = agent.prepared
        returns = score(
            prepared.dynamics, prepared.objective, state, actions, None, particles=particles
        )
        states = model.rssm.imagine(
            State(*(part.expand(3, -1) for part in state)), actions[0], None
        )
        rewards = model.predict_reward(states)
        last = behavior.critic(model.rssm.feat(states)[:, -1])
        expected = (rewards * 0.9 ** torch.arange(4)).sum(1) + 0.9**4 * last
    torch.testing.assert_close(returns[0], expected, rtol=1e-4, atol=1e-5)


def test_the_actor_keeps_the_contract_of_planners() -> None:
    settings = settings_of("behavior.units=4")
    own = Behavior(settings, SPEC, 2)
    for act_by in ("mean", "draw"):
        planner = ActorPlanner(
            PlannerSettings(name="actor", act_by=act_by), own, lambda state: state["x"]
        )
        check_planner(planner, A)


def test_the_actor_acts_in_a_control_loop() -> None:
    agent = agent_of("planner.name=actor", "rssm.filter_by=mode")
    with ControlLoop(agent, clock=SimulatedTime(0.01), delay=1) as loop:
        for tick in range(4):
            loop.tick({"speed": np.full(3, 0.1 * tick, np.float32)})
            loop.sleep()
        assert loop.counts["plan"] == 3 and loop.counts["start"] == 1 and loop.missed == 0
        assert loop.plan.sequence.shape == (1, 1, A)
    with pytest.raises(PlanetError, match="execute 2: must be 1 to planner.horizon = 1 ticks"):
        ControlLoop(agent, execute=2)


def test_proposals_are_what_the_actor_would_do() -> None:
    """The first of each row is the actor's own way through the model, all by modes."""
    settings = settings_of("rssm.plan_by=mode")
    model = untrained_model(settings, SPEC)
    behavior = untrained_behavior(settings, model)
    state = State(torch.randn(B, 16, generator=generator(0, CPU)), torch.zeros(B, 4))
    proposals = ActorProposals(model, behavior, 3, 4)(state, generator(1, CPU))
    assert proposals.shape == (B, 3, 4, A) and (proposals.abs() <= 1).all()
    with torch.no_grad():
        for step in range(4):
            action = behavior.actor(model.rssm.feat(state)).mode
            torch.testing.assert_close(proposals[:, 0, step], action)
            state = model.rssm.imagine_step(state, action, None)
    assert not torch.equal(proposals[:, 1], proposals[:, 2])


def test_a_share_of_the_candidates_is_the_actors() -> None:
    assert agent_of("planner.proposals=actor", "planner.proposal_share=0.25").proposals.count == 5
    assert agent_of("planner.proposals=actor", "planner.proposal_share=1").proposals.count == 20


def test_a_planner_without_a_place_for_proposals_says_so() -> None:
    few = ("planner.candidates=2", "planner.elites=1", "planner.reuse=1")
    with pytest.raises(
        PlanetError, match="planner.proposals = 'actor': icem has no place for them"
    ):
        agent_of("planner.name=icem", "planner.proposals=actor", *few)


def test_the_value_beyond_the_horizon_is_the_critics_by_its_own_discount() -> None:
    agent = agent_of("planner.terminal_value=critic")
    objective = agent.prepared.objective
    assert isinstance(
        objective.terminal_value, CriticValue
    ) and objective.discount == pytest.approx(0.997)


@pytest.mark.parametrize(
    "asked", ["planner.name=actor", "planner.proposals=actor", "planner.terminal_value=critic"]
)
def test_a_run_without_an_actor_says_how_to_train_one(asked: str) -> None:
    key, _, value = asked.partition("=")
    line = (
        f"{key} = '{value}': this run learns no actor and critic; train one that does: "
        "planet train .* -s behavior=v3"
    )
    with pytest.raises(PlanetError, match=line):
        config.load("planet", [asked])
    settings = config.load("planet", SIZE)
    settings = settings.model_copy(
        update={"planner": PlannerSettings(**{key.partition(".")[2]: value})}
    )
    with pytest.raises(PlanetError, match=line):
        Agent.build(settings, SPEC, untrained_model(settings, SPEC), device=CPU)


@pytest.mark.parametrize("asked", MIX)
def test_an_actor_that_decides_alone_has_nobody_to_help(asked: str) -> None:
    key, _, value = asked.partition("=")
    line = (
        f"{key} = '{value}': planner.name = 'actor' decides without a search; set {key}=none, "
        "or planner.name=cem"
    )
    with pytest.raises(PlanetError, match=line):
        settings_of("planner.name=actor", asked)
    with pytest.raises(
        PlanetError, match="set planner.proposals=none and planner.terminal_value=none, or"
    ):
        settings_of("planner.name=actor", *MIX)


def test_an_actor_is_not_made_of_settings_alone() -> None:
    with pytest.raises(PlanetError, match="planner.name = 'actor': it is learned, not searched"):
        planner_from_settings(PlannerSettings(name="actor"), A)


def test_an_unknown_objective_or_recipe_is_refused() -> None:
    with pytest.raises(
        PlanetError,
        match="behavior.objective = 'ppo': must be 'auto', 'dynamics', 'reinforce'",
    ):
        config.load("planet", ["behavior.objective=ppo"])
    with pytest.raises(
        PlanetError, match="behavior.name = 'v4': must be 'none', 'v1', 'v2' or 'v3'"
    ):
        config.load("planet", ["behavior=v4"])
