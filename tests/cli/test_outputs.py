"""Files that a user names for what a verb makes: refused before the work, and never replaced."""

import errno
import os
import stat

import pytest

from planet_rssm.base import files
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import IrregularFileError, check_writable, write_atomic
from planet_rssm.cli import options
from planet_rssm.cli.main import main
from planet_rssm.runs.run import CONFIG, METRICS


def call(*words) -> int:
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture
def run(tmp_path):
    """A run that has begun."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text("preset: quickstart\n")
    (tmp_path / "run" / METRICS).write_text("")
    return tmp_path / "run"


@pytest.mark.parametrize("write", [lambda path: write_atomic(path, [b"new"]), check_writable])
def test_a_device_a_fifo_and_a_folder_are_not_replaced(write, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to(os.devnull)
    for name, kind in (("fifo", "a FIFO"), ("null", "a device"), ("", "a folder")):
        with pytest.raises(IrregularFileError, match=kind):
            write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "null"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and (tmp_path / "null").is_symlink()


@pytest.mark.parametrize("write", [lambda path: write_atomic(path, [b"new"]), check_writable])
def test_an_error_names_the_file_and_not_what_is_written_beside(write, tmp_path):
    path = tmp_path / "nowhere" / "a.html"
    with pytest.raises(FileNotFoundError) as error:
        write(path)
    assert error.value.filename == str(path)
    with pytest.raises(OSError) as error:
        write(tmp_path / ("n" * 300))
    assert error.value.filename == str(tmp_path / ("n" * 300))


def test_a_full_disk_names_the_file_in_one_line(tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError) as error:
        write_atomic(tmp_path / "a", [b"new"])
    monkeypatch.setattr(
        "planet_rssm.cli.main._run", lambda words: (_ for _ in ()).throw(error.value)
    )
    assert call("report") == 1
    line = capsys.readouterr().err
    assert (
        line
        == f"planet: {tmp_path / 'a'}: No space left on device; free some, or give another path\n"
    )
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "a.html").write_text("old")
    options.check_output("--out", tmp_path / "a.html")
    options.check_output("--out", tmp_path / "b.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(PlanetError, match="^--out .*: cannot be written .a folder, not a regular"):
        options.check_output("--out", tmp_path)


def test_a_report_replaces_no_file_of_a_run_and_makes_no_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("report", run, "--no-strips", "--out", run / CONFIG) == 1
    assert "must end in .html or .htm" in capsys.readouterr().err
    assert (run / CONFIG).read_text() == "preset: quickstart\n"
    (tmp_path / "file.txt").write_text("")
    for name in ("wrnog", "file.txt", "pretrained:nope", "simulator:cartpole-swingup"):
        assert call("report", name, "--no-strips") == 1
        line = capsys.readouterr().err
        assert line.startswith(f"planet: {name}: ") and line.count("\n") == 1
        assert "no such model" in line or "not a run folder" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "run"]
    assert call("report", "pretrained:cartpole-swingup", "--no-strips") == 0
    assert (tmp_path / "runs" / "pretrained-cartpole-swingup" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "{run}", "--out", "{folder}/no/a.html"], "there is no folder"),
        (["report", "{run}", "--out", "{folder}/" + "n" * 250 + ".html"], "File name too long"),
        (["plan", "{run}", "--trace", "{folder}/" + "n" * 250 + ".npz"], "File name too long"),
        (["eval", "{run}", "--csv", "{folder}/fifo"], "--csv {folder}/fifo: cannot be written"),
        (["plan", "{run}", "--video"], "there is no folder {run}/videos"),
        (["plan", "{run}", "--xray"], "there is no folder {run}/videos"),
        (["dream", "{run}", "--video"], "there is no folder {run}/videos"),
        (["compare", "{run}", "--out", "{folder}/fifo"], "no folder can be made there"),
        (["compare", "{run}", "--out", "{folder}/taken"], "taken/compare.png: cannot be written"),
        (["diagnose", "{run}", "--out", "{folder}/fifo/a"], "no folder can be made there"),
        (["diagnose", "{run}", "--out", "{folder}/taken"], "diagnosis.json: cannot be written"),
        (["export", "pretrained:cartpole-swingup", "{run}/config.yaml", "--to", "pt2"], "in .pt2"),
        (["export", "pretrained:cartpole-swingup", "{folder}/fifo.pt2", "--to", "pt2"], "a FIFO"),
        (["data", "info", "{run}", "--sheet", "{folder}/a.safetensors"], "must end in .png"),
        (["data", "info", "{run}", "--sheet", "{folder}/fifo.png"], "a FIFO"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(words, said, run, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo.png")
    os.mkfifo(tmp_path / "fifo.pt2")
    (run / "videos").write_text("a file")
    for name in ("compare.png", "diagnosis.json"):
        (tmp_path / "taken" / name).mkdir(parents=True)
    names = {"run": run, "folder": tmp_path}
    assert call(*(word.format(**names) for word in words)) == 1
    line = capsys.readouterr().err
    assert said.format(**names) in line and line.count("\n") == 1


def test_a_camera_needs_a_sheet(run, capsys):
    assert call("data", "info", run, "--camera", "image") == 2
    assert "add --sheet PNG" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["watch", ""], ["report", "a", "--out", ""], ["data", "import", "a", "--out="]]
)
def test_an_empty_word_is_refused(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 1
    line = capsys.readouterr().err
    assert "an empty word; give a name there" in line and line.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["watch", "{run}", "--every", "nan"],
        ["data", "import", "a", "--dry-run", "--fps", "nan"],
        ["collect", "a", "--policy", "random", "--out", "b", "--noise", "inf"],
        ["serve", "{run}", "--gather-ms", "nan"],
    ],
)
def test_nan_is_no_number(words, run, capsys):
    assert call(*(word.format(run=run) for word in words)) == 2
    line = capsys.readouterr().err
    assert "is not a finite number" in line and line.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "{run}", "--episodes"],
        ["collect", "a", "--policy", "random", "--out", "b", "--episodes"],
        ["data", "import", "a", "--dry-run", "--action-repeat"],
        ["serve", "{run}", "--sessions"],
        ["bench", "train", "quickstart", "--repeats"],
    ],
)
def test_more_than_fits_is_no_count(words, run, capsys):
    assert call(*(word.format(run=run) for word in words), 10**30) == 2
    line = capsys.readouterr().err
    assert "is not in the range x<=1000000" in line and line.count("\n") == 1


def test_a_look_in_a_year_is_no_watching(run, capsys):
    assert call("watch", run, "--every", "1e300") == 2
    assert "is not in the range 0.2<=x<=3600" in capsys.readouterr().err


def test_an_empty_settings_file_is_no_preset(run, tmp_path, capsys):
    (run / CONFIG).write_text("# nothing\n")
    assert call("train", run / CONFIG, "--run-dir", tmp_path / "new") == 1
    assert "states nothing; write a preset as its first line" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert call("watch", run, "--json") == 0
    shown = capsys.readouterr()
    assert "states nothing" in shown.out and not shown.err


def test_a_model_of_the_package_cannot_be_watched(capsys):
    assert call("watch", "pretrained:cartpole-swingup") == 1
    assert "the package has no record of its training" in capsys.readouterr().err


def test_a_report_says_nothing_of_baselines_that_it_does_not_measure(run, capsys):
    (run / "baselines.json").write_text("{")
    assert call("report", run, "--no-strips") == 0
    shown = capsys.readouterr()
    assert "no baselines: planet plan" in shown.out and not shown.err


def test_choices_that_click_lists_in_lines_are_one(capsys):
    assert call("data", "export", "a", "b") == 2
    line = capsys.readouterr().err
    assert line == "planet: Missing option '--to'. Choose from: npz, lerobot, minari\n"
