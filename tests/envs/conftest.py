import sys
import textwrap

import pytest

HOMEMADE = '''
import gymnasium
import numpy as np

box = gymnasium.spaces.Box


class Drift(gymnasium.Env):
    """A dot that moves by the sum of the actions, in an image and two vectors; ends beyond 50."""

    metadata = {"render_fps": 10, "render_modes": []}
    eye = box(0, 255, (3, 40, 60), np.uint8)
    place = box(-np.inf, np.inf, (1, 1), np.float64)
    phase = gymnasium.spaces.Discrete(3, start=1)
    observation_space = gymnasium.spaces.Dict({"eye": eye, "place": place, "phase": phase})
    action_space = box(np.array([0, -2]), np.array([1, 6]), dtype=np.float64)
    spec = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.array([[self.np_random.uniform(0, 9)]])
        self.eye = np.zeros((3, 40, 60), np.uint8)
        return self.look(), {}

    def look(self):
        self.eye[:] = 10 + int(4 * min(max(self.place[0, 0], 0), 50))
        return {"eye": self.eye, "place": self.place, "phase": 1 + int(self.place[0, 0]) % 3}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place += action.sum()
        action[:] = 99
        return self.look(), self.place[0], self.place[0, 0] > 50, False, {}


class Tuned(Drift):
    def __init__(self, speed=1.0):
        self.speed = float(speed)

    def step(self, action):
        observation, _, *ends = super().step(action)
        return observation, self.speed, *ends


class Falls(Drift):
    """Raises in step 3."""

    def step(self, action):
        if self.place[0, 0] > 9:
            raise RuntimeError("fell\\n   over")
        self.place += 5
        return self.look(), 0.0, False, False, {}


class Blurs(Drift):
    """Is nowhere after its first step."""

    def step(self, action):
        return {"eye": self.eye, "place": np.array([[np.nan]]), "phase": 1}, 0.0, False, False, {}


class Born(Drift):
    def __init__(self):
        raise OSError("no licence\\nfound")


class Mute(Drift):
    def __init__(self):
        assert self.action_space is None


class Wants(Drift):
    def __init__(self, goal, pace, *, mood=None):
        if mood:
            (lambda x: x)()


class Left(Drift):
    def __init__(self):
        raise SystemExit("no licence, giving up")


class Framed(Drift):
    """Shows four channels and draws nothing."""

    observation_space = box(0, 255, (64, 64, 4), np.uint8)


class Loud(Drift):
    observation_space = box(-1, 1, (2,))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def look(self):
        return np.zeros(2, np.float32)

    def render(self):
        return np.full((20, 40, 3), 200, np.uint8)


class Bare(Loud):
    metadata = {}

    def __init__(self):
        pass


class Dark(Loud):
    def render(self):
        raise RuntimeError("no display")


def factory():
    return gymnasium.wrappers.TimeLimit(Drift(), 7)


def number():
    return 5


gymnasium.register("Drift-v3", Drift, max_episode_steps=12)
'''


@pytest.fixture
def homemade(tmp_path, monkeypatch):
    """A module of the user's in the current folder."""
    (tmp_path / "homemade.py").write_text(textwrap.dedent(HOMEMADE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "homemade.py"
    sys.modules.pop("homemade", None)
    sys.modules.get("gymnasium.envs.registration").registry.pop("Drift-v3", None)
