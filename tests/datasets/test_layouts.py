"""Layouts of HDF5 and zarr by what their programs document, and files that are damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbered import SIZE, after, before, loaded, steps

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.datasets.foreign.detect import open_source
from planet_rssm.datasets.foreign.importing import survey, write
from planet_rssm.datasets.foreign.parquet import numbers
from planet_rssm.datasets.foreign.wish import Wish

SAMPLES = Path(__file__).parent / "samples"


def imported(source, folder, **wish):
    looked = survey(open_source(str(source)), Wish(size=SIZE, **wish))
    write(looked, folder)
    return loaded(folder)


def check(episodes, given, key):
    for episode, (image, action, reward) in zip(episodes, given, strict=True):
        there = episode.to_transitions()
        assert np.array_equal(there.observation[key], image)
        assert np.array_equal(there.action, action)
        assert np.array_equal(there.reward, reward)


def test_v_d4rl_in_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py, extra `data`")
    given = [steps(6, 0), steps(4, 1)]
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        for name, rows in {
            "observation": [image.transpose(0, 3, 1, 2) for image, _, _ in given],
            "action": [before(action) for _, action, _ in given],
            "reward": [before(reward) for _, _, reward in given],
            "discount": [np.ones(6), np.array([1, 1, 1, 0])],
            "step_type": [np.array([0, 1, 1, 1, 1, 2]), np.array([0, 1, 1, 2])],
        }.items():
            file.create_dataset(name, data=np.concatenate(rows), compression="gzip")
    _, episodes = imported(tmp_path / "set.hdf5", tmp_path / "out")
    check(episodes, given, "observation")
    assert [episode.is_terminal[-1] for episode in episodes] == [False, True]


def test_robomimic(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py, extra `data`")
    given = [steps(6, 0), steps(4, 1)]
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        for number, (image, action, reward) in zip((10, 9), given, strict=True):
            group = file.create_group(f"data/demo_{number}")
            group["actions"], group["rewards"] = after(action), after(reward)
            group["dones"] = np.arange(len(image)) == len(image) - 1
            group["obs/eye_image"] = image
            group["obs/pose"] = np.zeros((len(image), 7))
        file["other"] = h5py.ExternalLink("/etc/passwd", "/")
    spec, episodes = imported(tmp_path, tmp_path / "out")
    assert set(spec.observation) == {"obs.eye_image", "obs.pose"}
    check(episodes, given[::-1], "obs.eye_image")


def test_arrays_that_name_a_pickle_are_refused(tmp_path):
    pytest.importorskip("zarr", reason="needs zarr, extra `data`")
    shutil.copytree(SAMPLES / "diffusion.zarr", tmp_path / "set.zarr")
    described = tmp_path / "set.zarr" / "data" / "state" / ".zarray"
    fields = json.loads(described.read_text())
    described.write_text(json.dumps(fields | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(PlanetError, match="stored by 'pickle', which is not decoded here"):
        open_source(str(tmp_path / "set.zarr"))


def test_a_dataset_that_leads_out_of_its_folder_is_refused(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")
    shutil.copytree(SAMPLES / "lerobot-2.1", tmp_path / "set")
    path = tmp_path / "set" / "meta" / "info.json"
    path.write_text(path.read_text().replace('"data/chunk', '"../other/chunk'))
    with pytest.raises(PlanetError, match="leads out of the folder"):
        open_source(str(tmp_path / "set"))


def column_of(values, kind):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")
    half = len(values) // 2
    return pyarrow.chunked_array([values[:half], values[half:]], kind and kind(pyarrow))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3, 4], None),
        ([[1.0, 2.0], [3.0, 4.0]], None),
        ([[1.0, 2.0], [3.0, 4.0]], lambda pa: pa.list_(pa.float32(), 2)),
        ([[1.0], [3.0]], lambda pa: pa.large_list(pa.float64())),
        ([[[1, 2], [3, 4]]] * 3, None),
        ([True, False, True], None),
        ([0.5, 2.0**40], lambda pa: pa.float64()),
    ],
)
def test_numbers_of_arrow_are_those_of_numpy(values, kind):
    column = column_of(values, kind)
    for rows, expected in ((column, values), (column.slice(1), values[1:])):
        there = numbers(rows, np.dtype(np.float32)).reshape(len(expected), -1)
        assert np.array_equal(there, np.array(expected, np.float32).reshape(len(expected), -1))


@pytest.mark.parametrize(
    "values", [[1, None], [[1, 2], [3]], [[1, 2], None], [[1, None], [3, 4]], ["a", "b"], [300, 1]]
)
def test_what_arrow_has_that_are_no_such_numbers_is_refused(values):
    with pytest.raises((ValueError, NotImplementedError)):
        numbers(column_of(values, None), np.dtype(np.uint8))


def test_a_film_of_another_size_than_it_says_is_resized(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow, extra `data`")
    pytest.importorskip("av", reason="needs PyAV, extra `data`")
    shutil.copytree(SAMPLES / "lerobot-3.0", tmp_path / "set")
    path = tmp_path / "set" / "meta" / "info.json"
    fields = json.loads(path.read_text())
    camera = "observation.images.top"
    wish = {"keys": (camera,), "size": 16}
    looked = survey(open_source(str(SAMPLES / "lerobot-3.0")), Wish(**wish))
    fields["features"][camera]["shape"] = [16, 16, 3]
    path.write_text(json.dumps(fields))
    lies = survey(open_source(str(tmp_path / "set")), Wish(**wish))
    images = [one.episode(0).observation["images.top"] for one in (looked, lies)]
    assert images[0].shape[1:] == (16, 16, 3) and np.array_equal(*images)


@pytest.mark.parametrize("name", ["empty", "notes.txt", "a.npz", "a.h5"])
def test_what_holds_no_episodes_is_one_line(tmp_path, capsys, name):
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_bytes(b"nothing")
    with pytest.raises(SystemExit) as end:
        main(["data", "import", str(path), "--out", str(tmp_path / "out")])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unexpected" not in error
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("name", [path.name for path in sorted(SAMPLES.iterdir())])
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_one_line_or_none(place, name, data):
    """A byte changed, or a file cut, emptied or removed: an error line, or a set that is whole."""
    for module in {"lerobot": ("pyarrow", "av"), "swm": ("h5py",), "diffus": ("zarr",)}.get(
        name.partition("-")[0].partition("ion.")[0], ()
    ):
        pytest.importorskip(module, reason=f"needs {module}, extra `data`")
    copy, out = place / name, place / "out"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(SAMPLES / name, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "empty", "remove", "zeros"]))
    if kind == "remove":
        path.unlink()
    elif kind == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif kind == "zeros":
        content[at : at + 16] = bytes(len(content[at : at + 16]))
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if kind == "empty" else at])
    try:
        imported(copy, out, reward="none", scale_actions=True)
    except PlanetError as error:
        assert "\n" not in str(error)
        assert not list(out.glob("*.safetensors"))
