"""Many episodes are added at once: the same files, and none counts before it is on the disk."""

import errno
import os
import threading

import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.data.replay import Replay

COUNT = 9


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_adds_what_add_does(tmp_path, make_episode):
    one, many = Replay(tmp_path / "one", 10_000), Replay(tmp_path / "many", 10_000)
    episodes = [make_episode(4 + mark, mark) for mark in range(COUNT)]
    for index, episode in enumerate(episodes):
        one.add(episode, index)
    with many.adding() as add:
        for index, episode in reversed(list(enumerate(episodes))):
            add(episode, index)
    assert one.episodes == many.episodes and many.frames == sum(range(4, 4 + COUNT))
    for replay in (one, many):
        replay.commit()
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_a_name_comes_after_its_bytes_and_the_manifest_after_all_names(
    tmp_path, make_episode, monkeypatch
):
    events, lock = [], threading.Lock()

    def noted(kind, call, name):
        def noting(*arguments):
            with lock:
                events.append((kind, name(*arguments)))
            return call(*arguments)

        return noting

    path_of = lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: E731
    monkeypatch.setattr(os, "fsync", noted("sync", os.fsync, path_of))
    monkeypatch.setattr(
        os, "replace", noted("name", os.replace, lambda *pair: tuple(map(str, pair)))
    )
    replay = Replay(tmp_path, 10_000)
    with replay.adding() as add:
        for index in range(COUNT):
            add(make_episode(4, index), index)
    replay.commit()
    named = {pair[1]: at for at, (kind, pair) in enumerate(events) if kind == "name"}
    manifest = named.pop(str(tmp_path / "manifest.json"))
    assert len(named) == COUNT
    for at in named.values():
        assert ("sync", events[at][1][0]) in events[:at]
    assert ("sync", str(tmp_path)) in events[max(named.values()) : manifest]


@pytest.mark.parametrize("fails", [0, 4, COUNT - 1])
def test_a_full_disk_ends_it_and_the_rest_goes_on(tmp_path, make_episode, monkeypatch, fails):
    replay = Replay(tmp_path, 10_000)
    real = os.replace

    def full(source, target):
        if str(target).endswith(f"{fails:06d}.safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"), replay.adding() as add:
            for index in range(COUNT):
                add(make_episode(4, index), index)
    there = {entry.index for entry in replay.episodes}
    assert fails not in there and set(range(fails)) <= there
    assert there == {entry.index for entry in Replay(tmp_path, 10_000).episodes}
    assert not list(tmp_path.glob("*.tmp"))
    with replay.adding() as add:
        for index in set(range(COUNT)) - there:
            add(make_episode(4, index), index)
    replay.commit()
    assert len(Replay(tmp_path, 10_000)) == COUNT


def test_what_the_caller_raises_leaves_what_was_added(tmp_path, make_episode):
    replay = Replay(tmp_path, 10_000)
    with pytest.raises(PlanetError, match="has one already"), replay.adding() as add:
        add(make_episode(4, 0), 0)
        replay.add(make_episode(4, 1), 1)
        add(make_episode(4, 1), 1)
    assert [entry.index for entry in replay.episodes] == [0, 1]
