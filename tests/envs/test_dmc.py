import gymnasium
import numpy as np
import pytest
from dm_control import suite

from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.spec import EnvSpec

PLANET_TASKS = [
    "cartpole-swingup",
    "reacher-easy",
    "cheetah-run",
    "finger-spin",
    "cup-catch",
    "walker-walk",
]


def make(task, renderer="none", size=32, **settings):
    return DMControlEnv(
        registry.resolve(EnvSettings(id=task, renderer=renderer, size=size, **settings))
    )


def play(env, seed, steps=5):
    """Return everything an episode's start shows: images, rewards, flags."""
    actions = (
        np.random.default_rng(seed)
        .uniform(-1, 1, (steps, env.env_spec.action_size))
        .astype(np.float32)
    )
    first, info = env.reset(seed=seed)
    return [(first, info), *(env.step(action) for action in actions)]


@pytest.mark.parametrize("task", registry.task_ids())
def test_every_task_loads_and_steps(task):
    env = make(task)
    spec = env.env_spec
    assert spec.id == task and spec.action_repeat == registry.action_repeat(task)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    _, reward, terminated, truncated, info = env.step(np.zeros(spec.action_size, np.float32))
    assert (type(reward), terminated, truncated, info["env_steps"]) == (
        float,
        False,
        False,
        spec.action_repeat,
    )
    assert EnvSpec.from_json(spec.to_json()) == spec
    env.close()


@pytest.mark.parametrize("task", PLANET_TASKS)
def test_conformance(task):
    env, other = make(task, "raycast"), make(task, "raycast")
    spec = env.env_spec
    assert spec.observation == {"image": ((32, 32, 3), "uint8")} and spec.renderer == "raycast"
    assert spec.control_interval == pytest.approx(
        spec.action_repeat * env.unwrapped._env.control_timestep()
    )
    play(other, seed=1)  # what went before must not matter
    here, there = play(env, seed=7), play(other, seed=7)
    for (mine, *rest), (theirs, *other_rest) in zip(here, there, strict=True):
        assert env.observation_space.contains(mine)
        np.testing.assert_array_equal(mine["image"], theirs["image"])
        assert rest == other_rest
    images = [step[0]["image"] for step in here]
    assert not any(np.shares_memory(a, b) for a, b in zip(images, images[1:], strict=False))
    assert any((a != b).any() for a, b in zip(images, images[1:], strict=False))
    assert (
        play(env, seed=8)[0][0]["image"] != images[0]
    ).any() or task == "cheetah-run"  # its legs always start alike


@pytest.mark.parametrize("task", PLANET_TASKS)
def test_rewards_are_those_of_dm_control_summed(task):
    env = make(task)
    domain, name = registry.parse(task)
    plain = suite.load(domain, name, task_kwargs={"random": 0})
    env.reset(seed=3)
    plain.reset()
    with plain.physics.reset_context():
        plain.physics.set_state(env._env.physics.get_state())
    for model in ("geom_size", "geom_pos", "body_pos", "site_pos"):
        getattr(plain.physics.model, model)[:] = getattr(env._env.physics.model, model)
    generator = np.random.default_rng(0)
    for _ in range(10):
        action = generator.uniform(-1, 1, env.env_spec.action_size).astype(np.float32)
        expected = sum(
            plain.step(action.astype(np.float64)).reward for _ in range(env.env_spec.action_repeat)
        )
        assert env.step(action)[1] == pytest.approx(expected, abs=1e-6)


def test_actions_reach_the_bounds_of_the_task():
    env = make("quadruped-walk")  # [-1, 1.1] for some actuators
    spec = env._env.action_spec()
    assert spec.maximum.max() > 1
    for action, bound in ((1, spec.maximum), (-1, spec.minimum), (5, spec.maximum)):
        env.reset(seed=0)
        env.step(np.full(env.env_spec.action_size, action, np.float32))
        np.testing.assert_allclose(env._env.physics.control(), bound)


def test_actuators_without_bounds_get_the_unit_interval():
    env = make("lqr-lqr_2_1")
    env.reset(seed=0)
    env.step(np.ones(1, np.float32))
    np.testing.assert_array_equal(env._env.physics.control(), [1])


@pytest.mark.parametrize(
    ("task", "repeat", "last"), [("cartpole-swingup", 8, 8), ("pendulum-swingup", 300, 100)]
)
def test_truncated_after_1000_control_steps(task, repeat, last):
    env = make(task, action_repeat=repeat)
    env.reset(seed=0)
    action, total, truncated = np.zeros(env.env_spec.action_size, np.float32), 0, False
    while not truncated:
        _, _, terminated, truncated, info = env.step(action)
        total += info["env_steps"]
        assert not terminated
    assert (total, info["env_steps"]) == (1000, last)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


def test_episode_without_a_time_limit_is_truncated_too():
    env = make("lqr-lqr_2_1", action_repeat=1000)
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[2:] == (False, True, {"env_steps": 1000})


def test_termination_ends_the_repeat(monkeypatch):
    env = make("cartpole-swingup")
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    monkeypatch.setattr(
        env._env.task, "get_termination", lambda physics: 0.0 if physics.time() > 0.105 else None
    )
    _, _, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert (terminated, truncated, info["env_steps"]) == (True, False, 3)


@pytest.mark.parametrize("action", [[np.nan], [np.inf], [0, 0]])
def test_bad_actions_are_refused(action):
    env = make("cartpole-swingup")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.array(action, np.float32))


def test_frames_for_videos_need_no_gl():
    for renderer in ("none", "raycast"):
        env = make("walker-walk", renderer)
        env.reset(seed=0)
        assert env.render_frame(128).shape == (128, 128, 3) and env.render().std() > 10


def test_seeds_of_64_bits():
    env = make("cartpole-swingup", "raycast")
    images = [env.reset(seed=seed)[0]["image"] for seed in (2**63 - 1, 2**63 - 2, 2**63 - 1)]
    np.testing.assert_array_equal(images[0], images[2])
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize("task", [*PLANET_TASKS, "quadruped-escape"])
def test_vectors_are_those_of_dm_control_by_name(task):
    env = make(task, observe="vectors")
    plain = suite.load(*registry.parse(task)).observation_spec()
    assert env.env_spec.observation == {
        key: ((max(1, np.prod(spec.shape)),), "float32") for key, spec in plain.items()
    }
    first, _ = env.reset(seed=2)
    second = env.step(np.full(env.env_spec.action_size, 0.5, np.float32))[0]
    for observation in (first, second):
        assert env.observation_space.contains(observation)
    last = env._env.task.get_observation(env._env.physics)
    assert all((second[key] == np.ravel(last[key]).astype(np.float32)).all() for key in plain)
    assert any((first[key] != second[key]).any() for key in plain)


def test_both_are_the_image_and_the_vectors():
    both, alone = make("walker-walk", "raycast", observe="both"), make("walker-walk", "raycast")
    observation, image = both.reset(seed=5)[0], alone.reset(seed=5)[0]["image"]
    assert set(both.env_spec.observation) == {"image", "orientations", "height", "velocity"}
    assert observation["height"].shape == (1,) and both.observation_space.contains(
        observation
    )  # a scalar of dm_control's
    np.testing.assert_array_equal(observation["image"], image)


@pytest.mark.parametrize(
    ("task", "limit", "steps"),
    [("walker-walk", 7, 7), ("lqr-lqr_2_1", 5, 5), ("cup-catch", 5000, 1000)],
)
def test_time_limit_truncates(task, limit, steps):
    env = make(task, time_limit=limit, observe="vectors", action_repeat=4)
    assert env.env_spec.episode_steps == steps
    env.reset(seed=0)
    total, truncated = 0, False
    while not truncated:
        *_, terminated, truncated, info = env.step(np.zeros(env.env_spec.action_size, np.float32))
        total += info["env_steps"]
        assert not terminated
    assert total == steps
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(env.env_spec.action_size, np.float32))
