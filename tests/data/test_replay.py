import dataclasses
import functools
import itertools
import json
import logging
import os

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay


@pytest.fixture
def lines(caplog):
    """Return what the replay has logged since the last call."""
    caplog.set_level(logging.DEBUG, "planet_rssm")

    def take():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return take


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "episodes"


@pytest.fixture
def filled(folder, make_episode):
    """Return a function that opens a replay and commits one episode for each length given."""

    def fill(*lengths, capacity=10_000):
        replay = Replay(folder, capacity)
        for mark, frames in enumerate(lengths):
            replay.add(make_episode(frames, mark), mark)
        replay.commit()
        return replay

    return fill


def draw(replay, seed=0, batch_size=16, length=4):
    return replay.sample(np.random.default_rng(seed), batch_size, length)


def same(left, right):
    for key, value in left.observation.items():
        np.testing.assert_array_equal(value, right.observation[key])
    for a, b in zip(left[1:], right[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_chunks_are_slices_of_one_episode_and_begin_afresh(filled, make_episode):
    episodes = [make_episode(9, 0), make_episode(12, 1)]
    chunks = draw(filled(9, 12), batch_size=64, length=5)
    assert chunks.observation["image"].shape == (64, 5, 4, 4, 3)
    assert chunks.observation["image"].dtype == np.uint8
    assert chunks.mask.all()
    assert chunks.is_first[:, 0].all() and not chunks.is_first[:, 1:].any()
    assert not chunks.action[:, 0].any()
    for row in range(64):
        start, mark = chunks.observation["speed"][row, 0].astype(int)
        cut = slice(start, start + 5)
        np.testing.assert_array_equal(
            chunks.observation["image"][row], episodes[mark].observation["image"][cut]
        )
        np.testing.assert_array_equal(
            chunks.observation["speed"][row], episodes[mark].observation["speed"][cut]
        )
        np.testing.assert_array_equal(chunks.action[row, 1:], episodes[mark].action[cut][1:])
        np.testing.assert_array_equal(
            chunks.reward[row], episodes[mark].reward[cut]
        )  # the first frame's too


def test_the_action_before_a_chunk_may_be_kept(filled, make_episode):
    episode, replay = make_episode(9, 0), filled(9)
    chunks = replay.sample(np.random.default_rng(0), 64, 5, "kept")
    starts = chunks.observation["speed"][:, 0, 0].astype(int)
    assert set(starts) == set(range(5))
    np.testing.assert_array_equal(chunks.action[:, 0], episode.action[starts])
    np.testing.assert_array_equal(chunks.is_first[:, 0], starts == 0)
    forgotten = replay.sample(np.random.default_rng(0), 64, 5)
    np.testing.assert_array_equal(chunks.action[:, 1:], forgotten.action[:, 1:])
    assert not chunks.is_first[:, 1:].any()


def test_terminal_frames_are_seen(folder, make_episode):
    replay = Replay(folder, 100)
    replay.add(make_episode(5, terminated=True), 0)
    assert draw(replay, length=5).is_terminal.tolist()[0] == [False] * 4 + [True]


def test_short_episodes_are_padded_behind_a_mask(filled):
    chunks = draw(filled(3, 8), batch_size=64, length=6)
    short = chunks.observation["speed"][:, 0, 1] == 0
    assert 0 < short.sum() < 64
    assert (chunks.mask[short] == [True] * 3 + [False] * 3).all()
    assert chunks.mask[~short].all()
    for array in (
        chunks.observation["image"],
        chunks.observation["speed"],
        chunks.action,
        chunks.reward,
    ):
        assert not array[short, 3:].any()


def test_every_start_is_as_likely_as_any_other(filled):
    replay = filled(3, 4, 10)  # for chunks of 4: one padded start, one start, seven starts
    speed = draw(replay, batch_size=9000, length=4).observation["speed"]
    _, counts = np.unique(speed[:, 0], axis=0, return_counts=True)
    assert len(counts) == 9
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_chunks_follow_from_the_seed_and_the_episodes_alone(folder, filled, make_episode, tmp_path):
    replay = filled(8, 9, 10)
    same(draw(replay, seed=3), draw(Replay(folder, 10_000), seed=3))
    other = Replay(tmp_path / "other", 10_000)
    for index, frames in ((2, 10), (0, 8), (1, 9)):  # whichever episode ended first
        other.add(make_episode(frames, index), index)
    same(draw(replay, seed=3), draw(other, seed=3))
    assert (draw(replay, seed=3).reward != draw(replay, seed=4).reward).any()


def test_an_empty_replay_is_refused(folder):
    for asked in (draw, lambda replay: replay.padding(4)):
        with pytest.raises(PlanetError, match="holds no episode; collect some first"):
            asked(Replay(folder, 100))


@pytest.mark.parametrize(
    ("lengths", "share"), [((2, 3), 0.75), ((10,), 0.0), ((5, 13), (5 / 10 + 0 * 4) / 5)]
)
def test_the_share_of_padding_is_what_batches_have(filled, lengths, share):
    replay = filled(*lengths)
    assert replay.padding(10) == pytest.approx(share)
    assert 1 - draw(replay, batch_size=2000, length=10).mask.mean() == pytest.approx(
        share, abs=0.03
    )


def test_an_index_is_taken_once(filled, make_episode):
    with pytest.raises(PlanetError, match="episode 0: .* has one already"):
        filled(5).add(make_episode(), 0)


@pytest.mark.parametrize("field", ["id", "renderer", "simulator"])
def test_episodes_of_another_environment_are_refused(folder, filled, make_episode, spec, field):
    other = make_episode(env=dataclasses.replace(spec, **{field: "another"}).to_json())
    with pytest.raises(
        PlanetError, match=f"env.{field} is 'another', the others of this replay have"
    ):
        filled(5).add(other, 1)
    assert "000001.safetensors" not in names(folder)
    other.save(folder / "000001.safetensors")
    with pytest.raises(PlanetError, match=f"env.{field} is 'another'"):
        Replay(folder, 100)


def test_episodes_whose_rate_an_earlier_version_read_from_elsewhere_are_the_same(
    folder, filled, make_episode, spec
):
    here = dataclasses.replace(
        spec, control_interval=7.0, interval_from="dt", limit_from="environment"
    )
    replay = filled(5)
    replay.add(make_episode(env=here.to_json()), 1)
    replay.commit()
    assert len(Replay(folder, 100)) == len(replay) == 2


def test_images_of_another_size_are_refused(filled, make_episode):
    episode = make_episode()
    larger = {**episode.observation, "image": np.zeros((6, 8, 8, 3), np.uint8)}
    with pytest.raises(PlanetError, match=r"observation/image is \['U8', 8, 8, 3\]"):
        filled(5).add(dataclasses.replace(episode, observation=larger), 1)


def test_the_manifest_names_every_tensor(folder, filled, make_episode):
    filled(5, 6)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    entry = manifest["episodes"][1]
    assert (entry["index"], entry["file"], entry["frames"], entry["env_steps"]) == (
        1,
        "000001.safetensors",
        6,
        20,
    )
    dtype, shape, offset = entry["tensors"]["reward"]
    stored = np.frombuffer((folder / entry["file"]).read_bytes(), np.float32, shape[0], offset)
    assert dtype == "F32"
    np.testing.assert_array_equal(stored, make_episode(6, 1).reward)


def test_a_newer_manifest_is_refused(folder, filled):
    filled(5)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(PlanetError, match="format 2, this version reads up to 1; upgrade"):
        Replay(folder, 100)


def test_the_oldest_leave_and_their_files_go_one_commit_later(folder, filled, make_episode):
    replay = filled(5, 5, 5, capacity=15)
    replay.add(make_episode(5, 3), 3)
    assert [entry.index for entry in replay.episodes] == [1, 2, 3]
    assert replay.frames == 15
    replay.commit()
    assert "000000.safetensors" in names(folder)  # the checkpoint before this commit sampled it
    replay.add(make_episode(5, 4), 4)
    replay.commit()
    assert [name for name in names(folder) if name.endswith("s")] == [
        f"00000{i}.safetensors" for i in (1, 2, 3, 4)
    ]
    assert [entry.index for entry in Replay(folder, 15).episodes] == [2, 3, 4]


def test_an_episode_that_ends_after_later_ones_were_committed_stays(folder, make_episode):
    replay = Replay(folder, 10_000)
    for index in (1, 2, 0, 3):  # side by side, the first was the longest
        replay.add(make_episode(5, index), index)
        replay.commit()
    assert [entry.index for entry in Replay(folder, 10_000).episodes] == [0, 1, 2, 3]


def test_one_episode_stays_however_small_the_capacity(filled):
    assert [entry.index for entry in filled(5, 6, capacity=2).episodes] == [1]


def test_files_that_a_killed_commit_left_go_with_the_next(folder, filled, make_episode, lines):
    filled(5, 5, 5)
    old = (folder / "000000.safetensors").read_bytes()
    replay = Replay(folder, 10)
    for index in (3, 4):
        replay.add(make_episode(5, index), index)
        replay.commit()
    (folder / "000000.safetensors").write_bytes(
        old
    )  # as if the kill had come between manifest and deletion
    (folder / ".000005.safetensors.99.tmp").write_bytes(b"half")
    lines()
    replay = Replay(folder, 10)
    assert [entry.index for entry in replay.episodes] == [3, 4]
    replay.truncate(5)
    assert not {"000000.safetensors", ".000005.safetensors.99.tmp"} & set(names(folder))
    assert lines() == []


class KilledError(Exception):
    pass


@pytest.fixture
def kill_at(monkeypatch):
    """Return a function that makes the n-th rename or deletion from now on fail."""
    real = {name: getattr(os, name) for name in ("replace", "unlink")}

    def arm(count):
        left = iter(range(count - 1, -1, -1))

        def or_killed(name, *arguments, **keywords):
            if next(left, None) == 0:
                raise KilledError
            return real[name](*arguments, **keywords)

        for name in real:
            monkeypatch.setattr(os, name, functools.partial(or_killed, name))

    return arm


@pytest.fixture
def play_rounds(make_episode):
    """Return a function that adds, samples and commits four rounds, resuming a killed one."""

    def one_round(replay, number):
        before = [draw(replay, seed=number)] if number else []
        for index in (2 * number, 2 * number + 1):
            replay.add(make_episode(5 + index, index), index)
        after = draw(replay, seed=number)
        replay.commit()
        return [*before, after]

    def play(folder):
        drawn, kills, replay = [], 0, Replay(folder, 20)
        while len(drawn) < 4:
            try:
                drawn.append(one_round(replay, len(drawn)))  # its length is the checkpoint
            except KilledError:
                kills += 1
                replay = Replay(folder, 20)
                replay.truncate(2 * len(drawn))
        return drawn, kills

    return play


def test_a_kill_at_any_rename_or_deletion_changes_nothing_that_a_resumed_run_samples(
    tmp_path, kill_at, play_rounds, lines
):
    expected, kills = play_rounds(tmp_path / "complete")
    assert kills == 0
    for count in range(1, 100):
        kill_at(count)
        drawn, kills = play_rounds(tmp_path / str(count))
        for left, right in zip(itertools.chain(*drawn), itertools.chain(*expected), strict=True):
            same(left, right)
        assert names(tmp_path / str(count)) == names(tmp_path / "complete")
        assert not [
            line for line in lines() if "took in" not in line
        ]  # no file went while the manifest named it
        if not kills:
            break
    assert count > 12  # eight episodes, four manifests, and the deletions


def test_truncate_goes_back_to_an_earlier_checkpoint(folder, filled, make_episode):
    replay = filled(5, 6, 7)
    before = draw(replay)
    for index in (3, 4):
        replay.add(make_episode(8, index), index)
    replay.commit()
    resumed = Replay(folder, 10_000)
    resumed.truncate(3)
    assert "000003.safetensors" not in names(folder)
    same(draw(resumed), before)
    resumed.add(make_episode(9, 3), 3)
    assert len(resumed) == 4


def test_a_manifest_that_is_behind_takes_the_files_in(folder, filled, make_episode, lines):
    replay = filled(5, 6)
    for index in (2, 3):
        replay.add(make_episode(7, index), index)
    reopened = Replay(folder, 10_000)
    assert [entry.index for entry in reopened.episodes] == [0, 1, 2, 3]
    [line] = lines()
    assert "took in 2 episodes that manifest.json lacks (2 to 3)" in line
    same(draw(replay), draw(reopened))


def test_a_manifest_that_is_ahead_names_what_is_missing(folder, filled, lines):
    filled(5, 6, 7)
    (folder / "000001.safetensors").unlink()
    replay = Replay(folder, 10_000)
    [line] = lines()
    assert "000001.safetensors: missing; skipped" in line
    assert [entry.index for entry in replay.episodes] == [0, 2]
    replay.commit()
    Replay(folder, 10_000)
    assert lines() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "episodes": [{}]}', b"\xff\x00"]
)
def test_a_damaged_manifest_is_built_again_from_the_files(folder, filled, lines, content):
    before = draw(filled(5, 6))
    (folder / "manifest.json").write_bytes(content)
    replay = Replay(folder, 10_000)
    first, second = lines()
    assert "manifest.json: not a manifest, or changed since it was written; set aside as" in first
    assert "took in 2 episodes" in second
    same(draw(replay), before)


def test_an_episode_cut_at_any_place_is_set_aside_at_open(folder, filled, lines):
    filled(5, 6)
    path = folder / "000001.safetensors"
    data, kept = path.read_bytes(), (folder / "manifest.json").read_bytes()
    for size in (*range(0, len(data), 64), len(data) - 1):
        path.write_bytes(data[:size])
        replay = Replay(folder, 10_000)
        [line] = lines()
        assert "000001.safetensors" in line and "set aside as 000001.safetensors.damaged" in line
        assert [entry.index for entry in replay.episodes] == [0]
        assert (folder / "000001.safetensors.damaged").read_bytes() == data[:size]
        assert not path.exists()
        assert (folder / "manifest.json").read_bytes() == kept  # opening does not write


def test_a_file_that_is_not_the_committed_one_is_set_aside(folder, filled, make_episode, lines):
    filled(5, 6)
    make_episode(9, 1).save(folder / "000001.safetensors")
    assert len(Replay(folder, 10_000)) == 1
    assert "not the file that manifest.json names" in lines()[0]


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_an_episode_damaged_while_open_is_set_aside_and_drawn_again(folder, filled, lines, how):
    def damage_and_draw():
        filled(5, 6, 7)
        replay = Replay(folder, 10_000)
        path = folder / "000001.safetensors"
        if how == "cut":
            os.truncate(path, path.stat().st_size // 2)
        else:
            path.unlink()
        chunks = draw(replay, batch_size=64)
        assert [entry.index for entry in replay.episodes] == [0, 2]
        for name in names(folder):
            (folder / name).unlink()
        return chunks

    chunks = damage_and_draw()
    [line] = lines()
    assert "000001.safetensors" in line
    assert set(chunks.observation["speed"][:, 0, 1].astype(int)) == {0, 2}
    assert chunks.mask.all()
    same(chunks, damage_and_draw())


def test_when_every_episode_is_damaged_sampling_says_so(folder, filled):
    replay = filled(5, 6)
    for path in folder.glob("*.safetensors"):
        os.truncate(path, 100)
    with pytest.raises(PlanetError, match="holds no episode"):
        draw(replay)


def test_samples_share_no_memory(filled):
    replay = filled(8)
    first = draw(replay)
    kept = {key: value.copy() for key, value in first.observation.items()}
    draw(replay).observation["image"][:] = 255
    np.testing.assert_array_equal(first.observation["image"], kept["image"])
    assert first.observation["image"].flags.writeable


def test_episodes_load_whole_too(folder, filled, make_episode):
    filled(5, 6)
    assert Episode.load(folder / "000001.safetensors").to_bytes() == make_episode(6, 1).to_bytes()
