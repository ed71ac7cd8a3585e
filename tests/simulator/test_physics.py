"""A simulator predicts what happens, bit for bit; batched rewards are those of the tasks."""

import mujoco
import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.simulator.physics import Simulator
from planet_rssm.simulator.rewards import REWARDS, States

BATCHED = [f"{domain}-{task}" for domain, task in REWARDS]
STEPPED = ["hopper-hop", "finger-turn_easy", "manipulator-bring_ball"]
STATES = 1000


def make(task, **settings) -> DMControlEnv:
    return DMControlEnv(
        registry.resolve(EnvSettings(id=task, renderer="none", observe="vectors", **settings))
    )


def actions_of(env, *shape) -> np.ndarray:
    return (
        np.random.default_rng(0)
        .uniform(-1.2, 1.2, (*shape, env.env_spec.action_size))
        .astype(np.float32)
    )


@pytest.mark.parametrize("task", [*BATCHED, *STEPPED])
def test_what_is_predicted_happens(task):
    env = make(task)
    simulator = Simulator(env, threads=2)
    assert simulator.batched == (task in BATCHED)
    env.reset(seed=3)
    for action in actions_of(env, 3):  # from within an episode, with a warm solver
        env.step(action)
    actions = actions_of(env, 3, 4)
    followed = simulator.follow(simulator.state(), actions)
    rewards = [env.step(action)[1] for action in actions[1]]
    np.testing.assert_allclose(followed.reward[1], rewards, rtol=0, atol=1e-9)
    size = simulator._physics_size
    np.testing.assert_array_equal(followed.last[1, :size], simulator.state()[:size])
    assert (followed.discount == 1).all()
    assert followed.last.shape == (3, len(simulator.state()))


@pytest.mark.parametrize(("domain", "name"), REWARDS)
def test_rewards_are_the_tasks_own(domain, name):
    """On 1000 states and more of random episodes, some of them set where the reward changes."""
    env = make(f"{domain}-{name}", action_repeat=1)
    physics = env.inner.physics
    task = env.inner.task
    batched, rewards = [], []
    draw = np.random.default_rng(1)
    for seed in range(10):
        env.reset(seed=seed)
        here, expected = [], []
        for step in range(STATES // 10):
            if step % 2 == 0:
                unsettle(physics, draw)
            env.step(draw.uniform(-1, 1, env.env_spec.action_size))
            data = physics.data
            here.append(
                States(
                    *(np.array(part) for part in (data.qpos, data.qvel, data.ctrl, data.sensordata))
                )
            )
            expected.append(task.get_reward(physics))
        # one call an episode, whose model is the one of its states
        many = States(*(np.stack(part) for part in zip(*here, strict=True)))
        batched.append(REWARDS[domain, name](task, physics, many))
        rewards.append(expected)
    np.testing.assert_allclose(batched, rewards, rtol=0, atol=1e-6)
    assert np.size(batched) >= STATES
    assert np.ptp(rewards) > 0.5  # both what pays and what does not was there


def unsettle(physics, draw) -> None:
    """Put the physics into another state: a few states show all that a reward depends on."""
    with physics.reset_context():
        reach = np.where(
            physics.model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE, np.pi, 0.3
        )  # radians, metres
        physics.data.qpos[:] = draw.uniform(-reach, reach)
        physics.data.qvel[:] = draw.normal(0, 8, physics.model.nv)


def test_the_running_episode_is_followed():
    """Reacher draws its target anew: the simulator made before sees the present one."""
    env = make("reacher-easy")
    simulator = Simulator(env, threads=1)
    actions = actions_of(env, 1, 25)
    for seed in range(3):
        env.reset(seed=seed)
        followed = simulator.follow(simulator.state(), actions)
        assert followed.reward[0] == pytest.approx(
            [env.step(action)[1] for action in actions[0]], abs=1e-9
        )


@pytest.mark.parametrize("task", ["cheetah-run", "hopper-hop"])
def test_a_simulation_that_breaks_down_is_worth_nan(task):
    env = make(task)
    simulator = Simulator(env, threads=1)
    env.reset(seed=0)
    env.step(np.zeros(env.env_spec.action_size))
    state = simulator.state()
    state[1 + env.inner.physics.model.nq] = 1e11  # a speed that mujoco calls bad
    followed = simulator.follow(state, actions_of(env, 2, 3))
    assert np.isnan(followed.reward).all()
    assert np.isfinite(simulator.follow(simulator.state(), actions_of(env, 2, 3)).reward).all()


def test_an_end_of_the_tasks_own_is_a_discount_of_zero():
    env = make("lqr-lqr_2_1")
    simulator = Simulator(env, threads=1)
    env.reset(seed=0)
    state = simulator.state()
    state[1 : 1 + env.inner.physics.model.nq] = 0  # at rest, which ends it
    followed = simulator.follow(state, np.zeros((1, 3, 1)))
    assert followed.discount.tolist() == [[0, 0, 0]]
    assert (followed.reward[:, 1:] == 0).all()


def test_no_threads_are_one_line():
    with pytest.raises(PlanetError, match="^threads 0: must be at least 1; "):
        Simulator(None, threads=0)
