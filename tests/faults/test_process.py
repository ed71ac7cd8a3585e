"""Real processes: signals while Python starts, a file limit, two at once, what a kill leaves."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forks
import pytest

from planet_rssm.base.files import scratch_folder
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay

SHORT = ["env.time_limit=200", "env.action_repeat=10"]  # as many decisions in less time


def planet(log: Path, *words: str | Path) -> subprocess.Popen:
    with open(log, "wb") as file:
        command = [sys.executable, "-m", "planet_rssm", *map(str, words)]
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def wait_until(
    happens: Callable[[], object], process: subprocess.Popen, seconds: float = 60
) -> None:
    end = time.monotonic() + seconds
    while not happens() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None


@pytest.fixture
def train(tiny: list[str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Return a function that starts `planet train` in a folder."""
    words = [
        word for setting in [*tiny, *SHORT, "train.env_steps=5000"] for word in ("-s", setting)
    ]
    started = []

    def start(folder: Path, *more: str) -> subprocess.Popen:
        resume = ["--resume"] * (folder / "config.yaml").exists()
        log = tmp_path / f"{folder.name}{''.join(more)}.log"
        words_too = ["--run-dir", folder, "--plan-episodes", "0", *resume, *more]
        started.append(planet(log, "train", "planet", *words, *words_too))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_limit_a_second_process_and_sigterm_change_nothing(
    train: Callable[..., subprocess.Popen], same: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    peace, war, log = tmp_path / "peace", tmp_path / "war", tmp_path / "war.log"
    undisturbed = train(peace)
    run = train(war)
    wait_until(lambda: len(list((war / "checkpoints").glob("0*.safetensors"))) > 1, run)
    assert train(war, "--seed=0").wait(60) == 1
    assert "another process is training in it" in (tmp_path / "war--seed=0.log").read_text()

    if (
        hasattr(resource, "prlimit") and run.poll() is None
    ):  # the next checkpoint is larger: the system refuses it
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (8000, 8000))
        assert run.wait(60) == 1
        assert (
            log.read_text()
            .splitlines()[-1]
            .endswith("File too large; fix that, then go on with --resume")
        )
    rng, codes = random.Random(0), []
    for _ in range(3):
        with forks.started_by_python():  # the signal may come while it does
            run = train(war)
        time.sleep(rng.uniform(0.1, 6))
        run.terminate()
        codes.append(run.wait(60))
        said_by = {130: "stopped at", 143: "planet: terminated", 0: "", -signal.SIGTERM: ""}[
            codes[-1]
        ]
        said = log.read_text()  # torch may add lines of its own if its import was cut short
        assert said_by in said and "Traceback" not in said, (codes, said)
    assert train(war).wait(120) == 0, log.read_text()
    assert undisturbed.wait(120) == 0
    same(war, peace)


@pytest.mark.slow
def test_what_a_killed_collect_wrote_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = [
        "--policy",
        "random",
        "--episodes",
        "500",
        "--size",
        "32",
        "--renderer",
        "raycast",
        "--envs",
        "1",
    ]
    run = planet(
        tmp_path / "log",
        "collect",
        "cartpole-swingup",
        *words,
        *(word for setting in SHORT for word in ("-s", setting)),
        "--out",
        out,
    )
    wait_until(lambda: len(list(out.glob("*.safetensors"))) >= 3, run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    paths = sorted(out.glob("*.safetensors"))
    assert len(paths) >= 3
    assert [Episode.load(path).length for path in paths] == [21] * len(paths)
    assert len(Replay(out, 100_000)) == len(paths)


def test_what_a_killed_dry_run_left_goes_with_the_next_and_a_live_one_stays(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from planet_rssm.base.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), '.dry-') as folder:\n"
        "    (folder / 'block').touch(); print('made', flush=True); time.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"made\n"
        [theirs] = tmp_path.iterdir()
        with scratch_folder(tmp_path, ".dry-") as ours:
            assert {path.name for path in tmp_path.iterdir()} == {theirs.name, ours.name}
        process.kill()
    assert list(tmp_path.iterdir()) == [theirs]
    with scratch_folder(tmp_path, ".dry-") as ours:
        assert list(tmp_path.iterdir()) == [ours]
    assert not list(tmp_path.iterdir())
