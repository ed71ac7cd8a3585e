"""The actor in the planner's place and beside it: what it decides, and what is refused."""

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.behavior import ActorProposals, CriticValue, untrained_behavior
from planet_rssm.config import PlannerSettings, Settings
from planet_rssm.device import generator
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.errors import PlanetError
from planet_rssm.planners import planner_from_settings
from planet_rssm.types import State
from planet_rssm.world_model import untrained_model

B, A, CPU = 3, 2, torch.device("cpu")
SIZE = """
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=8 model.reward_units=8 behavior.units=8
    behavior.actor_outscale=3 behavior.critic_outscale=1 planner.candidates=20 planner.iterations=2 planner.elites=5
    planner.horizon=4
""".split()
SPEC = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0")
CHOICES = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0", discrete=True)


def settings_of(*overrides: str) -> Settings:
    return config.load("planet", ["behavior=v3", *SIZE, *overrides])


def agent_of(*overrides: str, spec: EnvSpec = SPEC, **options: object) -> Agent:
    settings = settings_of(*overrides)
    model = untrained_model(settings, spec)
    return Agent.build(settings, spec, model, untrained_behavior(settings, model), device=CPU, **options)


def decide(agent: Agent, batch: int = B) -> torch.Tensor:
    seen = {"speed": torch.arange(3.0).expand(B, 3)[:batch] * torch.arange(1.0, 1 + batch)[:, None]}
    carry = agent.initial(batch)
    return agent.act(carry, seen, torch.zeros(batch, A), torch.ones(batch, dtype=torch.bool))[0]


@pytest.mark.parametrize("spec", [SPEC, CHOICES], ids=["numbers", "choices"])
def test_the_actor_decides_by_its_mode_and_explores_by_drawing(spec: EnvSpec) -> None:
    quiet, same = (decide(agent_of("planner.name=actor", "rssm.filter_by=mode", spec=spec, seed=s)) for s in (0, 1))
    assert torch.equal(quiet.action, same.action)
    assert quiet.sequence.shape == (B, 1, A) and quiet.value.shape == (B,)
    drawn = [decide(agent_of("planner.name=actor", "planner.act_by=draw", spec=spec, seed=s)).action for s in range(9)]
    assert any(not torch.equal(action, drawn[0]) for action in drawn)
    assert all((action.abs() <= 1).all() for action in drawn)
    if spec.discrete:
        assert all(torch.equal(action.sum(-1), torch.ones(B)) for action in drawn)


def test_rows_are_decided_as_if_alone() -> None:
    agent = agent_of("planner.name=actor", "rssm.filter_by=mode")
    torch.testing.assert_close(decide(agent).action[:1], decide(agent, 1).action, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
def test_every_planner_takes_proposals_and_the_critics_value(name: str) -> None:
    mixed = agent_of(f"planner.name={name}", "planner.proposals=actor", "planner.terminal_value=critic")
    alone = agent_of(f"planner.name={name}")
    assert decide(mixed).sequence.shape == (B, 4, A)
    assert not torch.equal(decide(mixed).action, decide(alone).action)


def test_proposals_are_what_the_actor_would_do() -> None:
    """The first of each row is the actor's own way through the model, all by modes."""
    settings = settings_of("rssm.plan_by=mode")
    model = untrained_model(settings, SPEC)
    behavior = untrained_behavior(settings, model)
    state = State(torch.randn(B, 16, generator=generator(0, CPU)), torch.zeros(B, 4))
    found = ActorProposals(model, behavior, 3, 4)(state, generator(1, CPU))
    assert found.shape == (B, 3, 4, A) and (found.abs() <= 1).all()
    with torch.no_grad():
        for step in range(4):
            action = behavior.actor(model.rssm.feat(state)).mode
            torch.testing.assert_close(found[:, 0, step], action)
            state = model.rssm.imagine_step(state, action, None)
    assert not torch.equal(found[:, 1], found[:, 2])


def test_a_share_of_the_candidates_is_the_actors() -> None:
    assert agent_of("planner.proposals=actor", "planner.proposal_share=0.25")._proposals.count == 5
    assert agent_of("planner.proposals=actor", "planner.proposal_share=1")._proposals.count == 20


def test_the_value_beyond_the_horizon_is_the_critics_by_its_own_discount() -> None:
    agent = agent_of("planner.terminal_value=critic")
    objective = agent.session.objective
    assert isinstance(objective.terminal_value, CriticValue) and objective.discount == pytest.approx(0.997)


@pytest.mark.parametrize("asked", ["planner.name=actor", "planner.proposals=actor", "planner.terminal_value=critic"])
def test_a_run_without_an_actor_says_how_to_train_one(asked: str) -> None:
    key, _, value = asked.partition("=")
    line = (
        f"{key} = '{value}': this run learns no actor and critic; train one that does: planet train .* -s behavior=v3"
    )
    with pytest.raises(PlanetError, match=line):
        config.load("planet", [asked])
    settings = config.load("planet", SIZE)
    settings = settings.model_copy(update={"planner": PlannerSettings(**{key.partition(".")[2]: value})})
    with pytest.raises(PlanetError, match=line):
        Agent.build(settings, SPEC, untrained_model(settings, SPEC), device=CPU)


def test_an_actor_is_not_made_of_settings_alone() -> None:
    with pytest.raises(PlanetError, match="planner.name = 'actor': it is learned, not searched"):
        planner_from_settings(PlannerSettings(name="actor"), A)


def test_an_unknown_objective_or_recipe_is_refused() -> None:
    with pytest.raises(
        PlanetError, match="behavior.objective = 'ppo': input should be 'auto', 'dynamics', 'reinforce'"
    ):
        config.load("planet", ["behavior.objective=ppo"])
    with pytest.raises(PlanetError, match="behavior.name = 'v4': input should be 'none', 'v1', 'v2' or 'v3'"):
        config.load("planet", ["behavior=v4"])
