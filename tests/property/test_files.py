"""Files that a disk, tool or other version altered: episodes, replays, checkpoints, metrics."""

import copy
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planet_rssm import config
from planet_rssm.base.files import seal
from planet_rssm.data import manifest
from planet_rssm.data.episode import Episode
from planet_rssm.data.header import read_header
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.report.curves import read_metrics
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.run import METRICS
from planet_rssm.training import metrics

SPEC = EnvSpec(
    "dmc/a-b",
    {"image": ((2, 2, 3), "uint8"), "speed": ((2,), "float32")},
    1,
    2,
    0.1,
    9,
    "own",
    "none 1",
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["U8", "F32", "I32", "BF16", "F8_E4M3", "BOOL", "F64", 2**63, 10**400, -1, "../../out"]
    )
)
JSON = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
)


def make_episode(mark=0, frames=4):
    rng = np.random.default_rng(mark)
    image = rng.integers(0, 256, (frames, 2, 2, 3), np.uint8)
    speed, action, reward = (
        rng.random((rows, 2), np.float32) for rows in (frames, frames - 1, frames - 1)
    )
    info = {"env": SPEC.to_json(), "seed": mark, "env_steps": 2 * (frames - 1)}
    return Episode.from_transitions(
        {"image": image, "speed": speed}, action[:, :1], reward[:, 0], False, True, info
    )


def make_checkpoint():
    model = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}
    return checkpoints.Checkpoint(
        config.Settings(), SPEC, {"env_steps": 8}, model, {"step": torch.tensor(5.0)}
    )


@st.composite
def altered(draw, value):
    """Return the JSON value with something in it replaced, dropped, added or renamed."""
    value = copy.deepcopy(value)
    holder, key = [value], 0
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 4)):
        holder = holder[key]
        key = draw(
            st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        )
    kind = draw(st.sampled_from(["replace", "replace", "drop", "near", "rename"]))
    if (
        holder is value
        and kind in ("drop", "rename")
        or isinstance(holder[key], dict)
        and kind == "near"
    ):
        kind = "replace"
    if kind == "near" and isinstance(holder[key], int | float) and math.isfinite(holder[key]):
        holder[key] += draw(st.sampled_from([-1, 1, 8, 0.5]))
    elif kind == "drop":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        name = draw(st.text(max_size=3) | st.sampled_from(sorted(holder)))
        holder[name] = holder.pop(key)
    else:
        holder[key] = draw(JSON)
    return value if isinstance(value, dict | list) else draw(JSON)


def split(data):
    """Return a safetensors file's fields, what our metadata describe, and its tensors' bytes."""
    length = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + length])
    return fields, json.loads(fields["__metadata__"]["planet_rssm"]), data[8 + length :]


@st.composite
def headers_altered(draw, data):
    """Return the file with its header, its metadata or the header's length altered."""
    fields, described, rest = split(data)
    if draw(st.booleans()):
        fields["__metadata__"]["planet_rssm"] = json.dumps(draw(altered(described)))
    else:
        fields = draw(altered(fields))
    header = json.dumps(fields).encode()
    length = draw(
        st.just(len(header))
        | st.just(len(header))
        | st.integers(0, 2**64 - 1)
        | st.integers(0, len(header))
    )
    return length.to_bytes(8, "little") + header + rest


@st.composite
def bytes_altered(draw, data):
    """Return the file with bytes flipped, cut off, put in or put behind."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)) | st.integers(0, min(len(data), 9)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "append"]))
        if kind == "flip":
            data = (
                data[:place]
                + bytes([(*data, 0)[place] ^ draw(st.integers(1, 255))])
                + data[place + 1 :]
            )
        elif kind == "cut":
            data = data[:place]
        else:
            added = draw(st.binary(min_size=1, max_size=4))
            data = data[:place] + added + data[place:] if kind == "insert" else data + added
    return data


def sealed(data):
    """Return the bytes with a right checksum, as another tool that knows of it would write them."""
    unsealed, count = re.subn(rb'(crc32\\?": \\?")[0-9a-f]{8}', rb"\g<1>00000000", data, count=1)
    return seal(unsealed) if count else data


def same_episode(left, right):
    ours, theirs = left.arrays(), right.arrays()
    return left.info == right.info and all(
        ours[key].dtype == theirs[key].dtype and np.array_equal(ours[key], theirs[key])
        for key in ours.keys() | theirs
    )


def same_tensors(left, right):
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left
    )


EPISODE = make_episode()


@given(headers_altered(EPISODE.to_bytes()) | bytes_altered(EPISODE.to_bytes()))
def test_an_altered_episode_is_refused_or_the_same(folder, refused, data):
    path = folder / "000000.safetensors"
    path.write_bytes(data)
    with refused():
        read_header(path)
    with refused() as errors:
        loaded = Episode.load(path)
    assert errors or same_episode(loaded, EPISODE)


@given(headers_altered(EPISODE.to_bytes()))
def test_an_altered_episode_that_is_sealed_again_is_refused_or_sound(folder, refused, data):
    path, again = folder / "000000.safetensors", folder / "again.safetensors"
    path.write_bytes(sealed(data))
    with refused() as errors:
        loaded = Episode.load(path)
        EnvSpec.from_json(loaded.info["env"])
    if not errors:
        loaded.save(again)
        assert same_episode(Episode.load(again), loaded)


@pytest.fixture(scope="module")
def checkpoint_file(folder):
    path = folder / "0000000008.safetensors"
    checkpoints.save(make_checkpoint(), path)
    return path.read_bytes()


@given(st.data())
def test_an_altered_checkpoint_is_refused_or_the_same(folder, refused, checkpoint_file, data):
    path, original = folder / "altered.safetensors", make_checkpoint()
    path.write_bytes(data.draw(headers_altered(checkpoint_file) | bytes_altered(checkpoint_file)))
    with refused() as errors:
        loaded = checkpoints.load(path)
    if not errors:
        assert (loaded.settings, loaded.spec, loaded.progress) == (
            original.settings,
            original.spec,
            original.progress,
        )
        assert same_tensors(loaded.model, original.model)
        assert same_tensors(loaded.optimizer, original.optimizer)


@given(altered(SPEC.to_json()))
def test_an_altered_environment_is_refused_or_taken_as_it_is(refused, value):
    with refused() as errors:
        spec = EnvSpec.from_json(value)
    if not errors:
        assert json.loads(json.dumps(spec.to_json())) == {
            **SPEC.to_json(),
            **json.loads(json.dumps(value)),
        }


@pytest.fixture(scope="module")
def replay_files(folder):
    """A replay of three episodes, its files' bytes by name."""
    replay = Replay(folder / "sound", 100)
    for index in range(3):
        replay.add(make_episode(index), index)
    replay.commit()
    return {path.name: path.read_bytes() for path in (folder / "sound").iterdir()}


@given(st.data())
def test_a_replay_with_an_altered_file_samples_only_what_was_written(
    folder, refused, replay_files, data
):
    place = folder / "replay" / "altered"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    name = data.draw(st.sampled_from([manifest.NAME, manifest.NAME, *sorted(replay_files)]))
    is_json = name == manifest.NAME and data.draw(st.booleans())
    changed = (
        data.draw(altered(json.loads(replay_files[name])).map(json.dumps).map(str.encode))
        if is_json
        else data.draw(bytes_altered(replay_files[name]))
    )
    forged = is_json and data.draw(st.booleans())
    for file, content in (replay_files | {name: sealed(changed) if forged else changed}).items():
        (place / file).write_bytes(content)
    originals = [make_episode(index) for index in range(3)]
    with refused() as errors:
        replay = Replay(place, 100)
        chunks = replay.sample(np.random.default_rng(0), 6, 4)
        assert replay.env == json.loads(json.dumps(SPEC.to_json()))
        for row in range(6):
            assert any(
                np.array_equal(chunks.observation["image"][row], e.observation["image"])
                for e in originals
            )
    assert errors or forged or len(replay) >= (3 if name == manifest.NAME else 2)
    assert {path.name for path in (folder / "replay").iterdir()} == {
        "altered"
    }  # nothing was moved out of the folder


LINES = st.lists(st.binary(max_size=12) | st.just(b'{"env_steps": 1}'), max_size=4)


@given(LINES.map(b"\n".join), st.integers(0, 60))
def test_metrics_are_cut_to_the_checkpoint_and_go_on_in_a_line_of_their_own(folder, data, offset):
    path = folder / METRICS
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            metrics.importlib.util, "find_spec", lambda name: None
        )  # no events: they are slow to begin
        log = metrics.MetricsLog(folder, offset, 0)
    log.write("test", {"env_steps": 7}, 1.0, {})
    log.close()
    *kept, last = path.read_bytes().splitlines(keepends=True)
    assert json.loads(last)["env_steps"] == 7
    assert (
        data[:offset].startswith(b"".join(kept)) and b"\n" not in data[len(b"".join(kept)) : offset]
    )


@given(
    LINES.map(b"\n".join)
    | st.lists(altered({"env_steps": 1, "phase": "test", "return": 1.0}), max_size=3).map(
        lambda lines: "\n".join(map(json.dumps, lines)).encode()
    )
)
def test_altered_metrics_are_refused_or_read(folder, refused, data):
    (folder / METRICS).write_bytes(data)
    with refused() as errors:
        lines = read_metrics(folder)
    assert errors or all(
        isinstance(line["phase"], str) and math.isfinite(line.get("env_steps", 0)) for line in lines
    )
