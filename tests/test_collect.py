import dataclasses
import logging
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.collect import MAX_LOST, ConstantPolicy, RandomPolicy, collect
from planet_rssm.envs.choices import one_hot
from planet_rssm.envs.spec import EnvSpec


class Step(NamedTuple):
    observation: dict
    reward: float
    terminated: bool
    truncated: bool
    env_steps: int
    lost: bool
    words: str = "a bug"


class FakePool:
    """Shows [seed, step]; seed s ends after 2 + s % 3 steps, terminated if s is even.

    It dies at (seed, step) pairs.
    """

    spec = EnvSpec("fake", {"state": ((2,), "float32")}, 2, 4, 0.1, 40, "none", "fake 0")

    def __init__(self, count, dies=()):
        self.count, self.dies = count, list(dies)
        self.rows, self.resets = {}, []

    def reset(self, seeds):
        self.resets.append(dict(seeds))
        self.rows.update({row: [seed, 0] for row, seed in seeds.items()})
        return {row: self.observe(row) for row in seeds}

    def step(self, actions):
        return {row: self.step_row(row, action) for row, action in actions.items()}

    def step_row(self, row, action):
        assert action.dtype == np.float32 and (abs(action) <= 1).all()
        self.rows[row][1] += 1
        seed, step = self.rows[row]
        if (seed, step) in self.dies:
            self.dies.remove((seed, step))
            return Step({"state": np.zeros(2, np.float32)}, 0.0, False, False, 0, True)
        ends = step == 2 + seed % 3
        return Step(
            self.observe(row),
            float(action[0]),
            ends and seed % 2 == 0,
            ends and seed % 2 == 1,
            4,
            False,
        )

    def observe(self, row):
        return {"state": np.array(self.rows[row], np.float32)}


class Recorder:
    """Acts 0.5 + step and keeps what it was shown."""

    def __init__(self):
        self.calls = []

    def __call__(self, observation, executed_action, is_first):
        self.calls.append((observation["state"].copy(), executed_action.copy(), is_first.copy()))
        return 0.5 + np.repeat(observation["state"][:, 1:], 2, 1)


def played(answers):
    """The control steps in all that the pool answered."""
    return sum(step.env_steps for steps in answers for step in steps.values() if not step.lost)


def files(episodes):
    return {index: episode.to_bytes() for index, episode in episodes}


def test_every_seed_is_played_once_and_recorded_as_executed():
    pool, on_step = FakePool(2), []
    seeds = [10, 11, 12, 13, 14]
    episodes = dict(collect(pool, Recorder(), seeds, on_step.append))
    assert sorted(episodes) == [0, 1, 2, 3, 4]
    for index, seed in enumerate(seeds):
        episode, steps = episodes[index], 2 + seed % 3
        assert (episode.seed, episode.length, episode.env_steps) == (seed, steps + 1, 4 * steps)
        assert EnvSpec.from_json(episode.info["env"]) == pool.spec
        np.testing.assert_array_equal(episode.observation["state"][:, 1], np.arange(steps + 1))
        np.testing.assert_array_equal(
            episode.action[:, 0], [0.0, 0.5, 1.0, 1.0, 1.0][: steps + 1]
        )  # clipped
        np.testing.assert_array_equal(episode.reward, episode.action[:, 0])
        assert bool(episode.is_terminal[-1]) == (seed % 2 == 0) != episode.info["truncated"]
    assert played(on_step) == sum(episode.env_steps for episode in episodes.values())


def test_the_policy_sees_each_row_from_its_first_frame_with_the_executed_action():
    recorder = Recorder()
    list(collect(FakePool(2), recorder, [9, 10, 12]))  # 2, 3 and 2 steps
    states, executed, firsts = (np.stack(values) for values in zip(*recorder.calls, strict=True))
    assert states[:, 0].tolist() == [[9, 0], [9, 1], [12, 0], [12, 1]]
    assert states[:, 1].tolist() == [
        [10, 0],
        [10, 1],
        [10, 2],
        [10, 3],
    ]  # over, so its last observation stays
    assert firsts.T.tolist() == [[True, False, True, False], [True, False, False, False]]
    assert executed[:, 0, 0].tolist() == [0, 0.5, 0, 0.5]
    assert executed[:3, 1, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_random_episodes_do_not_depend_on_the_number_of_rows(count):
    seeds = [3, 1, 4, 10, 5]
    played = files(collect(FakePool(count), RandomPolicy(2, seed=8), seeds))
    assert played == files(collect(FakePool(1), RandomPolicy(2, seed=8), seeds))
    assert played != files(collect(FakePool(1), RandomPolicy(2, seed=9), seeds))


def test_choices_are_executed_and_recorded_as_one_hot():
    pool = FakePool(2)
    pool.spec = dataclasses.replace(pool.spec, discrete=True)
    for policy in (RandomPolicy(2, seed=1, groups=(2,)), ConstantPolicy([2.0, 3.0])):
        for _, episode in collect(pool, policy, [10, 11, 12, 13, 14]):
            assert (episode.action[0] == 0).all()
            assert set(episode.action[1:].sum(1)) == {1} and set(episode.action[1:].flat) == {0, 1}
    assert episode.action[1:, 1].all()  # the largest entry


def test_each_group_of_choices_is_executed_and_recorded_as_one_hot():
    pool, groups = FakePool(2), (2, 3, 1)
    pool.spec = dataclasses.replace(pool.spec, discrete=True, action_size=6, groups=groups)
    drawn = []
    for policy in (
        RandomPolicy(6, seed=1, groups=groups),
        ConstantPolicy([2.0, 3.0, -1.0, -3.0, -2.0, 0.0]),
    ):
        for _, episode in collect(pool, policy, [10, 11, 12, 13, 14]):
            assert (episode.action[1:] == one_hot(episode.action[1:], groups)).all()
            drawn.append(episode.action[1:])
    assert episode.action[1:].mean(0).tolist() == [0, 1, 1, 0, 0, 1]
    assert (np.concatenate(drawn[:5]).max(0) == 1).all()  # every choice comes


def test_random_choices_are_equally_likely_and_independent():
    policy, nothing = RandomPolicy(5, seed=0, groups=(3, 2)), np.zeros((50, 5), np.float32)
    drawn = np.concatenate([policy({}, nothing, np.full(50, step == 0)) for step in range(100)])
    pairs = np.einsum("ti,tj->ij", drawn[:, :3], drawn[:, 3:]) / len(drawn)
    np.testing.assert_allclose(pairs, 1 / 6, atol=0.02)


def test_random_actions_fill_the_range_and_differ_between_episodes():
    policy, nothing = RandomPolicy(3, seed=0), np.zeros((2, 3), np.float32)
    actions = [policy({}, nothing, np.array([step == 0] * 2)) for step in range(500)]
    drawn = np.stack(actions)
    assert drawn.dtype == np.float32
    assert drawn.min() < -0.99 and drawn.max() > 0.99
    assert abs(drawn.mean()) < 0.05
    assert not np.isclose(drawn[:, 0], drawn[:, 1]).all(1).any()


def test_a_lost_episode_is_begun_again_from_its_seed(caplog):
    seeds = [3, 4, 5]
    caplog.set_level(logging.DEBUG, "planet_rssm")
    pool, steps = FakePool(2, dies=[(4, 2), (4, 1)]), []
    lost = dict(collect(pool, ConstantPolicy([0.25, 0]), seeds, steps.append))
    assert files(lost.items()) == files(collect(FakePool(2), ConstantPolicy([0.25, 0]), seeds))
    assert [{1: 4}] == [reset for reset in pool.resets[1:] if reset == {1: 4}][:1]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["worker of row 1 lost: episode 1 is begun again from seed 4"] * 2
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    made = played(steps)
    assert (
        made == sum(episode.env_steps for episode in lost.values()) + 4
    )  # the step before the first loss


def test_an_episode_that_is_lost_every_time_is_given_up():
    with pytest.raises(
        PlanetError,
        match=r"episode 0 \(seed 3\): lost its worker 5 times, at last with: a bug; "
        ".*raise env.step_timeout",
    ):
        list(collect(FakePool(1, dies=[(3, 1)] * MAX_LOST), ConstantPolicy([0, 0]), [3]))


def test_an_action_that_is_not_finite_is_refused():
    with pytest.raises(PlanetError, match="policy: returned actions .*nan"):
        list(collect(FakePool(2), ConstantPolicy([0, np.nan]), [3, 4]))


def test_no_seeds_are_no_episodes():
    assert list(collect(FakePool(2), ConstantPolicy([0, 0]), [])) == []


def test_collecting_needs_no_torch():
    code = "import sys, planet_rssm.collect, planet_rssm.data.replay; "
    code += "print({'torch', 'mujoco'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "set()\n"
    )
