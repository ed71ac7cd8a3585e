import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode import Episode, EpisodeWriter
from planet_rssm.data.header import DamagedFileError, read_header


def f32(*values):
    return np.array(values, np.float32)


def same(a, b):
    assert a.info == b.info
    left, right = a.arrays(), b.arrays()
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert value.dtype == right[key].dtype
        np.testing.assert_array_equal(value, right[key])


def test_alignment_of_three_steps_written_by_hand():
    observation = {"speed": f32([10], [11], [12], [13])}
    info = {"env": {}, "seed": 5, "env_steps": 6}
    episode = Episode.from_transitions(
        observation, f32([0.1], [0.2], [0.3]), f32(1, 2, 3), True, False, info
    )
    np.testing.assert_array_equal(episode.observation["speed"], f32([10], [11], [12], [13]))
    np.testing.assert_array_equal(
        episode.action, f32([0], [0.1], [0.2], [0.3])
    )  # the action that led to the frame
    np.testing.assert_array_equal(episode.reward, f32(0, 1, 2, 3))  # the reward that came with it
    assert episode.is_first.tolist() == [True, False, False, False]
    assert episode.is_last.tolist() == [False, False, False, True]
    assert episode.is_terminal.tolist() == [False, False, False, True]
    assert (episode.length, episode.env_steps, episode.seed, episode.episode_return) == (
        4,
        6,
        5,
        6.0,
    )


def test_writer_makes_the_same_episode_step_by_step():
    frame = np.zeros((2, 2, 3), np.uint8)  # one shared buffer, as a worker's
    writer = EpisodeWriter({"image": frame}, {"env": {}, "seed": 5})
    for step, ends in enumerate(((False, False), (False, True)), 1):
        frame[:] = step
        writer.append(f32(step / 10), {"image": frame}, float(step), *ends, env_steps=2)
    episode = writer.finish()
    assert episode.observation["image"][:, 0, 0, 0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(episode.action, f32([0], [0.1], [0.2]))
    assert episode.reward.tolist() == [0, 1, 2]
    assert not episode.is_terminal.any()
    assert episode.env_steps == 4
    with pytest.raises(ValueError, match="has ended"):
        writer.append(f32(0), {"image": frame}, 0.0, False, False, 1)


def test_writer_without_a_step_is_refused():
    with pytest.raises(PlanetError, match="at least one step"):
        EpisodeWriter({"speed": f32(1)}, {"env": {}, "seed": 0}).finish()


@given(st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 2**63))
def test_transitions_round_trip(steps, terminated, truncated, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (steps + 1, 2, 2, 3), np.uint8)
    action, reward = rng.random((steps, 2), np.float32), rng.random(steps, np.float32)
    info = {"env": {"id": "a"}, "seed": seed, "env_steps": steps}
    back = Episode.from_transitions(
        {"image": image}, action, reward, terminated, truncated, info
    ).to_transitions()
    np.testing.assert_array_equal(back.observation["image"], image)
    np.testing.assert_array_equal(back.action, action)
    np.testing.assert_array_equal(back.reward, reward)
    assert (back.terminated, back.truncated) == (terminated, truncated)
    assert info.items() <= back.info.items()


def test_file_round_trip_with_equal_bytes(make_episode, spec, tmp_path):
    episode = make_episode(terminated=True)
    episode.save(tmp_path / "a.safetensors")
    loaded = Episode.load(tmp_path / "a.safetensors")
    same(loaded, episode)
    assert type(spec).from_json(loaded.info["env"]) == spec
    assert (
        loaded.to_bytes()
        == make_episode(terminated=True).to_bytes()
        == (tmp_path / "a.safetensors").read_bytes()
    )


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5, unique=True
    ),
    st.integers(2, 4),
    st.booleans(),
)
def test_the_file_is_what_safetensors_writes(keys, frames, swapped):
    """Whatever the keys are, and however the arrays lie in memory."""
    kinds = itertools.cycle(["uint8", "float32"])
    observation = {
        key: np.zeros((frames, 3, 2, 1), np.uint8).swapaxes(1, 2)
        if kind == "uint8"
        else np.arange(2 * frames, dtype=">f4" if swapped else "<f4").reshape(2, frames).T
        for key, kind in zip(keys, kinds, strict=False)
    }
    still, info = np.zeros((frames - 1, 2), np.float32), {"env": {"ü": '"'}, "seed": 0}
    info["env_steps"] = 1
    episode = Episode.from_transitions(observation, still, still[:, 0], False, True, info)
    data = episode.to_bytes()
    fields = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = {key: np.array(value, order="C") for key, value in episode.arrays().items()}
    assert data == safetensors.numpy.save(arrays, metadata=fields["__metadata__"])


def test_header_tells_where_the_bytes_lie(make_episode, tmp_path):
    episode = make_episode(frames=9)
    path = tmp_path / "a.safetensors"
    episode.save(path)
    header = read_header(path)
    assert (header.frames, header.env_steps, header.episode_return) == (
        9,
        32,
        episode.episode_return,
    )
    data = path.read_bytes()
    for name, array in episode.arrays().items():
        tensor = header.tensors[name]
        assert tensor.shape == array.shape
        assert data[tensor.offset : tensor.offset + tensor.nbytes] == array.tobytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward": np.zeros(5, np.float32)}, "frames"),
        ({"reward": np.zeros(6)}, "reward: float64 of rank 1, must be float32"),
        ({"reward": f32(0, 1, np.nan, 0, 0, 0)}, "reward: not finite at frame 2"),
        ({"reward": f32(1, 0, 0, 0, 0, 0)}, "reward must be 0 at frame 0"),
        ({"action": np.ones((6, 2), np.float32)}, "action must be 0 at frame 0"),
        ({"action": np.zeros(6, np.float32)}, "action: float32 of rank 1"),
        ({"is_first": np.zeros(6, bool)}, "is_first must be set at frame 0 only"),
        ({"is_last": np.ones(6, bool)}, "is_last must be set at the last frame only"),
        ({"is_terminal": np.ones(6, bool)}, "is_terminal may be set at the last frame only"),
        ({"is_last": np.ones(6, np.uint8)}, "is_last: uint8 of rank 1, must be bool"),
        (
            {"observation": {"image": np.zeros((6, 4, 4, 3), np.float32)}},
            "must be uint8 of rank 4 or float32 of rank 2",
        ),
        ({"observation": {}}, "0 observations"),
        ({"info": {"env": {}, "seed": 0, "truncated": True}}, "env_steps"),
        ({"info": {"env": {1}}}, "not JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make_episode, change, says):
    with pytest.raises(PlanetError, match=re.escape(says)) as caught:
        dataclasses.replace(make_episode(), **change)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_named(make_episode, tmp_path):
    data, path = make_episode().to_bytes(), tmp_path / "cut.safetensors"
    for size in (*range(0, len(data), 64), len(data) - 1):
        path.write_bytes(data[:size])
        for read in (Episode.load, read_header):
            with pytest.raises(DamagedFileError, match="cut.safetensors"):
                read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(DamagedFileError, match="grown"):
        read_header(path)


def test_a_wrong_byte_in_the_header_is_never_a_traceback(make_episode, tmp_path):
    data, path = make_episode().to_bytes(), tmp_path / "flipped.safetensors"
    length = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for position in range(length):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x11]) + data[position + 1 :])
        try:
            read_header(path)
            Episode.load(path)
        except PlanetError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > length / 2  # the rest are letters of the environment's name and the like


def test_a_newer_format_and_a_missing_file_are_refused(make_episode, tmp_path):
    data, path = make_episode().to_bytes(), tmp_path / "new.safetensors"
    newer = data.replace(rb"\"format\": 1", rb"\"format\": 2")
    assert newer != data
    path.write_bytes(newer)
    with pytest.raises(
        PlanetError, match="format 2, this version reads up to 1; upgrade"
    ) as caught:
        Episode.load(path)
    assert not isinstance(caught.value, DamagedFileError)
    with pytest.raises(PlanetError, match=r"absent.safetensors: not readable"):
        Episode.load(tmp_path / "absent.safetensors")


def test_a_file_of_other_tensors_is_not_an_episode(tmp_path):
    import safetensors.numpy

    described = {"format": 1, "frames": 2, "return": 0, "info": {"env": {}, "env_steps": 1}}
    for metadata in (None, {"planet_rssm": json.dumps(described)}):
        safetensors.numpy.save_file(
            {"weight": f32(1, 2)}, tmp_path / "model.safetensors", metadata=metadata
        )
        with pytest.raises(DamagedFileError, match="model.safetensors"):
            Episode.load(tmp_path / "model.safetensors")
