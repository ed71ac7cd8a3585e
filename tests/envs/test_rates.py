"""Simulated time: how long a step is and when episodes end, against their authors' figures."""

import gymnasium
import numpy as np
import pytest

from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.gym_env import GymEnv
from planet_rssm.envs.rates import own_limit, step_seconds
from planet_rssm.envs.spec import EnvSpec


class Made(gymnasium.Env):
    """Has what a test gives it."""

    action_space = observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Ale:
    """What ale-py's interface says, 0.12.1."""

    def __init__(self, frames=108_000):
        self.frames = frames

    def getInt(self, name):  # noqa: N802
        assert name == "max_num_frames_per_episode"
        return self.frames


class Doom:
    def __init__(self, tics=300):
        self.get_episode_timeout = lambda: tics

    def get_ticrate(self):
        return 35


class Robot:
    def control_timestep(self):
        return 0.02


class MjModel:
    class opt:  # noqa: N801
        timestep = 0.002


class Broken(gymnasium.Env):
    metadata = {"render_fps": 20}

    @property
    def dt(self):
        raise RuntimeError("not yet")


@pytest.mark.parametrize(
    ("task", "seconds", "source"),
    [
        ("Pendulum-v1", 0.05, "dt"),
        ("Acrobot-v1", 0.2, "dt"),
        ("CartPole-v1", 0.02, "tau"),
        ("Humanoid-v5", 0.015, "timestep x frame_skip"),
        ("MountainCar-v0", 1 / 30, "render_fps"),
    ],
)
def test_the_time_that_gymnasiums_own_simulate(task, seconds, source):
    if task == "Humanoid-v5":
        pytest.importorskip("imageio")
    figure = step_seconds(gymnasium.make(task))
    assert (figure.value, figure.source) == (pytest.approx(seconds), source)


@pytest.mark.parametrize(
    ("env", "seconds", "source"),
    [
        (Made(ale=Ale(), _frameskip=4, metadata={"render_fps": 30}), 4 / 60, "frameskip"),
        (Made(ale=Ale(), _frameskip=(2, 5)), 3 / 60, "frameskip"),
        (Made(control_hz=10, dt=0.01), 0.1, "control_hz"),  # gym-pusht
        (
            Made(config={"policy_frequency": 1, "simulation_frequency": 15}),
            1.0,
            "policy_frequency",
        ),  # highway-env
        (
            Made(game=Doom(), frame_skip=4, metadata={"render_fps": 35}),
            4 / 35,
            "frame_skip / ticrate",
        ),
        (Made(_env=Robot()), 0.02, "control_timestep"),  # shimmy, gym-aloha
        (
            Made(point=Made(model=MjModel(), frame_skip=5), dt=7),
            0.01,
            "timestep x frame_skip",
        ),  # PointMaze
        (Made(sim=Made(dt=0.04)), 0.04, "dt"),  # panda-gym
        (Made(dt="fast", metadata={"render_fps": 25}), 0.04, "render_fps"),
        (Made(dt=-1.0, metadata={}), 1 / 30, "default"),
        (Broken(), 0.05, "render_fps"),
    ],
)
def test_the_time_that_others_simulate(env, seconds, source):
    figure = step_seconds(env)
    assert (figure.value, figure.source) == (pytest.approx(seconds), source)


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        (Made(ale=Ale(), _frameskip=4), 27_000),
        (Made(ale=Ale(), _frameskip=(2, 5)), 54_000),
        (Made(ale=Ale(0), _frameskip=4), None),
        (Made(max_steps=1080), 1080),  # minigrid
        (Made(game=Doom(), frame_skip=4), 75),
        (Made(game=Doom(0), frame_skip=1), None),
        (Made(config={"policy_frequency": 5, "duration": 100}), 500),  # highway-env, in seconds
        (Made(config={"policy_frequency": 1}), None),
        (Made(max_episode_steps=True), None),
        (Made(), None),
    ],
)
def test_the_end_that_an_environment_has_by_itself(env, limit):
    assert own_limit(env) == limit


def spec_of(task, **more):
    return GymEnv(registry.resolve(EnvSettings(id=task, observe="vectors", **more))).env_spec


def test_the_source_of_each_figure_is_in_the_spec(homemade):
    with homemade.open("a") as file:
        file.write("\n\nclass Long(Drift):\n    max_steps = 3000\n    dt = 0.5\n")
    spec = spec_of("homemade:Long", action_repeat=2)
    assert spec.timing() == {
        "time_limit": {"env_steps": 3000, "from": "environment"},
        "control_interval": {"seconds": 1.0, "from": "dt"},
    }
    assert spec_of("homemade:Long", time_limit=50).timing()["time_limit"] == {
        "env_steps": 50,
        "from": "setting",
    }
    assert spec_of("homemade:Long", time_limit=5000).episode_steps == 3000
    assert spec_of("homemade:Drift").timing()["time_limit"] == {
        "env_steps": 1000,
        "from": "default",
    }
    dmc = DMControlEnv(EnvSettings(id="dmc/walker-walk", renderer="none", action_repeat=2)).env_spec
    assert dmc.timing() == {
        "time_limit": {"env_steps": 1000, "from": "environment"},
        "control_interval": {"seconds": 0.05, "from": "control_timestep"},
    }


def test_a_spec_of_an_earlier_version_is_the_same_environment():
    spec = EnvSpec(
        "gym/Pendulum-v1", {"vector": ((3,), "float32")}, 1, 1, 0.05, 200, "none", "gymnasium 1.4.0"
    )
    new = EnvSpec(**vars(spec) | {"interval_from": "dt", "limit_from": "environment"})
    old = {key: value for key, value in spec.to_json().items() if not key.endswith("_from")} | {
        "control_interval": 1 / 30
    }
    read = EnvSpec.from_json(old)
    assert (read.interval_from, read.limit_from) == ("", "")
    assert (
        read.differs(new) is None
        and read.differs(EnvSpec(**vars(new) | {"episode_steps": 5})) == "episode_steps"
    )
