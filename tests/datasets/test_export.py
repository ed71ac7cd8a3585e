"""Sets of ours in other programs' formats, and back: every number is the same."""

import json

import numpy as np
import pytest
from numbered import images, loaded, number_of
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec


def spec_of(groups=(), size=2):
    return EnvSpec(
        "gym/mine:Arm-v0",
        {
            "image": ((16, 16, 3), "uint8"),
            "images.wrist": ((32, 32, 3), "uint8"),
            "speed": ((1,), "float32"),
            "state": ((3,), "float32"),
        },
        sum(groups) or size,
        2,
        1 / 30,
        20,
        "own",
        "test 1",
        discrete=bool(groups),
        groups=groups,
        terminates=True,
    )


def collected(folder, spec):
    replay = Replay(folder, 2**40)
    for index in range(3):
        rng = np.random.default_rng(index)
        frames = 5 + index
        observation = {
            key: rng.integers(0, 256, (frames, *shape), np.uint8)
            if kind == "uint8"
            else rng.normal(size=(frames, *shape)).astype(np.float32)
            for key, (shape, kind) in spec.observation.items()
        }
        action = rng.uniform(-1, 1, (frames - 1, spec.action_size)).astype(np.float32)
        if spec.groups:
            action = np.eye(spec.action_size, dtype=np.float32)[action.argmax(1)]
        reward = rng.normal(size=frames - 1).astype(np.float32)
        replay.add(
            Episode.from_transitions(
                observation,
                action,
                reward,
                terminated=index == 1,
                truncated=index > 0,
                info={
                    "env": spec.to_json(),
                    "seed": 70 + index,
                    "env_steps": 2 * frames - 2,
                    "x": [index],
                },
            ),
            index,
        )
    replay.commit()
    return loaded(folder)[1]


def needs(kind):
    if kind == "lerobot":
        pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")


@pytest.mark.parametrize("kind", ["npz", "lerobot"])
@pytest.mark.parametrize("spec", [spec_of(), spec_of(size=1), spec_of((3,))], ids=str)
def test_export_then_import_gives_back_every_number(tmp_path, kind, spec, capsys):
    needs(kind)
    episodes = collected(tmp_path / "set", spec)
    target = tmp_path / "there" / "exported"
    main(["data", "export", str(tmp_path / "set"), str(target), "--to", kind])
    main(["data", "import", str(target), "--out", str(tmp_path / "back")])
    assert "taken as they were" in capsys.readouterr().out
    back = loaded(tmp_path / "back")[1]
    assert [a.to_bytes() for a in back] == [b.to_bytes() for b in episodes]
    assert not list(target.parent.glob(".*"))


def numbered_set(folder, lengths, interval, size=32):
    """Two cameras whose pictures say which frame they are; the second counts down."""
    keys = {"image": ((size, size, 3), "uint8"), "wrist": ((size, size, 3), "uint8")}
    spec = EnvSpec("gym/x", keys, 1, 1, interval, 20, "own", "test 1")
    replay, first = Replay(folder, 2**40), 0
    for index, length in enumerate(lengths):
        info = {"env": spec.to_json(), "seed": 0, "env_steps": length - 1}
        top = images(length, size, first)
        still = np.zeros((length - 1, 1), np.float32)
        observation = {"image": top, "wrist": 255 - top}
        replay.add(
            Episode.from_transitions(observation, still, still[:, 0], False, True, info), index
        )
        first += length
    replay.commit()


@pytest.mark.parametrize(("interval", "most"), [(1 / 30, 1 << 30), (0.08, -1)])
def test_frame_i_of_a_film_is_frame_i(tmp_path, interval, most, monkeypatch, capsys):
    """Many episodes in one film, and one in each: by its time every frame is its own."""
    needs("lerobot")
    pytest.importorskip("av", reason="needs PyAV, extra `data`")
    monkeypatch.setattr("planet_rssm.datasets.films._MOST", most)
    lengths = (5, 2, 40, 3, 7)
    numbered_set(tmp_path / "set", lengths, interval)
    target = tmp_path / "out"
    main(["data", "export", str(tmp_path / "set"), str(target), "--to", "lerobot", "--video"])
    films = sorted(target.glob("videos/observation.images.wrist/*/*.mp4"))
    assert len(films) == (1 if most > 0 else len(lengths))
    info = json.loads((target / "meta" / "info.json").read_text())
    assert info["fps"] == (30 if interval < 0.05 else 12.5)
    assert info["features"]["observation.images.image"]["info"]["video.codec"] == "h264"
    main(["data", "import", str(target), "--out", str(tmp_path / "back")])
    assert "taken as they were, but for what the films lost" in capsys.readouterr().out
    spec, back = loaded(tmp_path / "back")
    before = loaded(tmp_path / "set")
    assert spec == before[0]
    for there, here in zip(back, before[1], strict=True):
        for key in ("image", "wrist"):
            one, other = there.observation[key], here.observation[key]
            assert np.abs(one.astype(int) - other).mean() < 2
            assert [*map(number_of, one)] == [*map(number_of, other)]
        assert np.array_equal(there.action, here.action) and there.info == here.info


def test_films_are_refused_where_there_are_none(tmp_path, capsys):
    needs("lerobot")
    numbered_set(tmp_path / "set", (3,), 0.1, size=33)
    words = ["data", "export", str(tmp_path / "set"), str(tmp_path / "out"), "--video", "--to"]
    for kind, line in (("lerobot", "even number of pixels a side"), ("npz", "npz has no films")):
        with pytest.raises(SystemExit):
            main([*words, kind])
        assert line in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_exported_file_is_an_episode_of_dreamer(tmp_path):
    episodes = collected(tmp_path / "set", spec_of())
    main(["data", "export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "npz"])
    for path, episode in zip(sorted((tmp_path / "out").iterdir()), episodes, strict=True):
        assert int(path.stem.split("-")[-1]) == episode.length
        with np.load(path, allow_pickle=False) as file:
            assert np.array_equal(file["image"], episode.observation["image"])
            assert np.array_equal(file["action"], episode.action)
            assert np.array_equal(file["discount"] == 0, episode.is_terminal)


def test_a_target_that_is_there_is_left_alone(tmp_path):
    collected(tmp_path / "set", spec_of())
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["data", "export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "npz"])
    assert end.value.code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    collected(tmp_path / "set", spec_of())
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", None)
        with pytest.raises(SystemExit):
            main(["data", "export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "npz"])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_our_own_numbers_are_taken_as_they_are(tmp_path, capsys):
    collected(tmp_path / "set", spec_of())
    main(["data", "export", str(tmp_path / "set"), str(tmp_path / "out"), "--to", "npz"])
    with pytest.raises(SystemExit):
        main(["data", "import", str(tmp_path / "out"), "--dry-run", "--fps", "3"])
    assert "an export of planet, taken as it was; leave out --fps" in capsys.readouterr().err


def test_info_counts_and_a_sheet_shows_frames(tmp_path, capsys):
    episodes = collected(tmp_path / "set", spec_of())
    sheet = tmp_path / "frames.png"
    main(["data", "info", str(tmp_path / "set"), "--json", "--sheet", str(sheet)])
    result = json.loads(capsys.readouterr().out)
    assert (result["episodes"], result["frames"], result["env_steps"]) == (3, 18, 30)
    assert (result["terminated"], result["truncated"]) == (1, 2)
    assert result["frames_of_an_episode"] == [5, 6, 7]
    speed = np.concatenate([episode.observation["speed"] for episode in episodes])
    assert result["ranges"]["speed"] == f"{speed.min():g} to {speed.max():g}"
    with Image.open(sheet) as picture:
        assert picture.size == (160, 3 * 28)
        first = np.array(picture)[12:28, :16]
    assert np.array_equal(first, episodes[0].observation["image"][0])
    main(["data", "info", str(tmp_path / "set"), "--sheet", str(sheet), "--camera", "images.wrist"])
    assert "3 episodes of gym/mine:Arm-v0" in capsys.readouterr().out
    with pytest.raises(PlanetError, match="no camera none: its cameras are image, images.wrist"):
        from planet_rssm.datasets.contents import write_sheet

        write_sheet(tmp_path / "set", sheet, "none")
