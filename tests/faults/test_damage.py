"""Files of a run that are cut, changed, missing, older, of a newer format or not to be written."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.data import manifest
from planet_rssm.data.episode import Episode
from planet_rssm.data.header import DamagedFileError
from planet_rssm.data.replay import Replay
from planet_rssm.report.curves import read_metrics
from planet_rssm.runs import location
from planet_rssm.runs.run import METRICS

MORE = "train.env_steps=1800"  # three rounds more
NOBODY = 65534


@pytest.fixture
def copy(peace: Path, tmp_path: Path) -> Path:
    """Return a run of three episodes that may be damaged."""
    return shutil.copytree(peace, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "episodes").glob("*.safetensors")}


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_byte_flipped_anywhere_in_an_episode_is_noticed(
    peace: Path, tmp_path: Path, caplog
) -> None:
    folder = shutil.copytree(peace / "episodes", tmp_path / "episodes")
    path = folder / "000001.safetensors"
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for place in [*range(header), *range(header, len(data), 97), *range(len(data) - 32, len(data))]:
        flip(path, place)
        with pytest.raises(PlanetError) as caught:
            Episode.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        if place % 40 == 0 and isinstance(caught.value, DamagedFileError):
            caplog.clear()
            replay = Replay(folder, 1000)
            replay.sample(np.random.default_rng(0), 64, 2)
            assert [entry.index for entry in replay.episodes] == [0, 2], place
            assert replay.take_damaged() == 1
            assert len(caplog.messages) == 1 and "000001.safetensors" in caplog.messages[0]
        path.write_bytes(data)


def test_a_byte_flipped_in_the_manifest_condemns_no_episode(
    peace: Path, tmp_path: Path, caplog
) -> None:
    folder = shutil.copytree(peace / "episodes", tmp_path / "episodes")
    path = folder / manifest.NAME
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        flip(path, place)
        try:
            assert len(Replay(folder, 1000)) == 3, place
        except PlanetError as error:
            assert "format 0" in str(error) or place < 13, error  # "format": 1 itself
        path.write_bytes(data)
    assert len(contents(tmp_path)) == 3


def damage_first(run: Path) -> None:
    flip(run / "episodes" / "000000.safetensors", 5000)


def damage_header(run: Path) -> None:
    path = run / "episodes" / "000000.safetensors"
    path.write_bytes(path.read_bytes().replace(b"cartpole", b"cartpool"))


def cut_episode(run: Path) -> None:
    os.truncate(run / "episodes" / "000001.safetensors", 10_000)


def remove_episode(run: Path) -> None:
    (run / "episodes" / "000002.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_first, damage_header, cut_episode, remove_episode])
def test_a_damaged_episode_is_named_counted_and_the_run_goes_on_without_it(
    damage: Callable[[Path], None], copy: Path, train: Callable[..., None], measured, caplog
) -> None:
    before = contents(copy)
    damage(copy)
    train(copy, MORE)
    [line] = [message for message in caplog.messages if "episode" in message]
    assert ".safetensors" in line and "\n" not in line
    after = contents(copy)
    assert len(set(before.items()) & set(after.items())) == 2
    assert len(after) == 5
    assert measured(copy)[-2]["damaged"] == 1


def test_a_manifest_gone_behind_or_ahead_costs_nothing(
    copy: Path, train: Callable[..., None], tmp_path, same
) -> None:
    train(shutil.copytree(copy, tmp_path / "peace"), MORE)
    path = copy / "episodes" / manifest.NAME
    behind = shutil.copytree(copy, tmp_path / "behind")
    entries = list(manifest.read(path).values())
    manifest.write(behind / "episodes" / manifest.NAME, entries[:1])
    gone = shutil.copytree(copy, tmp_path / "gone")
    (gone / "episodes" / manifest.NAME).unlink()
    for run in (behind, gone):
        train(run, MORE)
        same(run, tmp_path / "peace")
    ahead = shutil.copytree(copy, tmp_path / "ahead")  # the last commit ended before its checkpoint
    (ahead / "checkpoints" / "0000000900.safetensors").unlink()
    train(ahead)
    same(ahead, copy)


def test_a_checkpoint_cut_or_flipped_costs_one_round(
    copy: Path,
    train: Callable[..., None],
    same,
    peace: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    size = location.find(copy).stat().st_size
    for number, place in enumerate(range(64, size, size // 7)):
        run = shutil.copytree(copy, tmp_path / str(number))
        newest = location.find(run)
        os.truncate(newest, place) if number % 2 else flip(newest, place)
        train(run)
        assert (
            "set aside as 0000000900.safetensors.damaged, going back to the one before"
            in capfd.readouterr().err
        )
        same(run, peace)


def test_settings_that_were_cut_are_told_from_those_learned_with(
    copy: Path, train: Callable[..., None]
) -> None:
    path = copy / "config.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "rssm.deter" not in line))
    with pytest.raises(
        PlanetError, match="config.yaml: rssm.deter is 200, the run has learned with 8; write"
    ):
        train(copy)
    path.write_text("\n".join(lines))
    train(copy)


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "episodes/manifest.json", METRICS])
def test_a_newer_format_is_refused_in_one_line(
    name: str, copy: Path, peace: Path, same, train
) -> None:
    path = copy / name
    original = path.read_bytes()
    path.write_bytes(
        original.replace(b"format: 1", b"format: 2").replace(b'"format": 1', b'"format": 2')
    )
    assert path.read_bytes() != original
    with pytest.raises(
        PlanetError, match="(format 2:?|newer format,).* this version reads up to 1; upgrade"
    ) as caught:
        read_metrics(copy) if name == METRICS else train(copy)
    assert "\n" not in str(caught.value)
    path.write_bytes(original)
    train(copy)
    same(copy, peace)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may write anywhere: be somebody else for a while."""
    if os.getuid() != 0:
        yield
        return
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    yield
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)


@pytest.mark.parametrize("where", [".", "checkpoints", "episodes"])
def test_a_folder_that_may_not_be_written_is_one_line_and_nothing_changes(
    where: str, copy: Path, train: Callable[..., None], peace: Path, same, monkeypatch, request
) -> None:
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o777)
    (copy / where).chmod(0o555)
    monkeypatch.chdir(copy)  # nobody may walk here from the root
    before = {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()}
    request.getfixturevalue("as_nobody")
    with pytest.raises(
        PlanetError, match="(cannot be written; change|Permission denied; fix that)"
    ) as caught:
        train(Path("."), MORE)
    assert "\n" not in str(caught.value)
    if where == ".":
        assert {path: path.read_bytes() for path in before} == before
        with pytest.raises(
            PlanetError,
            match=r"new: cannot be written \(Permission denied\); give another --run-dir",
        ):
            train(Path("new"))


def test_metrics_of_every_line_carry_what_a_person_asks(peace: Path) -> None:
    learned = [
        json.loads(line) for line in (peace / METRICS).read_text().splitlines() if '"train"' in line
    ]
    assert all(1 < line["memory_mib"] < 100_000 and line["damaged"] == 0 for line in learned)
