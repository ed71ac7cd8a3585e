"""What every environment promises, whatever it is made of."""

import gymnasium
import numpy as np
import pytest

from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.make import make
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec

KINDS = {
    "dm_control": {"id": "dmc/reacher-easy", "renderer": "raycast"},
    "gym pixels": {"id": "gym/Pendulum-v1", "action_repeat": 3},
    "gym vectors": {"id": "gym/Acrobot-v1", "observe": "vectors", "action_repeat": 2},
    "gym both": {"id": "gym/CartPole-v1", "observe": "both"},
    "gym mujoco": {"id": "gym/Reacher-v5", "observe": "vectors"},
    "gym module": {"id": "gym/homemade:Drift-v3", "observe": "both"},
    "own pixels": {"id": "homemade:Drift"},
    "own both": {"id": "homemade:Drift", "observe": "both", "action_repeat": 3},
}
NEEDS = {"gym pixels": "pygame", "gym both": "pygame", "gym mujoco": "imageio"}


@pytest.fixture(params=KINDS)
def settings(request, homemade):
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param], reason=f"{NEEDS[request.param]} is not installed")
    return registry.resolve(EnvSettings(size=32, time_limit=None, **KINDS[request.param]))


def actions(spec, seed, steps):
    random = np.random.default_rng(seed)
    if spec.discrete:
        return np.eye(spec.action_size, dtype=np.float32)[
            random.integers(spec.action_size, size=steps)
        ]
    return random.uniform(-1, 1, (steps, spec.action_size)).astype(np.float32)


def play(env, seed, steps=8):
    """Return what the start of an episode shows: the reset and the steps, at most until it ends."""
    history = [env.reset(seed=seed)]
    for action in actions(env.env_spec, seed, steps):
        history.append(env.step(action))
        if any(history[-1][2:4]):
            break
    return history


def test_arrays_are_those_of_the_spec(settings):
    env = make(settings)
    spec = env.env_spec
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert (spec.id, spec.renderer) == (settings.id, settings.renderer)
    assert spec.simulator.partition(" ")[2][0].isdigit() and spec.control_interval > 0
    for observation, *_ in play(env, 3):
        assert env.observation_space.contains(observation)
        arrays = {key: (value.shape, str(value.dtype)) for key, value in observation.items()}
        assert arrays == spec.observation
        assert all(value.any() for value in observation.values())


def test_a_seed_decides_everything(settings):
    env, other = make(settings), make(settings)
    play(other, seed=1)  # what went before must not matter
    for (mine, *rest), (theirs, *others) in zip(play(env, 7), play(other, 7), strict=True):
        assert rest == others
        for key, value in mine.items():
            np.testing.assert_array_equal(value, theirs[key])
    first, second = (env.reset(seed=seed)[0] for seed in (2**62 + 1, 2**62 + 2))
    assert any((first[key] != second[key]).any() for key in first)


def test_no_memory_is_shared(settings):
    env = make(settings)
    observations = [history[0] for history in play(env, 7)]
    copies = [
        {key: value.copy() for key, value in observation.items()} for observation in observations
    ]
    play(env, 8)
    for observation, copy in zip(observations, copies, strict=True):
        for key, value in observation.items():
            np.testing.assert_array_equal(value, copy[key])
            assert value.flags.writeable
            value[:] = 0  # nor does the environment mind
    play(env, 8)


def test_time_is_counted_and_over(settings):
    limited = settings.model_copy(update={"time_limit": 5, "action_repeat": 2})
    env = make(limited)
    assert env.env_spec.episode_steps == 5
    history = play(env, 7, steps=3)
    counts = [info["env_steps"] for *_, info in history]
    assert counts == [0, 2, 2, 1] and [bool(step[2]) for step in history[1:]] == [False] * 3
    assert [step[3] for step in history[1:]] == [False, False, True]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(actions(env.env_spec, 0, 1)[0])
    env.reset(seed=0)
    env.step(actions(env.env_spec, 0, 1)[0])


def test_workers_show_what_the_environment_shows(settings):
    expected = play(make(settings), 7, steps=3)
    with EnvPool(settings, 1) as pool:
        observation = pool.reset({0: 7})[0]
        for action, (then, *outcome) in zip(actions(pool.spec, 7, 3), expected[1:], strict=False):
            assert all((observation[key] == expected[0][0][key]).all() for key in observation)
            step = pool.step({0: action})[0]
            assert [
                step.reward,
                step.terminated,
                step.truncated,
                {"env_steps": step.env_steps},
            ] == outcome
            for key, value in then.items():
                np.testing.assert_array_equal(step.observation[key], value)
        assert pool.render(0, 96).shape == (96, 96, 3)
        assert pool.lost == 0


def test_misuse_is_refused(settings):
    env = make(settings)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(actions(env.env_spec, 0, 1)[0])
    env.reset(seed=0)
    for wrong in (
        np.full(env.env_spec.action_size, np.nan),
        np.zeros(env.env_spec.action_size + 1),
    ):
        with pytest.raises(ValueError, match="needs shape"):
            env.step(wrong.astype(np.float32))


def test_blind_is_the_same_without_pictures(settings):
    env, blind = (
        make(settings),
        make(settings.model_copy(update={"renderer": "none"})),
    )
    assert blind.env_spec.observation == env.env_spec.observation
    for (observation, *rest), (blind_observation, *others) in zip(
        play(env, 7), play(blind, 7), strict=True
    ):
        assert rest == others
        for key, value in blind_observation.items():
            np.testing.assert_array_equal(value, 0 if value.dtype == np.uint8 else observation[key])
