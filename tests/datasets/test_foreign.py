"""Episodes of other programs, from files of the layouts that they write."""

import json
import pickle

import numpy as np
import pytest
from numbered import SIZE, after, before, images, loaded, number_of, steps

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.foreign.detect import open_source
from planet_rssm.datasets.foreign.importing import survey, write
from planet_rssm.datasets.foreign.wish import Wish
from planet_rssm.envs.pictures import all_resized, resized


def imported(source, folder, kind=None, skip=False, **wish):
    looked = survey(open_source(str(source), kind), Wish(**{"size": SIZE, **wish}), skip=skip)
    write(looked, folder)
    return loaded(folder)


def save(folder, name, **arrays):
    folder.mkdir(exist_ok=True, parents=True)
    np.savez_compressed(folder / name, **arrays)


def dreamer(folder, name="20240101T000000-a-9.npz", frames=9, seed=0, **more):
    image, action, reward = steps(frames, seed)
    is_first, is_last = np.arange(frames) == 0, np.arange(frames) == frames - 1
    save(
        folder,
        name,
        **{
            "image": image,
            "action": before(action),
            "reward": before(reward),
            "discount": np.ones(frames, np.float32),
            "is_first": is_first,
            "is_last": is_last,
            "is_terminal": np.zeros(frames, bool),
            **more,
        },
    )
    return image, action, reward


def test_an_episode_a_file_keeps_its_numbers(tmp_path):
    given = [dreamer(tmp_path / "in", f"t{seed}.npz", 7 + seed, seed) for seed in range(3)]
    spec, episodes = imported(tmp_path / "in", tmp_path / "out")
    assert spec.id == "gym/imported/in"
    assert spec.observation == {"image": ((SIZE, SIZE, 3), "uint8")}
    assert (spec.action_size, spec.discrete, spec.terminates) == (2, False, True)
    for (image, action, reward), episode in zip(given, episodes, strict=True):
        there = episode.to_transitions()
        assert np.array_equal(there.observation["image"], image)
        assert [number_of(frame) for frame in image] == list(range(len(image)))
        assert np.array_equal(there.action, action)
        assert np.array_equal(there.reward, reward)
        assert not there.terminated
        assert there.truncated


@pytest.mark.parametrize("ended", ["is_terminal", "discount"])
def test_an_end_of_the_task_is_not_an_end_of_time(tmp_path, ended):
    frames = 5
    last = np.arange(frames) == frames - 1
    image, action, reward = steps(frames)
    flag = last if ended == "is_terminal" else (~last).astype(np.float32)
    save(
        tmp_path / "in",
        "a.npz",
        **{"image": image, "action": before(action), "reward": before(reward), ended: flag},
    )
    _, (episode,) = imported(tmp_path / "in", tmp_path / "out")
    assert episode.is_terminal.tolist() == last.tolist()
    assert episode.info["truncated"] is False


def chunk(folder, name, image, action, reward, first, last):
    save(
        folder,
        f"{name}.npz",
        image=image,
        action=action,
        reward=reward,
        is_first=first,
        is_last=last,
        is_terminal=last,
        stepid=np.zeros((len(image), 20), np.uint8),
        **{"dyn/deter": np.zeros((len(image), 4), np.float32)},
    )


def test_chunks_are_chained_and_cut_into_episodes(tmp_path):
    """Two episodes of 6 and 5 frames in chunks of 4; then 2 frames of one that goes on."""
    (image0, action0, reward0), (image1, action1, reward1) = steps(6), steps(5, 1)
    image2, action2, reward2 = steps(2, 2)
    rows = [
        np.concatenate([image0, image1, image2]),
        np.concatenate([after(action0), after(action1), after(action2)]),
        np.concatenate([before(reward0), before(reward1), before(reward2)]),
        np.isin(np.arange(13), [0, 6, 11]),
        np.isin(np.arange(13), [5, 10]),
    ]
    names = ["T1-a-c-4", "T2-c-b-4", "T3-b-d-4", "T4-d-0-1"]
    for index, name in enumerate(names):
        chunk(tmp_path / "in", name, *(part[4 * index : 4 * index + 4] for part in rows))
    spec, episodes = imported(tmp_path / "in", tmp_path / "out")
    assert set(spec.observation) == {"image"}
    assert [episode.length for episode in episodes] == [6, 5, 2]
    for episode, image, action, reward in (
        (episodes[0], image0, action0, reward0),
        (episodes[1], image1, action1, reward1),
        (episodes[2], image2, action2, reward2),
    ):
        there = episode.to_transitions()
        assert np.array_equal(there.observation["image"], image)
        assert np.array_equal(there.action, action)
        assert np.array_equal(there.reward, reward)
    assert [episode.is_terminal[-1] for episode in episodes] == [True, True, False]


def test_a_stream_whose_first_chunks_are_gone_begins_where_it_is_left(tmp_path):
    image, action, reward = steps(6)
    first = np.zeros(6, bool)
    rows = [image, after(action), before(reward), first, np.arange(6) == 5]
    chunk(tmp_path / "in", "T2-b-0-4", *(part[2:] for part in rows))
    source = open_source(str(tmp_path / "in"))
    assert "1 of 1 episodes begin in their middle" in source.notes[0]
    _, (episode,) = imported(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(episode.to_transitions().action, action[2:])
    assert np.array_equal(episode.to_transitions().reward, reward[2:])


def test_rows_of_steps_lose_the_last_action_or_repeat_the_last_frame(tmp_path):
    image, action, reward = steps(6)
    save(
        tmp_path / "in",
        "a.npz",
        image=image,
        action=np.concatenate([action, [[0, 0.5]]]),
        reward=after(reward) + 1,
        terminated=np.arange(6) == 5,
    )
    _, (dropped,) = imported(tmp_path / "in", tmp_path / "dropped", order="step")
    assert np.array_equal(dropped.to_transitions().observation["image"], image)
    assert np.array_equal(dropped.to_transitions().reward, reward + 1)
    assert not dropped.is_terminal[-1]
    _, (repeated,) = imported(tmp_path / "in", tmp_path / "repeated", order="step", end="repeat")
    assert repeated.length == 7
    assert np.array_equal(repeated.observation["image"][-1], image[-1])
    assert repeated.reward[-1] == 1
    assert repeated.is_terminal[-1]


def test_images_are_resized_with_the_environments_filter(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 20, 30, 3), np.uint8)
    dreamer(tmp_path / "in", frames=4, image=image.transpose(0, 3, 1, 2))
    _, (episode,) = imported(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(
        episode.observation["image"], np.stack([resized(frame, SIZE) for frame in image])
    )


@pytest.mark.parametrize("shape", [(96, 96), (20, 30), (31, 17), (64, 64), (700, 900)])
def test_frames_are_resized_together_as_each_is_alone(shape):
    frames = np.random.default_rng(0).integers(0, 256, (5, *shape, 3), np.uint8)
    for size in (16, 64):
        alone = [resized(frame, size) for frame in frames]
        assert np.array_equal(all_resized(frames, size), alone)
        assert all_resized(frames[:0], size).shape == (0, size, size, 3)


@pytest.mark.parametrize("room", [0, 500, 1 << 20])
def test_numbers_are_read_once_while_there_is_room(tmp_path, monkeypatch, room):
    """Whether they were kept or not, and whatever is read again: the same episodes."""
    for seed in range(3):
        dreamer(tmp_path / "in", f"{seed}.npz", 9, seed, pose=np.full(9, seed, np.float32))
    _, whole = imported(tmp_path / "in", tmp_path / "whole")
    monkeypatch.setattr("planet_rssm.datasets.foreign.mapping._KEPT", room)
    looked = survey(open_source(str(tmp_path / "in")), Wish(size=SIZE))
    for _ in range(2):
        again = [looked.episode(index).to_bytes() for index in range(3)]
        assert again == [episode.to_bytes() for episode in whole]


@pytest.mark.parametrize("top", [1, 255])
def test_images_of_floats_become_bytes(tmp_path, top):
    image, *_ = steps(4)
    dreamer(tmp_path / "in", frames=4, image=(image / 255 * top).astype(np.float32))
    _, (episode,) = imported(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(episode.observation["image"], image)


def test_several_cameras_and_vectors_by_key(tmp_path):
    more = {
        "wrist": images(9, 32),
        "state/pose": np.arange(27, dtype=np.float64).reshape(9, 3),
        "height": np.arange(9, dtype=np.float32),
        "log_success": np.zeros(9, np.float32),
    }
    dreamer(tmp_path / "in", **more)
    spec, (episode,) = imported(tmp_path / "in", tmp_path / "all")
    assert set(spec.observation) == {"image", "wrist", "state.pose", "height"}
    assert np.array_equal(episode.observation["state.pose"], more["state/pose"])
    assert episode.observation["height"].shape == (9, 1)
    spec, _ = imported(tmp_path / "in", tmp_path / "few", drop=("image",), observe="pixels")
    assert set(spec.observation) == {"wrist"}
    spec, _ = imported(tmp_path / "in", tmp_path / "one", keys=("height",))
    assert (set(spec.observation), spec.renderer) == ({"height"}, "none")


def test_actions_beyond_one_are_scaled_when_asked(tmp_path):
    action = np.array([[0, 0], [-3, 5], [1, 5], [0, 5]], np.float32)
    dreamer(tmp_path / "in", frames=4, action=action)
    with pytest.raises(PlanetError, match="action goes from -3 to 5.* add --scale-actions"):
        imported(tmp_path / "in", tmp_path / "out")
    _, (episode,) = imported(tmp_path / "in", tmp_path / "out", scale_actions=True)
    assert episode.action.tolist() == [[0, 0], [-1, 0], [1, 0], [0.5, 0]]


def test_choices_are_one_hot_or_whole_numbers(tmp_path):
    one_hot = before(np.eye(3, dtype=np.float32)[[2, 0, 1]])
    dreamer(tmp_path / "hot", frames=4, action=one_hot)
    spec, (episode,) = imported(tmp_path / "hot", tmp_path / "a")
    assert (spec.groups, spec.discrete) == ((3,), True)
    assert np.array_equal(episode.action, one_hot)
    dreamer(tmp_path / "int", frames=4, action=np.array([0, 2, 0, 1]))
    spec, (episode,) = imported(tmp_path / "int", tmp_path / "b")
    assert np.array_equal(episode.action, one_hot)
    spec, _ = imported(tmp_path / "int", tmp_path / "c", choices=5)
    assert spec.groups == (5,)
    spec, _ = imported(tmp_path / "hot", tmp_path / "d", choices=3)
    assert spec.groups == (3,)


@pytest.mark.parametrize(
    ("action", "choices", "said"),
    [
        (np.zeros((4, 2), np.float32), 3, "--choices 3: action is float32, not whole numbers"),
        (before(np.eye(3, dtype=np.float32)), 4, "--choices 4: action is a single 1 of 3"),
        (np.array([0, 5, 0, 1]), 4, "--choices 4: action goes up to 5, so there are 6 or more"),
        (np.array([0, 2, 0, 1]), 9000, "action would be 9000 choices, at most 8192 are taken"),
        (np.array([0, -1, 0, 1]), None, "some below 0.* save them so, or as floats"),
        (np.array([0, 10**6, 0, 1]), None, "action would be 1000001 choices, at most 8192 are"),
    ],
)
def test_choices_that_are_not_there_are_refused(action, choices, said, tmp_path):
    dreamer(tmp_path / "in", frames=4, action=action)
    with pytest.raises(PlanetError, match=said):
        imported(tmp_path / "in", tmp_path / "out", choices=choices)
    assert not (tmp_path / "out").exists()


def test_arrays_of_another_length_are_named(tmp_path):
    image, action, reward = steps(5)
    save(tmp_path / "in", "a.npz", image=image, action=before(action), reward=reward[:3])
    said = "reward: not as long as the episode, so left out"
    for wish in ({}, {"reward": "reward"}):
        with pytest.raises(PlanetError, match=said):
            imported(tmp_path / "in", tmp_path / "out", **wish)
    save(
        tmp_path / "rgba", "a.npz", image=np.zeros((5, 32, 32, 4), np.uint8), action=before(action)
    )
    with pytest.raises(PlanetError, match="An image has 1 or 3 channels and at least 16 pixels"):
        imported(tmp_path / "rgba", tmp_path / "out", reward="none")


def test_what_is_a_set_already_and_a_place_that_is_taken_are_named(tmp_path, capsys):
    dreamer(tmp_path / "in")
    imported(tmp_path / "in", tmp_path / "run" / "episodes")
    for name in ("run", "run/episodes"):
        with pytest.raises(
            PlanetError, match="already, use them as they are: --data .*run/episodes"
        ):
            open_source(str(tmp_path / name))
    (tmp_path / "run" / "config.yaml").write_text("format: 1")
    for out, said in (("in", "is SOURCE itself"), ("run", "is the folder of a run")):
        with pytest.raises(SystemExit) as end:
            main(["data", "import", str(tmp_path / "in"), "--out", str(tmp_path / out)])
        assert end.value.code == 1 and said in capsys.readouterr().err
    assert len(list((tmp_path / "in").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "episodes"]


def test_what_is_not_in_the_files_is_asked_for(tmp_path):
    image, action, _ = steps(5)
    save(tmp_path / "in", "a.npz", image=image, act=before(action))
    with pytest.raises(PlanetError, match="which column are the actions.* --action"):
        imported(tmp_path / "in", tmp_path / "out")
    with pytest.raises(PlanetError, match="has no rewards.*--reward none"):
        imported(tmp_path / "in", tmp_path / "out", action="act")
    with pytest.raises(PlanetError, match="--reward imag: .*did you mean 'image'"):
        imported(tmp_path / "in", tmp_path / "out", action="act", reward="imag")
    spec, (episode,) = imported(tmp_path / "in", tmp_path / "out", action="act", reward="none")
    assert not episode.reward.any()
    assert not spec.terminates


def test_pickles_are_refused(tmp_path):
    dreamer(tmp_path / "in", info=np.array([{}] * 9, object))
    with pytest.raises(PlanetError, match="'info' holds Python objects, a pickle"):
        open_source(str(tmp_path / "in"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "ep.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(PlanetError, match=r"ep.pkl: .pkl files are, or may be, pickles"):
        open_source(str(tmp_path / "set"))


def test_episodes_that_cannot_be_taken_are_refused_or_left_out(tmp_path):
    dreamer(tmp_path / "in", "a.npz")
    dreamer(tmp_path / "in", "b.npz", reward=np.full(9, np.nan, np.float32))
    dreamer(tmp_path / "in", "c.npz", is_terminal=np.arange(9) == 4)
    one = np.zeros((1, 2), np.float32)
    dreamer(tmp_path / "in", "d.npz", frames=1, action=one, reward=one[:, 0])
    with pytest.raises(PlanetError, match="b.npz: reward has NaN .*--skip"):
        imported(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _, episodes = imported(tmp_path / "in", tmp_path / "out", skip=True)
    assert len(episodes) == 1


def test_an_import_that_was_killed_goes_on(tmp_path, monkeypatch):
    for index in range(4):
        dreamer(tmp_path / "in", f"{index}.npz", seed=index)
    _, whole = imported(tmp_path / "in", tmp_path / "whole")
    prepare = Replay._prepare

    def killed(self, episode, index):
        if index == 2:
            raise KeyboardInterrupt
        return prepare(self, episode, index)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Replay, "_prepare", killed)
        imported(tmp_path / "in", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    with pytest.raises(PlanetError, match="holds 000000.safetensors already"):
        imported(tmp_path / "in", tmp_path / "out", action_repeat=2)
    _, episodes = imported(tmp_path / "in", tmp_path / "out")
    assert [a.to_bytes() for a in episodes] == [b.to_bytes() for b in whole]


def test_the_command_prints_what_it_will_do_and_does_it(tmp_path, capsys):
    dreamer(tmp_path / "in", pose=np.arange(9, dtype=np.float32))
    out = tmp_path / "out"
    main(["data", "import", str(tmp_path / "in"), "--dry-run", "--size", "32"])
    text = capsys.readouterr().out
    assert "npz, 1 episodes, 9 frames" in text
    assert "the action that led to frame t" in text
    assert "guessed: rate: 30 rows a second (--fps)" in text
    assert not out.exists()
    main(
        ["data", "import", str(tmp_path / "in"), "--out", str(out), "--json", "--fps", "20"]
        + ["--action-repeat", "2", "--drop", "pose"]
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["episodes"], result["frames"], result["env_steps"]) == (1, 9, 16)
    assert (result["control_interval"], result["guessed"]) == (0.05, [])
    spec, _ = loaded(out)
    assert (spec.control_interval, spec.action_repeat, spec.episode_steps) == (0.05, 2, 18)
    with pytest.raises(SystemExit) as end:
        main(["data", "import", str(tmp_path / "in")])
    assert end.value.code == 2


def test_the_command_knows_every_format():
    from planet_rssm.cli import data
    from planet_rssm.datasets.foreign import detect, source

    assert set(data.FORMATS) == set(detect.FORMATS)
    assert set(data.ORDERS) == set(source.ORDERS)
