import string

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from planet_rssm.envs.observer import Observer
from planet_rssm.envs.spaces import Choice, Numbers, action_map
from planet_rssm.errors import PlanetError

picture = spaces.Box(0, 255, (24, 20, 3), np.uint8)
place = spaces.Box(-1, 1, (2, 2))


def refusal(act, *arguments):
    with pytest.raises(PlanetError) as caught:
        act("gym/X-v0", *arguments)
    assert "\n" not in str(caught.value) and "gym/X-v0" in str(caught.value)
    return str(caught.value)


def test_numbers_reach_their_bounds():
    low, high = np.array([[0.1, -2], [-5, 3]]), np.array([[0.3, 6], [-1, 3]])
    for kind in (np.float32, np.float64):
        space = spaces.Box(low.astype(kind), high.astype(kind), dtype=kind)
        numbers = action_map("x", space)
        assert isinstance(numbers, Numbers) and (numbers.size, numbers.discrete) == (4, False)
        for share, bound in ((-1, space.low), (1, space.high), (-7, space.low), (0, (space.low + space.high) / 2)):
            value = numbers(np.full(4, share, np.float32))
            assert space.contains(value)
            np.testing.assert_allclose(value, bound, rtol=1e-6)


def test_numbers_without_bounds_stay_and_are_told(caplog):
    numbers = action_map("gym/X-v0", spaces.Box(np.array([-np.inf, 0]), np.array([np.inf, 4]), dtype=np.float64))
    np.testing.assert_allclose(numbers(np.array([0.25, 0.5])), [0.25, 3])
    assert caplog.messages == ["gym/X-v0: 1 of its 2 actions have no bounds and get [-1, 1]"]


def test_choices_begin_where_the_space_does():
    choice = action_map("x", spaces.Discrete(4, start=10))
    assert isinstance(choice, Choice) and (choice.size, choice.discrete) == (4, True)
    assert [choice(row) for row in np.eye(4, dtype=np.float32)] == [10, 11, 12, 13]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (spaces.Box(0, np.inf, (2,)), "bounded on one side"),
        (spaces.Box(0, 5, (2,), np.int32), "whole numbers"),
        (spaces.Box(0, 1, (0,)), "takes no actions"),
        (
            spaces.MultiDiscrete([2, 3]),
            "must be a Box or Discrete; give as env.id=module:Class a wrapper of your own with one",
        ),
        (spaces.Dict({"a": place}), "must be a Box or Discrete"),
        (spaces.Tuple((place,)), "must be a Box or Discrete"),
    ],
)
def test_actions_that_are_neither_are_refused(space, told):
    assert told in refusal(action_map, space)


def _box(one, other, shape, kind):
    return spaces.Box(min(one, other), max(one, other), shape, kind)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
floats = st.builds(
    _box,
    st.sampled_from([-np.inf, -1e9]) | st.floats(-1e3, 1e3),
    st.sampled_from([np.inf, 1e9]) | st.floats(-1e3, 1e3),
    shapes,
    st.sampled_from([np.float32, np.float64]),
)
wholes = st.builds(
    _box, st.sampled_from([0, 3, 255]), st.sampled_from([0, 5, 255]), shapes, st.sampled_from([np.int64, np.uint8])
)
leaves = st.one_of(
    floats,
    wholes,
    st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-3, 3)),
    st.builds(spaces.MultiBinary, st.integers(1, 5)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.sampled_from([picture, spaces.Box(0, 255, (16, 17), np.uint8), spaces.Text(4), spaces.Sequence(place)]),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.text(string.ascii_letters + ".", min_size=1, max_size=3), inner, max_size=3).map(
            spaces.Dict
        ),
    ),
    max_leaves=5,
)


@given(anything, st.sampled_from(["pixels", "vectors", "both"]), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_space_is_observed_as_told_or_refused(space, observe, seed):
    try:
        observer = Observer("gym/X-v0", space, observe, 32)
    except PlanetError as error:
        assert "\n" not in str(error)
        return
    space.seed(seed)
    frame = np.zeros((5, 5, 3), np.uint8) if observer.draws else None
    for seen in (observer(sample := space.sample(), frame), observer.blind(sample)):
        assert {key: (value.shape, str(value.dtype)) for key, value in seen.items()} == observer.spec
        assert seen


@given(anything, st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_action_space_is_acted_in_or_refused(space, seed):
    try:
        act = action_map("gym/X-v0", space)
    except PlanetError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.Discrete)
    for action in np.random.default_rng(seed).uniform(-1.2, 1.2, (3, act.size)).astype(np.float32):
        assert space.contains(act(action))
