"""Datasets made by minari's own functions become episodes that a run learns from, and back."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from planet_rssm import minari as exchange
from planet_rssm.cli.main import main
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.choices import one_hot
from planet_rssm.envs.spaces import action_map
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.errors import PlanetError

minari = pytest.importorskip("minari", reason="needs minari and h5py, extra `minari`")
pytest.importorskip("h5py", reason="needs minari and h5py, extra `minari`")
STEPS = 5


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def stacked(values):
    return values if isinstance(values[0], str) else np.stack(values)


def stacked_actions(space, steps):
    """Return samples as Minari keeps them: every leaf has a time axis."""
    samples = [space.sample() for _ in range(steps)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space}
    if isinstance(space, spaces.Tuple):
        return tuple(np.stack(parts) for parts in zip(*samples, strict=True))
    return np.stack(samples)


@pytest.fixture
def make():
    """Return a function that makes a dataset of two episodes with seeds 3 and 4, of samples of its spaces."""

    def made(name, seen, done, env=None, actions=None, ends={3: STEPS - 1}):  # noqa: B006 (not changed)
        from minari.data_collector import EpisodeBuffer

        for seed, space in enumerate((seen, done)):
            space.seed(seed)
        buffers = []
        for seed in (3, 4):
            samples = [seen.sample() for _ in range(STEPS + 1)]
            nested = isinstance(seen, spaces.Dict)
            buffers.append(
                EpisodeBuffer(
                    seed=seed,
                    observations={key: stacked([s[key] for s in samples]) for key in seen}
                    if nested
                    else np.stack(samples),
                    actions=stacked_actions(done, STEPS) if actions is None else actions,
                    rewards=np.arange(STEPS, dtype=np.float64),
                    terminations=np.arange(STEPS) == ends.get(seed),
                    truncations=np.arange(STEPS) == (STEPS - 1 if seed == 4 else -1),
                    infos={},
                )
            )
        with pytest.warns(UserWarning):  # nobody is named its author
            return minari.create_dataset_from_buffers(
                name, buffers, env=env, observation_space=seen, action_space=done, jpeg_encoding=False
            )

    return made


VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)


def loaded(folder):
    replay = Replay(folder, 1000)
    return EnvSpec.from_json(replay.env), [Episode.load(folder / entry.file) for entry in replay.episodes]


def test_numbers_in_the_environments_units_become_ours(make, tmp_path):
    bounds = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    actions = np.array([[-2, 0], [2, 10], [0, 5], [1, 2.5], [0, 0]], np.float32)
    dataset = make("test/numbers-v0", VECTOR, bounds, actions=actions)
    exchange.import_dataset("test/numbers-v0", tmp_path / "out", None, 64, False)
    spec, episodes = loaded(tmp_path / "out")
    assert (spec.id, spec.simulator) == ("gym/minari/test/numbers-v0", "minari test/numbers-v0")
    assert spec.observation == {"vector": ((3,), "float32")}
    assert (spec.action_size, spec.action_repeat, spec.episode_steps, spec.discrete) == (2, 1, STEPS, False)
    for episode, original in zip(episodes, dataset.iterate_episodes(), strict=True):
        np.testing.assert_allclose(episode.observation["vector"], original.observations, rtol=1e-6)
        np.testing.assert_array_equal(episode.action[0], [0, 0])
        np.testing.assert_array_equal(episode.action[1:], [[-1, -1], [1, 1], [0, 0], [0.5, -0.5], [0, -1]])
        assert episode.reward.tolist() == [0, 0, 1, 2, 3, 4]
    assert [episode.seed for episode in episodes] == [3, 4]
    assert [bool(episode.is_terminal[-1]) for episode in episodes] == [True, False]
    assert [episode.info["truncated"] for episode in episodes] == [False, True]


def test_choices_images_and_the_environment_here(make, tmp_path):
    seen = spaces.Dict({"eye": spaces.Box(0, 255, (40, 50, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,), np.float32)})
    dataset = make("test/choices-v0", seen, spaces.Discrete(3, start=5))
    exchange.import_dataset(str(dataset.storage.data_path.parent), tmp_path / "out", None, 32, False)  # by its folder
    spec, episodes = loaded(tmp_path / "out")
    assert spec.observation == {"speed": ((2,), "float32"), "eye": ((32, 32, 3), "uint8")}
    assert (spec.discrete, spec.action_size) == (True, 3)
    first = next(dataset.iterate_episodes())
    np.testing.assert_array_equal(episodes[0].action[1:].argmax(1) + 5, first.actions)
    assert set(episodes[0].action[1:].sum(1)) == {1.0}


@pytest.mark.parametrize(
    ("done", "groups"),
    [
        (spaces.MultiDiscrete([3, 2], start=[1, 0]), (3, 2)),
        (spaces.MultiBinary(3), (2, 2, 2)),
        (spaces.Dict({"arm": spaces.MultiDiscrete([3, 2]), "grip": spaces.Discrete(2, start=5)}), (3, 2, 2)),
        (spaces.Tuple((spaces.Discrete(4), spaces.MultiBinary(1))), (4, 2)),
    ],
    ids=["multidiscrete", "multibinary", "dict", "tuple"],
)
def test_several_choices_become_groups(make, tmp_path, done, groups):
    dataset = make("test/several-v0", VECTOR, done)
    exchange.import_dataset("test/several-v0", tmp_path / "out", None, 32, False)
    spec, episodes = loaded(tmp_path / "out")
    assert (spec.discrete, spec.groups) == (True, groups)
    act = action_map("x", done)
    theirs = next(dataset.iterate_episodes()).actions
    np.testing.assert_array_equal(episodes[0].action[1:], act.inverse(theirs))
    assert (episodes[0].action[1:].sum(1) == len(groups)).all()


def test_a_dataset_of_an_environment_that_is_here_is_acted_in_by_its_name(make, tmp_path):
    env = gymnasium.spec("CartPole-v1")
    cart = gymnasium.make(env)
    make("test/cart-v0", cart.observation_space, cart.action_space, env=env)
    exchange.import_dataset("test/cart-v0", tmp_path / "out", None, 64, False)
    spec, _ = loaded(tmp_path / "out")
    assert (spec.id, spec.control_interval, spec.episode_steps) == ("gym/CartPole-v1", 1 / 50, 500)


@pytest.mark.parametrize("groups", [(), (3,), (2, 1), (1, 1, 1)], ids=str)
def test_what_is_exported_is_imported_equal(tmp_path, groups, home):
    observation = {"image": ((32, 32, 3), "uint8"), "speed": ((2,), "float32")}
    spec = EnvSpec("dmc/a-b", observation, 3, 2, 0.1, 9, "own", "none 1", bool(groups), groups=groups)
    replay = Replay(tmp_path / "in", 1000)
    for index in range(2):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (STEPS + 1, 32, 32, 3), np.uint8)
        speed = rng.random((STEPS + 1, 2), np.float32)
        action = rng.random((STEPS, 3), np.float32)
        action = one_hot(action, groups) if groups else action
        info = {"env": spec.to_json(), "seed": 2**62 + index, "env_steps": 2 * STEPS - index}
        reward = rng.random(STEPS, np.float32)
        replay.add(
            Episode.from_transitions({"image": image, "speed": speed}, action, reward, not index, bool(index), info),
            index,
        )
    replay.commit()
    main(["minari", "export", str(tmp_path / "in"), "test/ours-v0"])
    main(["minari", "import", "test/ours-v0", "--out", str(tmp_path / "out")])
    for file in ("000000.safetensors", "000001.safetensors", "manifest.json"):
        assert (tmp_path / "in" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    with pytest.raises(PlanetError, match="already exists"):
        exchange.export_dataset(tmp_path / "in", "test/ours-v0")
    with pytest.raises(PlanetError, match="not an ID of Minari; give one like"):
        exchange.export_dataset(tmp_path / "in", "../ours")
    assert sorted(path.name for path in (home / "test").iterdir() if path.is_dir()) == ["ours-v0"]


@pytest.mark.parametrize(
    ("seen", "done", "says"),
    [
        (spaces.Dict({"a": VECTOR, "says": spaces.Text(4)}), spaces.Discrete(2), "Text space"),
        (VECTOR, spaces.Dict({"a": spaces.Discrete(2), "b": VECTOR}), "mix numbers and choices"),
        (VECTOR, spaces.Box(0, np.inf, (2,)), "bounded on one side"),
    ],
)
def test_what_cannot_be_represented_is_refused_in_one_line(make, tmp_path, seen, done, says):
    make("test/odd-v0", seen, done)
    with pytest.raises(PlanetError, match=says) as caught:
        exchange.import_dataset("test/odd-v0", tmp_path / "out", None, 64, False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_odd_episodes_and_folders_are_refused_in_one_line(make, tmp_path):
    make("test/early-v0", VECTOR, spaces.Discrete(2), ends={4: 1})
    with pytest.raises(PlanetError, match="episode 1: goes on after its end"):
        exchange.import_dataset("test/early-v0", tmp_path / "out", None, 64, False)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(PlanetError, match="not on this machine; add --download"):
        exchange.import_dataset("test/absent-v0", tmp_path / "out", None, 64, False)
    with pytest.raises(PlanetError, match="holds no image|use env.observe=vectors"):
        exchange.import_dataset("test/early-v0", tmp_path / "out", "pixels", 64, False)
    with pytest.raises(PlanetError, match="holds no episode"):
        exchange.export_dataset(tmp_path, "test/none-v0")


def test_actions_beyond_their_bounds_are_clipped_and_told(make, tmp_path, caplog):
    make("test/far-v0", VECTOR, spaces.Box(-1, 1, (1,)), actions=np.full((STEPS, 1), 1.5, np.float32))
    exchange.import_dataset("test/far-v0", tmp_path / "out", None, 64, False)
    assert "10 actions lay beyond their bounds" in caplog.text
    assert loaded(tmp_path / "out")[1][0].action[1:].max() == 1
