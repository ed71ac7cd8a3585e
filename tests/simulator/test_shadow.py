"""Episodes played twice are the same episode, whoever draws them; if they are not, that is said."""

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.collect import RandomPolicy, collect
from planet_rssm.config import EnvSettings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.simulator.local import LocalPool
from planet_rssm.simulator.shadow import ShadowedPool

SETTINGS = resolve(EnvSettings(id="dmc/reacher-easy", size=32, renderer="raycast", time_limit=40))


def test_the_physics_here_is_that_of_the_worker_which_draws_it():
    with EnvPool(SETTINGS, 2) as workers:
        pool = ShadowedPool(workers, SETTINGS, threads=1)
        predicted = []

        def policy(observation, executed, is_first):
            assert pool.running == {0, 1}
            assert observation["image"].std() > 1
            action = drawn(observation, executed, is_first)
            following = action[:, None, None].astype(np.float64)  # a sequence of one action a row
            predicted.append(
                [
                    pool.simulators[row]
                    .follow(pool.simulators[row].state(), following[row])
                    .reward[0, 0]
                    for row in (0, 1)
                ]
            )
            return action

        drawn = RandomPolicy(2, 0)
        episodes = dict(collect(pool, policy, [7, 8]))
        assert not pool.running
    real = np.stack([episodes[row].reward[1:] for row in (0, 1)], 1)
    np.testing.assert_allclose(np.array(predicted), real, atol=1e-6)
    assert np.ptp(real) > 0 or real.max() == 0


class Changed:
    """A pool that says something else of one step."""

    count = 1

    def __init__(self, **change):
        self._pool, self._change = LocalPool(SETTINGS), change
        self.spec = self._pool.spec

    def reset(self, seeds):
        return self._pool.reset(seeds)

    def step(self, actions):
        return {
            row: step._replace(**self._change) for row, step in self._pool.step(actions).items()
        }


def test_another_reward_is_one_line():
    pool = ShadowedPool(Changed(reward=3.5), SETTINGS, threads=1)
    pool.reset({0: 1})
    with pytest.raises(
        PlanetError, match="^dmc/reacher-easy: the same seed and actions gave a reward of 3.5 in a"
    ) as caught:
        pool.step({0: np.zeros(2, np.float32)})
    assert "\n" not in str(caught.value)


def test_an_episode_that_is_lost_begins_again():
    pool = ShadowedPool(Changed(lost=True), SETTINGS, threads=1)
    pool.reset({0: 1})
    before = pool.simulators[0].state()
    pool.step({0: np.ones(2, np.float32)})
    np.testing.assert_array_equal(pool.simulators[0].state(), before)
    pool.reset({0: 1})
    assert pool.running == {0}
    np.testing.assert_array_equal(pool.simulators[0].state(), before)
