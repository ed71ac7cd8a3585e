"""The constant actions that a return is compared with."""

import itertools
from dataclasses import replace

import numpy as np

from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.blind_baselines import constant_actions, constant_choices

SPEC = EnvSpec("gym/X-v0", {"vector": ((2,), "float32")}, 5, 1, 0.1, 100, "none", "fake 0")


def test_all_constant_choices_are_tried_while_they_are_few():
    nothing, constants = constant_actions(replace(SPEC, discrete=True))
    assert nothing.tolist() == [1, 0, 0, 0, 0] and list(constants) == [
        f"choice {n}" for n in range(5)
    ]
    np.testing.assert_array_equal(np.stack(list(constants.values())), np.eye(5))
    nothing, constants = constant_actions(replace(SPEC, discrete=True, groups=(3, 2)))
    assert list(constants) == [
        "choice 0 0",
        "choice 0 1",
        "choice 1 0",
        "choice 1 1",
        "choice 2 0",
        "choice 2 1",
    ]
    assert constants["choice 2 1"].tolist() == [0, 0, 1, 0, 1] and nothing.tolist() == [
        1,
        0,
        0,
        1,
        0,
    ]
    assert constant_choices((4, 4, 4)) == list(itertools.product(range(4), repeat=3))


def test_of_many_choices_shares_of_the_range_and_one_group_at_a_time_are_tried():
    chosen = constant_choices((2,) * 7)
    assert (
        len(chosen) == len(set(chosen)) == 9
    )  # all the first, all the second, each group's second alone
    assert (0,) * 7 in chosen and (1,) * 7 in chosen and (0, 0, 1, 0, 0, 0, 0) in chosen
    shares = constant_choices((121, 150))
    assert len(shares) == 11 and shares[0] == (0, 0) and shares[-1] == (120, 149)
    assert constant_actions(SPEC)[1]["constant +0.4"].tolist() == [np.float32(0.4)] * 5
