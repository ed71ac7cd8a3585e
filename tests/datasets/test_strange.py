"""Sets that a stranger may have: one clear line for each, and nothing written."""

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.cli.main import main

SAMPLES = Path(__file__).parent / "samples"
CAMERA = "observation.images.top"


@pytest.fixture
def line(tmp_path, capsys):
    """Import what is refused; return the line that says why."""

    def refused(source, *words):
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as end:
            main(["data", "import", str(source), "--out", str(out), *words])
        error = capsys.readouterr().err
        assert end.value.code in (1, 2)
        assert error.count("\n") == 1 and "unexpected" not in error, error
        assert not out.exists()
        return error

    return refused


def save(folder, **arrays):
    folder.mkdir()
    whole = {
        "image": np.zeros((9, 32, 32, 3), np.uint8),
        "action": np.zeros((9, 2), np.float32),
        "reward": np.zeros(9, np.float32),
    }
    np.savez(folder / "a.npz", **whole | arrays)
    return folder


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("reward", np.zeros((9, 2), np.float32), "must be one number a row"),
        ("reward", np.array(["a"] * 9), "must be numbers"),
        ("reward", np.full(9, 1e300), "reward has 1e+300 in it, beyond float32"),
        ("action", np.zeros((9, 2), complex), "must be numbers"),
        ("action", np.zeros((9, 0), np.float32), "action has no number in a row"),
        ("action", np.full((9, 2), 1e300), "beyond float32"),
        ("action", np.full((9, 2), 3, np.float32), "--scale-actions"),
        ("image", np.zeros((9, 32, 32, 3), np.uint16), "must be uint8 or floats"),
        ("image", np.full((9, 32, 32, 3), np.nan, np.float32), "not 0 to"),
        ("pose", np.full((9, 2), 1e300), "pose has 1e+300 in it"),
    ],
)
def test_numbers_that_none_can_hold(tmp_path, line, key, value, said):
    assert said in line(save(tmp_path / "in", **{key: value}))


def described(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "image",
    [
        described("(9, 1000000, 1000000, 3)"),
        described("(9, 32, 32, 3)"),
        described("(9, 32, 32, 3)") + bytes(9 * 32 * 32 * 3 + 5),
        described("(99999999999999999999, 32, 32)"),
        described("(9, -3)"),
        described("('a',)"),
        described("(9, 32, 32, 3)", "|V0"),
        b"",
    ],
)
def test_an_array_that_is_not_as_it_says(tmp_path, line, image):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("image.npy", image)
        file.writestr("action.npy", described("(9, 2)", "<f4") + bytes(72))
        file.writestr("reward.npy", described("(9,)", "<f4") + bytes(36))
    line(tmp_path / "in")


def test_a_name_with_a_digit_that_is_no_number(tmp_path, line):
    folder = save(tmp_path / "in", reward=np.zeros(3, np.float32))
    (folder / "a.npz").rename(folder / "t-u-0-².npz")
    assert "has no rewards (reward: not as long as the episode" in line(folder)


def test_a_link_that_leads_to_itself(tmp_path, line):
    (tmp_path / "in").symlink_to("in")
    line(tmp_path / "in")


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.zarr.zip", "a"])
def test_what_is_no_file_is_not_waited_for(tmp_path, line, name):
    os.mkfifo(tmp_path / name)
    line(tmp_path / name)


@pytest.mark.parametrize(
    ("lengths", "offsets"),
    [
        ([2**62], [2**62]),
        ([2**63 - 1], [0]),
        ([4], [6]),
        ([[4]], [[0]]),
        (["a"], ["b"]),
        ([4.5], [0.5]),
    ]
    + [([], [])],
)
def test_rows_that_are_not_in_an_hdf5_file(tmp_path, line, lengths, offsets):
    h5py = pytest.importorskip("h5py", reason="needs h5py, extra `data`")
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["pixels"] = np.zeros((9, 32, 32, 3), np.uint8)
        file["action"], file["reward"] = np.zeros((9, 2)), np.zeros(9)
        file["ep_len"], file["ep_offset"] = lengths, offsets
    line(tmp_path / "set.h5")


def test_an_hdf5_file_that_says_it_is_larger_than_the_memory(tmp_path, line):
    h5py = pytest.importorskip("h5py", reason="needs h5py, extra `data`")
    rows = 1 << 50
    with h5py.File(tmp_path / "set.h5", "w") as file:
        for key, shape in (("pixels", (32, 32, 3)), ("action", (2,)), ("reward", ())):
            chunks = (1, *shape)
            file.create_dataset(key, (rows, *shape), "u1" if shape[2:] else "f4", chunks=chunks)
        file["ep_len"], file["ep_offset"] = [rows], [0]
    line(tmp_path / "set.h5")


def lerobot(folder, change):
    """A copy of a sample, with another `info.json`."""
    pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")
    pytest.importorskip("av", reason="needs PyAV, extra `data`")
    shutil.copytree(SAMPLES / "lerobot-3.0", folder)
    path = folder / "meta" / "info.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", 10**400),
        ("fps", float("inf")),
        ("fps", float("nan")),
        ("fps", "x"),
        ("codebase_version", "v9"),
        ("features", []),
        ("data_path", "{chunk_index:999999999}"),
        ("data_path", "{chunk_index.__class__}"),
        ("data_path", "/etc/passwd"),
        ("video_path", "{nothing}"),
    ],
)
def test_lerobots_description_is_wrong(tmp_path, line, key, value):
    line(lerobot(tmp_path / "in", lambda fields: fields.update({key: value})))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [([3], "float32"), ([2**40], "float32"), ([-1], "float32"), ([float("inf")], "float32")]
    + [([2], "uint8"), ([2], "string"), ([2], "bool"), ("x", "float32")],
)
def test_lerobots_column_is_not_as_it_says(tmp_path, line, shape, dtype):
    def change(fields):
        fields["features"]["action"].update(shape=shape, dtype=dtype)

    line(lerobot(tmp_path / "in", change))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("length", 0),
        ("length", -5),
        ("length", 2**62),
        ("length", None),
        ("dataset_from_index", -1),
        ("dataset_from_index", 2**62),
        ("data/chunk_index", 2**40),
        ("data/file_index", None),
        ("episode_index", 99),
        (f"videos/{CAMERA}/from_timestamp", float("nan")),
        (f"videos/{CAMERA}/from_timestamp", float("inf")),
        (f"videos/{CAMERA}/from_timestamp", -1.0),
        (f"videos/{CAMERA}/from_timestamp", 1e300),
        (f"videos/{CAMERA}/from_timestamp", 1e7),
        (f"videos/{CAMERA}/file_index", 5),
    ],
)
def test_lerobots_places_are_wrong(tmp_path, line, column, value):
    folder = lerobot(tmp_path / "in", lambda fields: None)
    import pyarrow.parquet

    [path] = folder.glob("meta/episodes/*/*.parquet")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[0][column] = value
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    line(folder)


@pytest.mark.parametrize(
    "noted",
    [
        {"set": {}},
        {"set": 5, "info": 5},
        {"info": None, "terminated": 0},
        {"set": {"env": {}, "columns": {}, "reward": "reward"}},
    ],
)
def test_what_an_export_noted_is_damaged(tmp_path, line, noted):
    text = np.frombuffer(json.dumps(noted).encode(), np.uint8)
    line(save(tmp_path / "in", planet_rssm=text))


@pytest.mark.parametrize("episodes", [[], [5], 5, None])
def test_what_an_export_noted_of_episodes_is_short(tmp_path, line, capsys, episodes):
    pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")
    base, target = tmp_path / "base", tmp_path / "target"
    main(["data", "import", str(save(tmp_path / "in")), "--out", str(base)])
    main(["data", "export", str(base), str(target), "--to", "lerobot"])
    path = target / "meta" / "planet_rssm.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"episodes": episodes}))
    capsys.readouterr()
    line(target)
