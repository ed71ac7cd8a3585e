"""What is kept of an environment: one choice is written as it always was, and read as one group."""

import json
from dataclasses import replace

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.choices import from_places, one_hot, places
from planet_rssm.envs.spec import EnvSpec

SPEC = EnvSpec("gym/X-v0", {"vector": ((2,), "float32")}, 5, 1, 0.1, 100, "none", "fake 0")
BEFORE = {  # as files had it when there was one choice at most
    "id": "gym/X-v0",
    "observation": {"vector": [[2], "float32"]},
    "action_size": 5,
    "action_repeat": 1,
    "control_interval": 0.1,
    "episode_steps": 100,
    "renderer": "none",
    "simulator": "fake 0",
    "terminates": False,
}


@pytest.mark.parametrize("discrete", [False, True])
def test_files_of_one_choice_or_of_numbers_are_as_they_were(discrete):
    spec = replace(SPEC, discrete=discrete)
    assert spec.groups == ((5,) if discrete else ())
    assert EnvSpec.from_json(BEFORE | {"discrete": discrete}) == spec
    assert "groups" not in spec.to_json()


def test_groups_are_kept():
    spec = replace(SPEC, discrete=True, groups=(3, 2))
    written = json.loads(json.dumps(spec.to_json()))
    assert (written["discrete"], written["groups"]) == (True, [3, 2]) and EnvSpec.from_json(
        written
    ) == spec
    assert spec.differs(replace(SPEC, discrete=True)) == "groups"


@pytest.mark.parametrize(
    ("discrete", "groups"),
    [(True, [3, 3]), (False, [3, 2]), (True, [5.0]), (True, ["5"]), (True, [6, -1])],
)
def test_groups_that_are_not_the_actions_are_one_line(discrete, groups):
    with pytest.raises(
        PlanetError, match=r"groups.*; read it with the version of planet_rssm that wrote it"
    ):
        EnvSpec.from_json(BEFORE | {"discrete": discrete, "groups": groups})


def test_nothing_is_the_first_choice_of_every_group():
    assert replace(SPEC, discrete=True, groups=(3, 2)).nothing().tolist() == [1, 0, 0, 1, 0]
    assert replace(SPEC, discrete=True).nothing().tolist() == [1, 0, 0, 0, 0]
    assert SPEC.nothing().tolist() == [0] * 5


def test_choices_as_arrays():
    action = np.array([[0.1, 0.3, 0.2, -1, -2], [5, 5, 5, 0, 1]])
    assert places(action, (3, 2)).tolist() == [[1, 0], [0, 1]]
    hot = one_hot(action, (3, 2))
    assert hot.dtype == np.float32 and hot.tolist() == [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]
    assert one_hot(np.zeros((4, 2, 5)), (1, 2, 2)).shape == (4, 2, 5)
    np.testing.assert_array_equal(from_places(places(hot, (3, 2)), (3, 2)), hot)
