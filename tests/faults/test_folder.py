"""Run folders copied in part, wanted by two processes, or with links in place of files."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import IrregularFileError, exclusive, read_regular, write_atomic
from planet_rssm.data.replay import Replay
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, LOCK, METRICS, RECORD, Run, read_metrics
from planet_rssm.training.restore import locked
from planet_rssm.training.trainer import Trainer


@pytest.fixture
def copy(peace: Path, tmp_path: Path) -> Path:
    """Return a run of three episodes that may be damaged."""
    return shutil.copytree(peace, tmp_path / "run")


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


@pytest.mark.parametrize("record", ["as it is", "older", "missing"])
def test_a_run_whose_checkpoints_are_missing_is_refused_and_keeps_all(
    copy: Path, train, record: str
) -> None:
    shutil.rmtree(copy / location.FOLDER)
    if record == "older":  # than the mark that something was committed
        known = json.loads((copy / RECORD).read_bytes())
        (copy / RECORD).write_text(
            json.dumps({key: known[key] for key in known if key != "committed"})
        )
    elif record == "missing":
        (copy / RECORD).unlink()
    before = contents(copy)
    with pytest.raises(
        PlanetError, match="holds no checkpoint to go on from.* nothing was changed: .*--data"
    ):
        train(copy)
    assert contents(copy) == before


def test_a_run_that_was_stopped_before_its_first_commit_begins_again(
    peace: Path, train, tmp_path: Path, same, capfd
):
    run = tmp_path / "run"
    Run.create(run, Run.open(peace).settings, "cpu")
    shutil.copytree(peace / "episodes", run / "episodes")
    (run / METRICS).write_bytes((peace / METRICS).read_bytes().splitlines(keepends=True)[0])
    (run / location.FOLDER).rmdir()
    train(run)
    assert (
        "stopped before its first commit; its first round is done again" in capfd.readouterr().err
    )
    same(run, peace)


def test_episodes_that_are_gone_are_told_before_the_run_goes_on(copy: Path, train, capfd) -> None:
    shutil.rmtree(copy / "episodes")
    train(copy, "train.env_steps=1200")
    [line] = [line for line in capfd.readouterr().err.splitlines() if "are gone" in line]
    assert (
        "3 of the run's 3 episodes are gone; it goes on from its checkpoint and the 0 that are left"
        in line
    )
    assert len(Replay(copy / "episodes", 1000)) == 1


def test_of_two_that_begin_together_one_has_the_folder_and_its_settings(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that writes waits for the other, which else may look when it is done."""
    start, made, lines = threading.Barrier(2), [], []

    def wait(file: object) -> None:
        end = time.monotonic() + 10
        while not lines and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(os, "fsync", wait)

    def begin(seed: int) -> None:
        settings = config.load("planet", [*tiny, f"seed={seed}"])
        start.wait()
        try:
            made.append(Run.create(tmp_path / "run", settings, "cpu"))
        except PlanetError as error:
            lines.append(str(error))

    threads = [threading.Thread(target=begin, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [first], [line] = made, lines
    assert "another process is training in it" in line or "already a run" in line
    assert config.load(tmp_path / "run" / CONFIG) == first.settings


def test_a_run_that_another_process_began_anew_is_not_trained_with_other_settings(
    tmp_path: Path, tiny: list[str]
) -> None:
    first, second = (
        Run.create(tmp_path / "run", config.load("planet", [*tiny, f"seed={seed}"]), "cpu")
        for seed in (1, 2)
    )
    with pytest.raises(PlanetError, match="begun a run there, with another seed; give another"):
        with locked(first):
            pass
    with locked(second):
        pass


def test_a_new_run_waits_for_the_lock_before_it_writes(tmp_path: Path, tiny: list[str]) -> None:
    (tmp_path / LOCK).touch()
    with (
        exclusive(tmp_path / LOCK),
        pytest.raises(PlanetError, match="another process is training in it"),
    ):
        Run.create(tmp_path, config.load("planet", tiny), "cpu")
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("name", [METRICS, "episodes", "checkpoints", LOCK, "tensorboard"])
def test_a_run_whose_files_are_links_is_refused(
    copy: Path, train, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (copy / name).rename(elsewhere) if (copy / name).exists() else elsewhere.mkdir()
    (copy / name).symlink_to(elsewhere)
    before = contents(tmp_path)
    with pytest.raises(
        PlanetError,
        match=f"run folder .*: {name} is a link, to .*elsewhere; .* link to the run folder",
    ):
        train(copy)
    assert contents(tmp_path) == before


def test_a_file_is_written_under_a_name_that_nobody_could_have_linked(
    tmp_path: Path, monkeypatch
) -> None:
    names = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, target: (names.append(source.name), replace(source, target))
    )
    for _ in range(2):
        write_atomic(tmp_path / "a.json", [b"new"])
    assert len(set(names)) == 2 and not any(
        str(os.getpid()) == part for name in names for part in name.split(".")
    )
    monkeypatch.setattr("planet_rssm.base.files.secrets.token_hex", lambda _: "known")
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".a.json.known.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a.json", [b"newer"])
    assert (tmp_path / "victim").read_text() == "kept" and (
        tmp_path / "a.json"
    ).read_text() == "new"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "kind"), [(fifo, "a FIFO"), (endless, "a device"), (Path.mkdir, "a folder")]
)
def test_what_is_no_regular_file_is_never_waited_for(
    copy: Path, train, make: Callable[[Path], None], kind: str, caplog
) -> None:
    def instead(path: Path) -> None:
        path.unlink()
        make(path)

    newest = location.find(copy)
    for path, read in {
        newest: lambda: checkpoints.load(newest),
        copy / METRICS: lambda: read_metrics(copy),
        copy / CONFIG: lambda: config.load(copy / CONFIG),
    }.items():
        original = path.read_bytes()
        instead(path)
        with pytest.raises(PlanetError, match="not a regular file|no such file"):
            read()
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(original)
    instead(copy / RECORD)
    instead(copy / "episodes" / "000001.safetensors")
    train(copy, "train.env_steps=1200")
    expected = f"000001.safetensors: {kind}, not a regular file; set aside"
    assert any(expected in message for message in caplog.messages)


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="has more than 4 bytes"):
        read_regular(tmp_path / "file", 4)
    with pytest.raises(IrregularFileError):
        read_regular(tmp_path)
    assert read_regular("/proc/self/status").startswith(b"Name")


def test_metrics_that_were_changed_since_the_checkpoint_are_told(copy: Path, train, caplog) -> None:
    path = copy / METRICS
    path.write_bytes(path.read_bytes().replace(b"return", b"rexurn", 1))
    train(copy, "train.env_steps=1200")
    assert any(
        "metrics.jsonl: changed since the checkpoint was written" in message
        for message in caplog.messages
    )


def test_a_run_whose_folder_is_moved_ends_in_one_line_and_leaves_nothing_there(
    train, tmp_path: Path, monkeypatch, capfd
) -> None:
    run, moved, learn = tmp_path / "run", tmp_path / "moved", Trainer.learn_round

    def move_then_learn(self: Trainer) -> None:
        if self.progress.rounds == 1:
            run.rename(moved)
        learn(self)

    monkeypatch.setattr(Trainer, "learn_round", move_then_learn)
    with pytest.raises(
        PlanetError, match="run: moved or deleted while it trained; .* --resume --run-dir THERE"
    ):
        train(run)
    assert not run.exists() and "Traceback" not in capfd.readouterr().err
    monkeypatch.undo()


def test_a_settings_file_of_a_few_hundred_thousand_keys_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"key{number}: 1\n" for number in range(200_000)))
    with pytest.raises(PlanetError, match="many.yaml: not readable .has more than 262144 bytes"):
        config.load(path)
