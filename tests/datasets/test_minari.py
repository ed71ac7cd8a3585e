"""Datasets made by minari's own functions become episodes that a run learns from, and back."""

import copy
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from planet_rssm import config
from planet_rssm.base import trust
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.datasets import minari as exchange
from planet_rssm.envs.choices import one_hot
from planet_rssm.envs.spaces import action_map
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.offline import adopt_environment

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
    """Return a function that makes a dataset of two episodes, of samples of its spaces."""

    def made(
        name,
        seen,
        done,
        env=None,
        actions=None,
        ends={3: STEPS - 1},  # noqa: B006 (not changed)
    ):
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
                    else stacked(samples),
                    actions=stacked_actions(done, STEPS) if actions is None else actions,
                    rewards=np.arange(STEPS, dtype=np.float64),
                    terminations=np.arange(STEPS) == ends.get(seed),
                    truncations=np.arange(STEPS) == (STEPS - 1 if seed == 4 else -1),
                    infos={},
                )
            )
        with pytest.warns(UserWarning):  # nobody is named its author
            return minari.create_dataset_from_buffers(
                name,
                buffers,
                env=env,
                observation_space=seen,
                action_space=done,
                jpeg_encoding=False,
            )

    return made


VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)


def loaded(folder):
    replay = Replay(folder, 1000)
    return EnvSpec.from_json(replay.env), [
        Episode.load(folder / entry.file) for entry in replay.episodes
    ]


def test_numbers_in_the_environments_units_become_ours(make, tmp_path):
    bounds = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    actions = np.array([[-2, 0], [2, 10], [0, 5], [1, 2.5], [0, 0]], np.float32)
    dataset = make("test/numbers-v0", VECTOR, bounds, actions=actions)
    exchange.import_dataset("test/numbers-v0", tmp_path / "out", None, 64, False)
    spec, episodes = loaded(tmp_path / "out")
    assert (spec.id, spec.simulator) == ("gym/minari/test/numbers-v0", "minari test/numbers-v0")
    assert spec.observation == {"vector": ((3,), "float32")}
    assert (spec.action_size, spec.action_repeat, spec.episode_steps, spec.discrete) == (
        2,
        1,
        STEPS,
        False,
    )
    for episode, original in zip(episodes, dataset.iterate_episodes(), strict=True):
        np.testing.assert_allclose(episode.observation["vector"], original.observations, rtol=1e-6)
        np.testing.assert_array_equal(episode.action[0], [0, 0])
        np.testing.assert_array_equal(
            episode.action[1:], [[-1, -1], [1, 1], [0, 0], [0.5, -0.5], [0, -1]]
        )
        assert episode.reward.tolist() == [0, 0, 1, 2, 3, 4]
    assert [episode.seed for episode in episodes] == [3, 4]
    assert [bool(episode.is_terminal[-1]) for episode in episodes] == [True, False]
    assert [episode.info["truncated"] for episode in episodes] == [False, True]


def test_choices_images_and_the_environment_here(make, tmp_path):
    seen = spaces.Dict(
        {
            "eye": spaces.Box(0, 255, (40, 50, 3), np.uint8),
            "speed": spaces.Box(-1, 1, (2,), np.float32),
        }
    )
    dataset = make("test/choices-v0", seen, spaces.Discrete(3, start=5))
    exchange.import_dataset(
        str(dataset.storage.data_path.parent), tmp_path / "out", None, 32, False
    )  # by its folder
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
        (
            spaces.Dict({"arm": spaces.MultiDiscrete([3, 2]), "grip": spaces.Discrete(2, start=5)}),
            (3, 2, 2),
        ),
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


def test_an_environment_keeps_its_arguments(make, tmp_path):
    env = copy.deepcopy(gymnasium.spec("CartPole-v1"))
    env.kwargs = {"sutton_barto_reward": True, "render_mode": "rgb_array"}
    cart = gymnasium.make("CartPole-v1")
    make("test/args-v0", cart.observation_space, cart.action_space, env=env)
    exchange.import_dataset("test/args-v0", tmp_path / "out", None, 64, False)
    spec, _ = loaded(tmp_path / "out")
    assert (spec.id, spec.kwargs) == ("gym/CartPole-v1", {"sutton_barto_reward": True})
    made = adopt_environment(config.resolve({"data.folder": str(tmp_path / "out")}), ())[0]
    assert (made.env.id, made.env.kwargs) == (spec.id, spec.kwargs)


def test_the_package_of_an_environment_is_imported_if_that_is_allowed(
    make, tmp_path, monkeypatch, caplog
):
    (tmp_path / "arm_package.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n\n\n"
        "class Arm(CartPoleEnv):\n    pass\n\n\n"
        "gymnasium.register('Arm-v0', entry_point='arm_package:Arm', max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trust, "_here", set())
    cart = gymnasium.make("CartPole-v1")
    env = gymnasium.envs.registration.EnvSpec("Arm-v0", "arm_package:Arm", max_episode_steps=7)
    make("test/arm-v0", cart.observation_space, cart.action_space, env=env)  # minari imports it
    del gymnasium.registry["Arm-v0"], sys.modules["arm_package"]
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        exchange.import_dataset("test/arm-v0", tmp_path / "one", None, 64, False)
    assert "gym/arm_package:Arm-v0" in caplog.text and "add --allow-code" in caplog.text
    assert "arm_package" not in sys.modules
    try:
        with trust.allowed():
            exchange.import_dataset("test/arm-v0", tmp_path / "two", None, 64, False)
    finally:
        gymnasium.registry.pop("Arm-v0", None)
        sys.modules.pop("arm_package", None)
    spec, _ = loaded(tmp_path / "two")
    assert (spec.id, spec.control_interval) == ("gym/arm_package:Arm-v0", 1 / 50)


@pytest.mark.parametrize("groups", [(), (3,), (2, 1), (1, 1, 1)], ids=str)
def test_what_is_exported_is_imported_equal(tmp_path, groups, home, capsys):
    observation = {"image": ((32, 32, 3), "uint8"), "speed": ((2,), "float32")}
    spec = EnvSpec(
        "dmc/a-b", observation, 3, 2, 0.1, 9, "own", "none 1", bool(groups), groups=groups
    )
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
            Episode.from_transitions(
                {"image": image, "speed": speed}, action, reward, not index, bool(index), info
            ),
            index,
        )
    replay.commit()
    main(["minari", "export", str(tmp_path / "in"), "test/ours-v0", "--json"])
    written = json.loads(capsys.readouterr().out)
    assert written["dataset"] == "test/ours-v0" and Path(written["folder"]).is_dir()
    main(["minari", "import", "test/ours-v0", "--out", str(tmp_path / "out")])
    for file in ("000000.safetensors", "000001.safetensors"):
        assert (tmp_path / "in" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    assert Replay(tmp_path / "in", 1000).episodes == Replay(tmp_path / "out", 1000).episodes
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
    with pytest.raises(PlanetError, match="episode 1: continues after its end"):
        exchange.import_dataset("test/early-v0", tmp_path / "out", None, 64, False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(PlanetError, match="not on this machine; add --download"):
        exchange.import_dataset("test/absent-v0", tmp_path / "out", None, 64, False)
    with pytest.raises(PlanetError, match="holds no image|use env.observe=vectors"):
        exchange.import_dataset("test/early-v0", tmp_path / "out", "pixels", 64, False)
    with pytest.raises(PlanetError, match="holds no episode"):
        exchange.export_dataset(tmp_path, "test/none-v0")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_damaged_file_of_a_dataset_is_one_line(make, tmp_path, home, keep):
    make("test/cut-v0", VECTOR, spaces.Discrete(2))
    [file] = home.rglob("*.hdf5")
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(PlanetError, match="^dataset .*cut-v0: .*; .*give another$") as caught:
        exchange.import_dataset(str(home / "test" / "cut-v0"), tmp_path / "out", None, 64, False)
    assert "damaged or incomplete" in str(caught.value)
    assert "--out" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_actions_beyond_their_bounds_are_clipped_and_told(make, tmp_path, caplog):
    make(
        "test/far-v0", VECTOR, spaces.Box(-1, 1, (1,)), actions=np.full((STEPS, 1), 1.5, np.float32)
    )
    exchange.import_dataset("test/far-v0", tmp_path / "out", None, 64, False)
    assert "10 actions lay beyond their bounds" in caplog.text
    assert loaded(tmp_path / "out")[1][0].action[1:].max() == 1


@pytest.fixture
def store():
    """Return a function that makes a dataset of given observations, actions and rewards."""

    def stored(name, episodes, seen=VECTOR, done=None, jpeg=False):
        from minari.data_collector import EpisodeBuffer

        buffers = [
            EpisodeBuffer(
                observations=shown,
                actions=acted,
                rewards=np.asarray(reward, float),
                terminations=np.arange(len(reward)) == len(reward) - 1,
                truncations=np.zeros(len(reward), bool),
                infos={},
            )
            for shown, acted, reward in episodes
        ]
        done = spaces.Box(-1, 1, (1,), np.float32) if done is None else done
        with pytest.warns(UserWarning):
            minari.create_dataset_from_buffers(
                name, buffers, observation_space=seen, action_space=done, jpeg_encoding=jpeg
            )

    return stored


def steps(count, width=1):
    return np.linspace(-1, 1, count * width, dtype=np.float32).reshape(count, width)


def test_an_action_whose_outcome_was_not_observed_is_left_out_and_told(store, tmp_path, caplog):
    shown = np.arange(12.0).reshape(4, 3)
    store(
        "test/short-v0",
        [(np.arange(15.0).reshape(5, 3), steps(4), np.ones(4)), (shown, steps(4), [1, 2, 3, 9])],
    )
    exchange.import_dataset("test/short-v0", tmp_path / "out", None, 64, False)
    assert "1 episodes have as many observations as actions" in caplog.text
    whole, short = loaded(tmp_path / "out")[1]
    assert (whole.length, short.length) == (5, 4) and short.env_steps == 3
    np.testing.assert_array_equal(short.observation["vector"], shown)
    np.testing.assert_allclose(short.action, [[0], *steps(4)[:3]])
    assert short.reward.tolist() == [0, 1, 2, 3]
    assert bool(whole.is_terminal[-1]) and not short.is_terminal[-1] and short.info["truncated"]
    store("test/few-v0", [(np.zeros((2, 3)), steps(4), np.ones(4))])
    with pytest.raises(
        PlanetError, match="few-v0: episode 0: 2 observations, 4 actions and 4 rewards do not fit"
    ):
        exchange.import_dataset("test/few-v0", tmp_path / "few", None, 64, False)


def test_actions_without_bounds_are_refused_or_scaled_by_the_data(store, tmp_path, caplog):
    low, high = np.array([-np.inf, 0], np.float32), np.array([np.inf, 4], np.float32)
    actions = np.array([[-3, 1], [5, 2], [1, 3]], np.float32)
    store("test/wide-v0", [(np.zeros((4, 3)), actions, np.ones(3))], done=spaces.Box(low, high))
    with pytest.raises(PlanetError, match="have no bounds .*; add --scale-actions") as caught:
        exchange.import_dataset("test/wide-v0", tmp_path / "out", None, 64, False)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    exchange.import_dataset("test/wide-v0", tmp_path / "out", None, 64, False, scale_actions=True)
    assert "[-1, 1] stands for [-3.0, 0.0] to [5.0, 4.0]" in caplog.text
    [episode] = loaded(tmp_path / "out")[1]
    np.testing.assert_allclose(episode.action, [[0, 0], [-1, -0.5], [1, 0], [0, 0.5]])


def test_what_makes_no_vector_is_left_out_by_the_option_that_the_line_names(make, tmp_path):
    seen = spaces.Dict({"a": VECTOR, "says": spaces.Text(4), "b": spaces.Discrete(2)})
    make("test/words-v0", seen, spaces.Discrete(2))
    with pytest.raises(PlanetError) as caught:
        exchange.import_dataset("test/words-v0", tmp_path / "out", None, 64, False)
    assert str(caught.value) == (
        "dataset test/words-v0: says is a Text space that makes no vector; "
        "leave it out, --drop says"
    )
    main(["minari", "import", "test/words-v0", "--out", str(tmp_path / "out"), "--drop", "says"])
    assert loaded(tmp_path / "out")[0].observation == {
        "a": ((3,), "float32"),
        "b": ((2,), "float32"),
    }


@pytest.mark.parametrize("jpeg", [False, True])
def test_images_that_were_stored_as_jpeg_are_told(store, tmp_path, caplog, jpeg):
    image = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    store(
        "test/seen-v0",
        [(np.zeros((3, 40, 40, 3), np.uint8), steps(2), np.ones(2))],
        seen=image,
        jpeg=jpeg,
    )
    exchange.import_dataset("test/seen-v0", tmp_path / "out", None, 64, False)
    assert ("stored as JPEG" in caplog.text) == jpeg


def test_a_bad_episode_is_named_and_nothing_of_its_import_stays(store, tmp_path):
    store(
        "test/nan-v0",
        [(np.zeros((3, 3)), steps(2), [1, 1]), (np.zeros((3, 3)), steps(2), [1, np.nan])],
    )
    with pytest.raises(
        PlanetError,
        match="dataset test/nan-v0: episode 1: episode reward: not finite at frame 2; add --skip",
    ):
        exchange.import_dataset("test/nan-v0", tmp_path / "out", None, 64, False)
    assert not (tmp_path / "out").exists()


def test_bad_episodes_are_left_out_where_that_is_asked_for(store, tmp_path, caplog, capsys):
    good, two = (np.ones((3, 3)), 2 * steps(2), [1, 1]), np.ones((2, 2))
    bad = [
        (np.full((3, 3), np.nan), steps(2), [1, 1]),
        (np.zeros((3, 3)), steps(2), two),
        (np.zeros((5, 3)), steps(2), [1, 1]),
    ]
    store("test/some-v0", [bad[0], good, *bad[1:], good])
    out = tmp_path / "out"
    words = ["minari", "import", "test/some-v0", "--out", str(out)]
    with pytest.raises(SystemExit):
        main(words)
    assert "observation 'vector' has NaN or infinity in it; add --skip" in capsys.readouterr().err
    main([*words, "--skip"])
    assert [episode.length for episode in loaded(out)[1]] == [3, 3]
    assert caplog.messages == [
        "dataset test/some-v0: 3 of its 5 episodes cannot be taken and are left out, "
        "the first is episode 0: "
        "observation 'vector' has NaN or infinity in it",
        "dataset test/some-v0: 4 actions lay beyond their bounds and are clipped to them, of 4",
    ]
    assert episode_set.shortfall(Replay(out, 1000)) is None
    with pytest.raises(SystemExit):
        main([*words, "--skip"])
    assert "holds 2 episodes already, or give another folder" in capsys.readouterr().err
    store("test/none-v0", bad[1:])
    line = (
        "no episode of it can be taken; episode 0: has rewards of shape .2, 2., must be one number"
    )
    with pytest.raises(PlanetError, match=line):
        exchange.import_dataset("test/none-v0", tmp_path / "none", None, 64, False, skip=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("short", ["a", "b"])
def test_parts_of_an_observation_may_differ_in_length_by_the_last(store, tmp_path, short):
    seen = spaces.Dict(a=VECTOR, b=VECTOR)
    shown = {key: np.arange(15.0).reshape(5, 3)[: 4 if key == short else 5] for key in seen}
    store("test/uneven-v0", [(shown, steps(4), np.ones(4))], seen)
    exchange.import_dataset("test/uneven-v0", tmp_path / "out", None, 64, False)
    [episode] = loaded(tmp_path / "out")[1]
    assert episode.length == 4 and episode.info["truncated"]
    exchange.import_dataset("test/uneven-v0", tmp_path / "all", None, 64, False, drop=[short])
    assert loaded(tmp_path / "all")[1][0].length == 5


def test_nested_actions_without_bounds_are_scaled_too(store, tmp_path, caplog):
    wide = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    done = spaces.Dict(arm=spaces.Tuple((wide, spaces.Box(-1, 1, (1,)))), leg=wide)
    acted = {"arm": (4 * steps(3), steps(3)), "leg": 6 * steps(3) + 1}
    store("test/deep-v0", [(np.zeros((4, 3)), acted, np.ones(3))], done=done)
    with pytest.raises(PlanetError, match="its actions arm.0, .* have no bounds .*; add --scale"):
        exchange.import_dataset("test/deep-v0", tmp_path / "out", None, 64, False)
    exchange.import_dataset("test/deep-v0", tmp_path / "out", None, 64, False, scale_actions=True)
    [episode] = loaded(tmp_path / "out")[1]
    np.testing.assert_allclose(episode.action[1:], np.tile(steps(3), 3))
    assert "its actions leg have no bounds; [-1, 1] stands for [-5.0] to [7.0]" in caplog.text


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (
            spaces.Dict(cam=spaces.Box(-np.inf, np.inf, (40, 40, 3)), q=VECTOR),
            "cam has floats from -inf to inf; "
            "make a dataset of it that declares its bounds, as 0 and 1, or leave it "
            "out, --drop cam",
        ),
        (
            spaces.Dict(
                cam=spaces.Box(0, 255, (40, 40, 3), np.uint8), q=VECTOR, say=spaces.Text(4)
            ),
            "say is a Text space that makes no vector; leave it out, --drop say",
        ),
        (spaces.Box(0, 1, (4, 40, 40)), "make a dataset of it without the stack"),
        (
            spaces.Text(4),
            "its observation is a Text space that makes no vector; make a dataset of it that",
        ),
    ],
    ids=["unbounded", "text beside an image", "stack", "text alone"],
)
def test_no_part_of_an_observation_is_left_out_without_a_word(make, tmp_path, seen, says):
    make("test/parts-v0", seen, spaces.Discrete(2))
    with pytest.raises(PlanetError) as caught:
        exchange.import_dataset("test/parts-v0", tmp_path / "out", None, 64, False)
    assert says in str(caught.value)
    assert not {"env.id", "--observe"} & set(str(caught.value).split())


@pytest.mark.parametrize(
    ("done", "fix"),
    [
        (
            spaces.Dict(a=spaces.Box(-1, 1), b=spaces.Discrete(2)),
            "; make a dataset of it with choices only",
        ),
        (spaces.Discrete(10_000), "; make a dataset of it with several smaller ones"),
    ],
    ids=["mix", "many"],
)
def test_lines_about_actions_say_what_can_be_done_with_a_dataset(make, tmp_path, done, fix):
    make("test/acts-v0", VECTOR, done)
    with pytest.raises(PlanetError, match="^dataset test/acts-v0: its actions ") as caught:
        exchange.import_dataset("test/acts-v0", tmp_path / "out", None, 64, False)
    assert fix in str(caught.value)


def test_names_that_are_dropped_are_checked(make, tmp_path):
    make("test/names-v0", spaces.Dict(at=VECTOR, to=VECTOR), spaces.Discrete(2))
    for drop, says in (
        (["art"], "^--drop = 'art': .*'at'"),
        (["at", "to"], "^--drop: leaves nothing"),
    ):
        with pytest.raises(PlanetError, match=says):
            exchange.import_dataset("test/names-v0", tmp_path / "out", None, 64, False, drop=drop)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


KILLED = """
import os, signal, sys, time
from pathlib import Path
from planet_rssm import config
from planet_rssm.datasets import minari as exchange
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.minari import writing

def after(call, number):
    def counted(*arguments):
        counted.calls += 1
        if counted.calls > number:
            while verb == "import" and len(list(Path(words[1]).glob("0*.safetensors"))) < number:
                time.sleep(0.001)  # those before are on their way to the disk
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    counted.calls = 0
    return counted

number, verb, *words = sys.argv[1:]
if verb == "import":
    Replay._prepare = after(Replay._prepare, int(number))
    exchange.import_dataset(words[0], Path(words[1]), None, 64, False)
else:
    writing._buffer = after(writing._buffer, int(number))
    exchange.export_dataset(Path(words[0]), words[1])
"""


def killed(*words):
    """Run an import or export in a process that kills itself before its n-th episode."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_a_killed_import_is_known_as_such_and_the_same_command_goes_on(store, tmp_path, capsys):
    store("test/six-v0", [(np.full((3, 3), index), steps(2), [index, 1]) for index in range(6)])
    exchange.import_dataset("test/six-v0", tmp_path / "whole", None, 64, False)
    killed(2, "import", "test/six-v0", tmp_path / "half")
    assert len(Replay(tmp_path / "half", 1000)) == 2
    settings = config.load("cartpole-vectors", [f"data.folder={tmp_path / 'half'}"])
    assert "holds 2 of the 6 episodes that it was to have" in adopt_environment(settings, [])[1]
    with pytest.raises(
        PlanetError, match="holds 000000.safetensors already, begun by verb minari import, "
    ):
        exchange.import_dataset("test/six-v0", tmp_path / "half", None, 64, False, drop=["x"])
    exchange.import_dataset("test/six-v0", tmp_path / "half", None, 64, False)
    assert files(tmp_path / "half") == files(tmp_path / "whole")
    assert "was to have" not in adopt_environment(settings, [])[1]
    with pytest.raises(PlanetError, match="holds 6 episodes already"):
        exchange.import_dataset("test/six-v0", tmp_path / "half", None, 64, False)


def test_a_killed_export_leaves_no_dataset_and_can_be_repeated(store, tmp_path, home):
    store("test/three-v0", [(np.full((3, 3), index), steps(2), [index, 1]) for index in range(3)])
    exchange.import_dataset("test/three-v0", tmp_path / "set", None, 64, False)
    killed(2, "export", tmp_path / "set", "other/mine-v0")
    assert list(minari.list_local_datasets()) == ["test/three-v0"]
    exchange.export_dataset(tmp_path / "set", "other/mine-v0")
    assert sorted(path.name for path in home.iterdir()) == ["other", "test"]
    assert minari.load_dataset("other/mine-v0").total_episodes == 3
