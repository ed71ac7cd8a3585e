"""Sets of episodes: their folder, what is left alone, and what is said of an incomplete one."""

import contextlib
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.data import episode_set
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay

PART = Part({"verb": "collect", "seed": 0}, 3)


@pytest.fixture
def begun(tmp_path, make_episode):
    """Return a set in which one of three episodes was made."""
    replay = Replay(tmp_path / "set", 1000)
    assert episode_set.begin(replay, PART) == (PART, [0, 1, 2])
    replay.commit()
    replay.add(make_episode(5, 1), 1)
    return tmp_path / "set"


def test_what_is_missing_is_known_whatever_came_of_the_maker(begun):
    replay = Replay(begun, 1000)
    assert replay.parts == [PART]
    assert episode_set.shortfall(replay) == (
        f"{begun}: holds 1 of the 3 episodes that it was to have; "
        "the command that began it makes the rest: "
        "verb collect, seed 0, episodes 3"
    )
    assert episode_set.begin(replay, PART) == (PART, [0, 2])


def test_others_are_refused_or_added_behind(begun, make_episode):
    other = PART._replace(made_by={"verb": "collect", "seed": 1})
    with pytest.raises(PlanetError, match="holds 1 episodes already, or give another folder"):
        episode_set.begin(Replay(begun, 1000), other)
    with pytest.raises(
        PlanetError, match="holds 000001.safetensors already, begun by verb collect, seed 0"
    ):
        episode_set.check_free(begun, other)
    episode_set.check_free(begun, PART)
    episode_set.check_free(begun, other, add=True)
    replay = Replay(begun, 1000)
    part, missing = episode_set.begin(replay, other, add=True)
    assert (part.first, missing) == (3, [3, 4, 5])
    for index in (0, 2, *missing):
        replay.add(make_episode(5, index), index)
    replay.commit()
    replay = Replay(begun, 1000)
    assert episode_set.shortfall(replay) is None and [p.first for p in replay.parts] == [0, 3]
    with pytest.raises(
        PlanetError, match="holds 6 episodes already; add --add for others beside them"
    ):
        episode_set.begin(replay, PART)


def test_a_set_of_nothing_is_begun_by_anybody(tmp_path):
    replay = Replay(tmp_path, 1000)
    episode_set.begin(replay, PART)
    replay.commit()
    other = Part({"verb": "minari import"}, 7)
    episode_set.check_free(tmp_path, other)
    replay = Replay(tmp_path, 1000)
    assert episode_set.begin(replay, other) == (other, list(range(7))) and replay.parts == [other]


def test_two_makers_do_not_write_into_one_folder(tmp_path):
    with episode_set.claimed(tmp_path / "set"):
        with (
            pytest.raises(PlanetError, match="another process writes episodes into it"),
            episode_set.claimed(tmp_path / "set"),
        ):
            pass
    assert not (tmp_path / "set").exists()  # nothing was made


def test_the_episodes_of_a_run_are_left_to_it(tmp_path):
    (tmp_path / "episodes").mkdir()
    episode_set.check_free(tmp_path / "episodes", PART)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(PlanetError, match="holds the episodes of the run in"):
        episode_set.check_free(tmp_path / "episodes", PART, add=True)


FOREIGN = {
    "manifest.json": b'{"name": "an app", "icons": []}',
    "000000.safetensors": b"weights of somebody's",
    ".draft.tmp": b"a text",
}


def test_nothing_of_a_folder_that_is_no_set_is_touched(tmp_path, make_episode, caplog):
    for name, data in FOREIGN.items():
        (tmp_path / name).write_bytes(data)
    replay = Replay(tmp_path, 1000)
    assert replay.env is None and "left as it is" in caplog.text
    for change in (
        replay.commit,
        lambda: replay.add(make_episode(), 1),
        lambda: replay.truncate(0),
    ):
        with pytest.raises(
            PlanetError, match="its manifest.json is not that of episodes; give another folder"
        ):
            change()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FOREIGN
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "000000.safetensors").unlink()
    replay = Replay(tmp_path, 1000)
    replay.add(make_episode(), 0)
    replay.commit()
    assert (tmp_path / ".draft.tmp").read_bytes() == b"a text"


def test_of_a_folder_that_never_ends_only_the_beginning_is_looked_at(tmp_path, monkeypatch):
    names = (Path(f"{number}.npz") for number in itertools.count())
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: names)
    assert "holds no episode but .npz files" in episode_set.no_episode(tmp_path)


def test_what_a_killed_writer_left_beside_is_removed(tmp_path, monkeypatch):
    from planet_rssm.base.files import remove_stale

    with monkeypatch.context() as patch, contextlib.suppress(KeyError):
        patch.setattr(os, "replace", lambda *_: {}["killed"])
        patch.setattr(type(tmp_path), "unlink", lambda *_, **__: None)
        write_atomic(tmp_path / "a.json", [b"{}"])
    assert len(list(tmp_path.iterdir())) == 1
    remove_stale(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "unreadable"])
def test_what_is_no_readable_file_is_set_aside_and_the_others_are_learned_from(
    tmp_path, make_episode, kind, caplog
):
    replay = Replay(tmp_path, 1000)
    for index in range(3):
        replay.add(make_episode(5, index), index)
    replay.commit()
    path = tmp_path / "000001.safetensors"
    data = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(data)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read anything")
    replay = Replay(tmp_path, 1000)
    assert [entry.index for entry in replay.episodes] == [0, 2]
    assert replay.sample(np.random.default_rng(0), 8, 4).mask.all()
    assert "000001.safetensors" in caplog.text and "set aside" in caplog.text


def test_a_damaged_list_of_parts_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text(
        '{"format": 1, "parts": [{"made_by": {}, "episodes": 1e99, "first": 0}]}'
    )
    assert Replay(tmp_path, 1000).parts == []
