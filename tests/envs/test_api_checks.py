"""Environments that return what they must not: one line at first, an accident later."""

import sys
import types

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.api_checks import ContractError, as_flag, as_number
from planet_rssm.envs.gym_env import GymEnv
from planet_rssm.envs.pictures import UndeclaredError
from planet_rssm.envs.pool import EnvPool


class Honest(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Box(-1, 1, (2,))
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, False, False, {}


class OldReset(Honest):
    def reset(self, seed=None, options=None):
        return np.zeros(3, np.float32)


class OldDict(Honest):  # its two keys would be unpacked
    observation_space = spaces.Dict(a=spaces.Box(-1, 1, (1,)), b=spaces.Box(-1, 1, (1,)))

    def reset(self, seed=None, options=None):
        return {"a": np.zeros(1), "b": np.zeros(1)}


class OldTuple(Honest):
    observation_space = spaces.Tuple([spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,))])

    def reset(self, seed=None, options=None):
        return np.zeros(1), np.zeros(1)


class NoSeed(Honest):
    def reset(self):
        return np.zeros(3, np.float32), {}


class OldStep(Honest):
    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, {}


class TwoRewards(Honest):
    def step(self, action):
        return np.zeros(3, np.float32), np.array([1.0, -1.0]), False, False, {}


class NoReward(Honest):
    def step(self, action):
        return np.zeros(3, np.float32), None, False, False, {}


class OddFlag(Honest):
    def step(self, action):
        return np.zeros(3, np.float32), 1.0, "no", False, {}


class OddInfo(Honest):
    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, {}, False


class Wide(Honest):
    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}


class WideLater(Honest):
    at = 1

    def step(self, action):
        answer = super().step(action)
        return (np.zeros(4, np.float32), *answer[1:]) if self.steps > self.at else answer


class WideAtOnce(WideLater):
    at = 0


class RGBA(Honest):
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        return np.zeros((64, 64, 4), np.uint8), {}


class Adapted(gymnasium.Wrapper):
    """An adapter of the user's own, for an environment of the old kind."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(), {}

    def step(self, action):
        observation, reward, done, info = self.env.step(action)
        return observation, reward, done, False, info


class Old(Honest):
    def reset(self):
        return np.zeros(3, np.float32)

    def step(self, action):
        return np.zeros(3, np.float32), np.array([2]), 0, {}


def adapted():
    return gymnasium.wrappers.TimeLimit(Adapted(Old()), 5)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = types.ModuleType("answering")
    vars(made).update(
        {
            name: value
            for name, value in globals().items()
            if isinstance(value, type | types.FunctionType)
        }
    )
    monkeypatch.setitem(sys.modules, "answering", made)


def settings(name, observe="vectors"):
    return registry.resolve(EnvSettings(id=f"answering:{name}", observe=observe, size=32))


RESETS = {
    "OldReset": "reset returned an array of 3, must be (observation, info)",
    "OldDict": "reset returned dict, must be (observation, info)",
    "OldTuple": "reset returned 2 values, must be (observation, info), a dict",
    "Wide": "observation 'vector' has shape [4], its space [3]; "
    "return what observation_space declares",
    "RGBA": "observation 'image' has shape [64, 64, 4], its space [64, 64, 3]",
}
STEPS = {
    "OldStep": "step returned 4 values, must be "
    "(observation, reward, terminated, truncated, info); so Gymnasium",
    "TwoRewards": "reward is an array of 2; make it one number",
    "NoReward": "reward is None; make it one number",
    "OddFlag": "terminated is 'no', must be True or False",
    "OddInfo": "truncated is dict, must be True or False",
    "WideAtOnce": "observation 'vector' has shape [4], its space [3]",
}


@pytest.mark.parametrize(("name", "line"), (RESETS | STEPS).items())
def test_a_first_answer_that_is_not_as_declared_is_one_line(name, line):
    env = GymEnv(settings(name, "pixels" if name == "RGBA" else "vectors"))
    with pytest.raises(ContractError) as caught:
        env.reset(seed=0)
        assert name in STEPS
        env.step(np.zeros(2))
    assert str(caught.value).startswith(f"env.id = 'answering:{name}': {line}")


def test_a_reset_without_a_seed_is_refused_when_it_is_made():
    with pytest.raises(
        PlanetError, match=r"its reset\(\) must be reset\(seed=None, options=None\)"
    ):
        GymEnv(settings("NoSeed"))


def test_a_later_answer_is_an_accident():
    env = GymEnv(settings("WideLater"))
    env.reset(seed=0)
    env.step(np.zeros(2))
    with pytest.raises(UndeclaredError, match=r"has shape \[4\]"):
        env.step(np.zeros(2))


def test_an_adapter_of_the_users_own_is_left_alone():
    env = GymEnv(settings("adapted"))
    assert env.env_spec.episode_steps == 5 and list(env.reset(seed=0)[0]) == ["vector"]
    assert env.step(np.zeros(2))[1:4] == (2.0, False, False)


def test_a_worker_is_started_once(tmp_path, monkeypatch):
    (tmp_path / "answers_badly.py").write_text(
        "import gymnasium\nimport numpy as np\n\n\nclass Env(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(0, 255, (40, 40, 3), np.uint8)\n"
        "    action_space = gymnasium.spaces.Box(-1, 1, (1,))\n\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return np.full((40, 40, 3), 0.5), {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with EnvPool(
        EnvSettings(id="answers_badly:Env", renderer="own", action_repeat=1, size=32), 1
    ) as pool:
        with pytest.raises(
            PlanetError,
            match="'image' is float64 from 0.5 to 0.5, its space has whole numbers from 0",
        ):
            pool.reset({0: 0})
        assert pool.lost == 0 and not pool._workers


def test_a_later_answer_is_reported_in_plain_words(tmp_path, monkeypatch):
    (tmp_path / "answers_worse.py").write_text(
        "import gymnasium\nimport numpy as np\n\n\nclass Env(gymnasium.Env):\n"
        "    action_space = observation_space = gymnasium.spaces.Box(-1, 1, (1,))\n\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        self.t = 0\n        return np.zeros(1), {}\n\n"
        "    def step(self, action):\n        self.t += 1\n"
        "        return np.zeros(1), np.zeros(self.t), False, False, {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with EnvPool(
        EnvSettings(id="answers_worse:Env", observe="vectors", renderer="none"), 1
    ) as pool:
        pool.reset({0: 0})
        lost = [pool.step({0: np.zeros(1)})[0] for _ in range(2)]
    assert [step.lost for step in lost] == [False, True]
    assert lost[1].words == "reward is an array of 2; make it one number"


@pytest.mark.parametrize(
    "reward", [1, 1.0, True, np.float32(1), np.array([1]), np.array(1.0), [1.0]]
)
def test_one_number_in_any_dress(reward):
    assert as_number(reward) == 1.0


@pytest.mark.parametrize("flag", [True, 1, np.True_, np.array([True]), np.int64(1)])
def test_flags_in_any_dress(flag):
    assert as_flag("terminated", flag) is True


@pytest.mark.parametrize(
    "flag", [None, 2, 0.5, "True", [], {}, np.array([True, False]), np.array("yes")]
)
def test_what_is_no_flag(flag):
    with pytest.raises(UndeclaredError, match="^done is .*must be True or False"):
        as_flag("done", flag)


@pytest.mark.parametrize("reward", [None, "1", [1, 2], [[1], [1, 2]], {}, 1j, np.array([])])
def test_what_is_no_number(reward):
    with pytest.raises(UndeclaredError, match="^reward is .*; make it one number"):
        as_number(reward)


@pytest.mark.parametrize(
    ("name", "space", "line"),
    [
        ("observation_space", None, "its observation_space is missing"),
        ("action_space", None, "its action_space is missing"),
        ("action_space", 4, "its action_space is a builtins.int, must be one of gymnasium.spaces"),
    ],
)
def test_an_environment_without_spaces_is_one_line(monkeypatch, name, space, line):
    class Bare(gymnasium.Env):
        observation_space = action_space = spaces.Box(-1, 1, (2,))

    if space is None:
        delattr(Bare, name)
        setattr(Bare, "action_space" if name[0] == "o" else "observation_space", spaces.Discrete(2))
    else:
        setattr(Bare, name, space)
    monkeypatch.setitem(sys.modules, "bare", types.SimpleNamespace(Bare=Bare))
    with pytest.raises(PlanetError, match=line):
        GymEnv(registry.resolve(EnvSettings(id="bare:Bare", observe="vectors")))
