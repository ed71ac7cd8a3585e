import string

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.choices import one_hot
from planet_rssm.envs.observer import Observer
from planet_rssm.envs.spaces import Choice, Joint, Numbers, action_map

picture = spaces.Box(0, 255, (24, 20, 3), np.uint8)
place = spaces.Box(-1, 1, (2, 2))


def refusal(act, *arguments):
    with pytest.raises(PlanetError) as caught:
        act("gym/X-v0", *arguments)
    assert "\n" not in str(caught.value) and "gym/X-v0" in str(caught.value)
    return str(caught.value)


def many(space, action):
    """Return one action as Minari keeps T: every leaf has a time axis."""
    if isinstance(space, spaces.Dict):
        return {key: many(part, action[key]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(many(part, one) for part, one in zip(space, action, strict=True))
    return np.asarray(action)[None]


@pytest.mark.parametrize("empty", [spaces.Box(-1, 1, (0,)), spaces.MultiDiscrete([])])
def test_a_part_that_takes_nothing_stays_empty(empty):
    for space in (spaces.Dict(arm=place, grip=empty), spaces.Tuple((empty, place))):
        joint = action_map("x", space)
        action = joint(np.array([1, 0, 0, -1], np.float32))
        assert joint.size == 4 and space.contains(action)
        np.testing.assert_array_equal(joint.inverse(many(space, action)), [[1, 0, 0, -1]])
    assert "takes no actions" in refusal(action_map, spaces.Dict(grip=empty))


def test_numbers_reach_their_bounds():
    low, high = np.array([[0.1, -2], [-5, 3]]), np.array([[0.3, 6], [-1, 3]])
    for kind in (np.float32, np.float64):
        space = spaces.Box(low.astype(kind), high.astype(kind), dtype=kind)
        numbers = action_map("x", space)
        assert isinstance(numbers, Numbers) and (numbers.size, numbers.groups) == (4, ())
        for share, bound in (
            (-1, space.low),
            (1, space.high),
            (-7, space.low),
            (0, (space.low + space.high) / 2),
        ):
            value = numbers(np.full(4, share, np.float32))
            assert space.contains(value)
            np.testing.assert_allclose(value, bound, rtol=1e-6)


def test_numbers_without_bounds_stay_and_are_logged(caplog):
    numbers = action_map(
        "gym/X-v0", spaces.Box(np.array([-np.inf, 0]), np.array([np.inf, 4]), dtype=np.float64)
    )
    np.testing.assert_allclose(numbers(np.array([0.25, 0.5])), [0.25, 3])
    assert caplog.messages == ["gym/X-v0: 1 of its 2 actions have no bounds and get [-1, 1]"]


def test_choices_begin_where_the_space_does():
    choice = action_map("x", spaces.Discrete(4, start=10))
    assert isinstance(choice, Choice) and (choice.size, choice.groups) == (4, (4,))
    assert [choice(row) for row in np.eye(4, dtype=np.float32)] == [10, 11, 12, 13]


NESTED = spaces.Dict(
    {
        "arm": spaces.MultiDiscrete(np.array([[2, 3], [1, 4]]), start=np.array([[0, -1], [5, 0]])),
        "grip": spaces.Tuple((spaces.MultiBinary((2, 1)), spaces.Discrete(3, start=7))),
    }
)


def test_every_part_of_a_nested_action_is_a_group_of_choices():
    joint = action_map("x", NESTED)
    assert isinstance(joint, Joint) and joint.groups == (2, 3, 1, 4, 2, 2, 3) and joint.size == 17
    first = joint(np.zeros(17))
    assert first["arm"].tolist() == [[0, -1], [5, 0]] and NESTED.contains(first)
    assert first["grip"][0].tolist() == [[0], [0]] and first["grip"][1] == 7
    last = np.concatenate([np.eye(size)[-1] for size in joint.groups])
    theirs = joint(last)
    assert theirs["arm"].tolist() == [[1, 1], [5, 3]] and theirs["grip"][0].tolist() == [[1], [1]]
    assert theirs["grip"][1] == 9 and NESTED.contains(theirs)
    np.testing.assert_array_equal(joint.inverse(many(NESTED, theirs)), last[None])


def test_one_group_of_many_is_the_same_choice():
    for space in (spaces.MultiDiscrete([4]), spaces.Dict({"a": spaces.Discrete(4)})):
        assert action_map("x", space).groups == action_map("x", spaces.Discrete(4)).groups == (4,)


def test_a_dict_of_boxes_is_a_row_of_numbers():
    space = spaces.Dict({"a": spaces.Box(0, 10, (2,)), "b": spaces.Tuple((place,))})
    joint = action_map("x", space)
    assert (joint.size, joint.groups) == (6, ())
    theirs = joint(np.array([-1, 0.5, 0, 0, 0, 1]))
    np.testing.assert_allclose(theirs["a"], [0, 7.5])
    np.testing.assert_allclose(theirs["b"][0], [[0, 0], [0, 1]])
    assert space.contains(theirs)
    np.testing.assert_allclose(joint.inverse(many(space, theirs)), [[-1, 0.5, 0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("space", "groups"),
    [
        (spaces.Box(-3, 3, (2,), np.int64), (7, 7)),
        (spaces.Box(np.array([[0], [2]]), np.array([[4], [2]]), dtype=np.int32), (5, 1)),
        (spaces.Box(250, 255, (1,), np.uint8), (6,)),
        (spaces.Box(0, 1, (3,), np.bool_), (2, 2, 2)),
    ],
    ids=str,
)
def test_whole_numbers_within_bounds_are_choices(space, groups):
    choice = action_map("x", space)
    assert choice.groups == groups
    for _ in range(20):
        theirs = space.sample()
        ours = choice.inverse(theirs[None])
        assert space.contains(choice(ours[0]))
        np.testing.assert_array_equal(choice(ours[0]), theirs)


def test_what_is_no_choice_is_refused():
    choice = action_map("x", spaces.MultiDiscrete([3, 2], start=[1, 0]))
    with pytest.raises(ValueError, match="^action 4: must be one of 3 from 1 on$"):
        choice.inverse(np.array([[1, 0], [4, 1]]))
    with pytest.raises(ValueError, match="needs shape"):
        choice(np.zeros(4))


@pytest.mark.parametrize(
    ("space", "line"),
    [
        (spaces.Box(0, np.inf, (2,)), "bounded on one side"),
        (spaces.Box(0, 10**6, (2,), np.int32), "2000002 choices in Box, at most 8192 are taken"),
        (spaces.Box(0, 10**6, (2,), np.int32), "a wrapper of your own with fewer, or with floats"),
        (spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64), "choices in Box, at most 8192 are taken"),
        (spaces.Box(0, 1, (0,), np.int32), "takes no actions"),
        (spaces.Box(0, 1, (0,)), "takes no actions"),
        (spaces.Dict({}), "takes no actions"),
        (spaces.Tuple((spaces.Tuple(()),)), "takes no actions"),
        (
            spaces.Text(4),
            "must be made of Box, Discrete, MultiDiscrete or MultiBinary; "
            "give as env.id=module:Class",
        ),
        (spaces.Dict({"a": spaces.Sequence(place)}), "must be made of Box, Discrete"),
        (
            spaces.Dict({"go": place, "on": spaces.Discrete(2)}),
            "mix numbers and choices ('go' numbers, 'on' choices); "
            "give as env.id=module:Class a wrapper of your own with choices only, "
            "a MultiDiscrete of levels in place of each Box, or with numbers only",
        ),
        (spaces.Tuple((spaces.Discrete(2), spaces.Dict({"a": place}))), "(0 choices, 1 numbers)"),
        (spaces.Discrete(18_150), "18150 choices in Discrete, at most 8192 are taken"),
        (spaces.Discrete(18_150), "with several smaller ones, MultiDiscrete([135, 135])"),
        (spaces.Discrete(10**9), "MultiDiscrete([1000, 1000, 1000])"),
        (spaces.MultiBinary(10**9), "2000000000 choices in MultiBinary, at most 8192 are taken"),
        (spaces.MultiDiscrete([5000, 5000]), "10000 choices in MultiDiscrete, at most 8192"),
        (spaces.Tuple((spaces.Discrete(5000),) * 2), "10000 choices in Tuple, at most 8192"),
    ],
)
def test_actions_that_cannot_be_taken_are_refused(space, line):
    assert line in refusal(action_map, space)


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
    _box,
    st.sampled_from([0, 3, 255]),
    st.sampled_from([0, 5, 255]),
    shapes,
    st.sampled_from([np.int64, np.uint8]),
)
leaves = st.one_of(
    floats,
    wholes,
    st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-3, 3)),
    st.builds(spaces.MultiBinary, st.integers(1, 5)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.sampled_from(
        [picture, spaces.Box(0, 255, (16, 17), np.uint8), spaces.Text(4), spaces.Sequence(place)]
    ),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(
            st.text(string.ascii_letters + ".", min_size=1, max_size=3), inner, max_size=3
        ).map(spaces.Dict),
    ),
    max_leaves=5,
)


@given(anything, st.sampled_from(["pixels", "vectors", "both"]), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_space_is_observed_as_specified_or_refused(space, observe, seed):
    try:
        observer = Observer("gym/X-v0", space, observe, 32)
    except PlanetError as error:
        assert "\n" not in str(error)
        return
    space.seed(seed)
    frame = np.zeros((5, 5, 3), np.uint8) if observer.draws else None
    for arrays in (observer(sample := space.sample(), frame), observer.blind(sample)):
        assert {
            key: (value.shape, str(value.dtype)) for key, value in arrays.items()
        } == observer.spec
        assert arrays


@given(anything, st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_action_space_is_acted_in_or_refused(space, seed):
    try:
        act = action_map("gym/X-v0", space)
    except PlanetError as error:
        assert "\n" not in str(error)
        return
    assert not act.groups or sum(act.groups) == act.size
    for action in np.random.default_rng(seed).uniform(-1.2, 1.2, (3, act.size)).astype(np.float32):
        theirs = act(action)
        assert space.contains(theirs)
        if act.groups:
            assert np.array_equal(act.inverse(many(space, theirs))[0], one_hot(action, act.groups))
