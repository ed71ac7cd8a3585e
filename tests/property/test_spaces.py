"""Gymnasium environments of any spaces: refused in one line when they are made, or they work."""

import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.make import make

DTYPES = st.sampled_from(
    [np.uint8, np.int8, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
)
SHAPES = st.lists(st.integers(0, 5), max_size=4) | st.sampled_from(
    [[40, 30, 3], [3, 40, 30], [40, 30], [4, 40, 30]]
)


@st.composite
def boxes(draw):
    """Boxes of any rank, number type and bounds: none, one-sided, of a point, very large."""
    dtype, shape = np.dtype(draw(DTYPES)), tuple(draw(SHAPES))
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        low = draw(st.sampled_from([-np.inf, float(limits.min), -1.0, 0.0]) | st.floats(-10, 10))
        high = draw(st.sampled_from([np.inf, float(limits.max), 1.0, 0.0]) | st.floats(-10, 10))
    else:
        least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if dtype == np.int64:  # gymnasium cannot draw a sample from all of them
            least, most = -(2**62), 2**62 - 1
        low, high = draw(st.sampled_from([least, 0])), draw(st.sampled_from([most, most, 1]))
    low, high = sorted([low, high])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium warns of bounds that it rounds
        return spaces.Box(
            np.full(shape, low, dtype), np.full(shape, high, dtype), shape, dtype.type
        )


PARTS = st.sampled_from(
    [spaces.MultiDiscrete([2, 3], start=[1, 0]), spaces.MultiBinary(2), spaces.Discrete(3)]
)
PLAIN = st.builds(spaces.Discrete, st.integers(1, 9), start=st.integers(-5, 5)) | st.builds(
    lambda low, width, size: spaces.Box(np.float32(low), np.float32(low + width), (size,)),
    st.floats(-5, 5, width=16),
    st.floats(0, 8, width=16),
    st.integers(1, 3),
)
LEAVES = (
    boxes()
    | boxes()
    | st.builds(spaces.Discrete, st.integers(1, 9), start=st.integers(-5, 5))
    | st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete)
    | st.integers(1, 4).map(spaces.MultiBinary)
    | st.integers(1, 4).map(spaces.Text)
    | st.just(spaces.Sequence(spaces.Discrete(2)))
    | st.just(spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)]))
)
NAMES = st.text(max_size=4) | st.sampled_from(["image", "vector", "a.b", "<action>"])
SPACES = LEAVES | st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=3).map(spaces.Dict)
        | st.lists(inner, max_size=2).map(spaces.Tuple)
    ),
    max_leaves=4,
)


def environment(observed, done, frame):
    """Return an environment class of two spaces that shows samples, and checks what it is given."""

    class Random(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"]} if frame else {}
        observation_space, action_space = observed, done

        def __init__(self, render_mode=None):
            self.render_mode = render_mode
            self.left = 0

        def _sample(self):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return observed.sample()

        def reset(self, *, seed=None, options=None):
            observed.seed(seed)
            self.left = 3
            return self._sample(), {}

        def step(self, action):
            assert done.contains(action), (done, action)
            self.left -= 1
            return self._sample(), 1.0, self.left == 0, False, {}

        def render(self):
            return np.full((20, 30, 3), 7, np.uint8)

    return Random


@pytest.fixture(scope="module")
def module():
    """A module for the class of the case."""
    sys.modules["property_environments"] = made = types.ModuleType("property_environments")
    yield made
    del sys.modules["property_environments"]


def play(env, rng):
    """Play an episode of extreme and random actions, and check all results against the spec."""
    spec = env.env_spec
    observation, _ = env.reset(seed=3)
    check_observation(spec, observation)
    for value in (-1, 1, None):
        action = (
            rng.uniform(-1, 1, spec.action_size)
            if value is None
            else np.full(spec.action_size, value)
        )
        observation, reward, terminated, truncated, info = env.step(action.astype(np.float32))
        check_observation(spec, observation)
        assert (reward, truncated, info["env_steps"]) == (1.0, False, 1)
    assert terminated


def check_observation(spec, observation):
    assert {
        key: (array.shape, array.dtype.name) for key, array in observation.items()
    } == spec.observation
    assert all(np.isfinite(array).all() for array in observation.values())


DONE = (
    PLAIN
    | LEAVES
    | st.dictionaries(st.sampled_from(["a", "b"]), PARTS | PLAIN, max_size=2).map(spaces.Dict)
)


@given(PLAIN | SPACES, DONE, st.booleans(), st.sampled_from(["pixels", "vectors", "both"]))
def test_an_environment_of_any_spaces_is_refused_or_works(
    module, refused, observed, done, frame, observe
):
    module.Env = environment(observed, done, frame)
    with refused() as errors:
        env = make(
            registry.resolve(EnvSettings(id="property_environments:Env", observe=observe, size=32))
        )
    if errors:
        return
    assert env.env_spec.action_size >= 1 and env.env_spec.observation
    assert type(env.env_spec).from_json(env.env_spec.to_json()) == env.env_spec
    try:
        play(env, np.random.default_rng(0))
    except (
        ValueError
    ) as error:  # a sample beyond float32, which ends a worker and is reported there
        assert "has NaN or infinity in it" in str(error)
