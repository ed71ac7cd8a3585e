"""Goals as observations: plans are worth how near they come in latent space."""

import numpy as np
import pytest
import torch
from PIL import Image

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.agent.goal import GoalDistance, goal_belief, goal_objective
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.goal_image import goal_image
from planet_rssm.planners import CEM, FunctionDynamics
from planet_rssm.types import State
from planet_rssm.world_model import untrained_model

SPEC = EnvSpec("gym/x-v0", {"image": ((32, 32, 3), "uint8")}, 2, 1, 0.1, 50, "own", "test 1")


@pytest.fixture(scope="module")
def agent():
    small = ["rssm.deter=16", "rssm.stoch=4", "planner.name=cem", "behavior=none"]
    small += ["planner.horizon=3", "planner.candidates=20"]
    settings = config.load("quickstart", [*small, "env.size=32", "planner.elites=4"])
    model = untrained_model(settings, SPEC)
    return Agent.build(settings, SPEC, model, device=torch.device("cpu"), precision="float32")


def test_a_search_goes_to_the_goal_and_rewards_do_not_count():
    goal = State(torch.tensor([[0.5, -0.3]]), torch.zeros(1, 0))
    dynamics = FunctionDynamics(
        lambda s, a: State(s.deter + a, s.stoch), lambda s, a, n: 100 * n.deter[:, 0]
    )
    planner = CEM(PlannerSettings(horizon=2, candidates=200, iterations=8, elites=20), 2)
    start = State(torch.zeros(1, 2), torch.zeros(1, 0))
    rng = torch.Generator().manual_seed(0)
    first = torch.tensor([True])
    objective = goal_objective(goal)
    plan, _ = planner.plan(dynamics, objective, start, planner.initial(1), first, rng)
    assert (plan.action - goal.deter).abs().max() < 0.05


def test_the_goal_itself_is_at_no_distance(agent):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    goal = goal_belief(agent.model, {"image": torch.from_numpy(image)[None]})
    distance = GoalDistance(goal)
    assert float(distance.of(goal)) == 0
    other = State(goal.deter + 0.5, goal.stoch)
    assert float(distance.of(other)) == pytest.approx(0.25)


def test_an_agent_towards_a_goal_plans_by_it(agent):
    image = np.full((32, 32, 3), 200, np.uint8)
    towards = agent.towards({"image": image})
    still, first = np.zeros((1, 2), np.float32), np.ones(1, bool)
    observation = {"image": np.zeros((1, 32, 32, 3), np.uint8)}
    plan, _ = towards.act(towards.initial(1), observation, still, first)
    assert float(plan.value) < 0
    assert towards.model is agent.model
    with pytest.raises(PlanetError, match="observation 'image': .*must be uint8"):
        agent.towards({"image": image[:16]})


def test_a_picture_becomes_a_goal_of_the_models_size(tmp_path):
    Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(tmp_path / "goal.png")
    goal = goal_image(tmp_path / "goal.png", SPEC)
    assert np.array_equal(goal["image"], np.full((32, 32, 3), 9, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(PlanetError, match="--goal .*bad.png: not a picture"):
        goal_image(tmp_path / "bad.png", SPEC)
