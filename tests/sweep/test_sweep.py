"""Sweep files: which runs they stand for, and that only the missing ones are made."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.sweep import Sweep, state_of, states_of
from planet_rssm.training.metrics import repeatable_lines

TINY = {
    "env.observe": "vectors", "env.action_repeat": 2, "env.time_limit": 40,
    "env.renderer": "none", "rssm.deter": 16, "rssm.stoch": 4, "rssm.hidden": 16,
    "model.reward_units": 16, "model.vector_units": 16, "planner.candidates": 8,
    "planner.iterations": 1, "planner.elites": 2, "planner.horizon": 3, "train.env_steps": 120,
    "train.seed_episodes": 1, "train.envs": 1, "train.updates": 4, "train.batch_size": 4,
    "train.batch_length": 8, "train.test_every": 9, "train.test_episodes": 1, "device": "cpu",
    "train.threads": 1, "train.collect_threads": 1, "train.precision": "float32",
}  # fmt: skip


def sweep_file(folder: Path, **values: object) -> Path:
    path = folder / "tiny.yaml"
    own = {"preset": "planet", "tasks": ["dmc/cartpole-swingup"], "out": str(folder / "out")}
    path.write_text(json.dumps(own | {"set": TINY} | values))  # JSON is YAML
    return path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    try:
        main(list(words))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, json.loads(captured.out or "{}"), captured.err


def test_a_file_stands_for_a_product(tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path,
        preset=["planet", "quickstart-search"],
        tasks=["dmc/cartpole-swingup", "dmc/reacher-easy"],
        seeds=[3, 5],
        set={"planner.horizon": [12, 20], "optimizer.lr": 1e-4},
    )
    sweep = Sweep.read(path)
    assert len(sweep.runs) == 16
    first, last = sweep.runs[0], sweep.runs[-1]
    assert first.name == "planet-cartpole-swingup-planner.horizon=12-seed3"
    assert last.name == "quickstart-search-reacher-easy-planner.horizon=20-seed5"
    assert last.settings.env.id == "dmc/reacher-easy"
    assert (last.settings.planner.horizon, last.settings.seed) == (20, 5)
    assert last.settings.optimizer.lr == 1e-4
    assert first.folder == tmp_path / "out" / first.name


def test_a_folder_may_be_given_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Sweep.read(sweep_file(tmp_path, out="~/paper")).out == tmp_path / "paper"


def test_the_file_of_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    path = tmp_path / "page.yaml"
    path.write_text("preset:" + page.partition("```yaml\npreset:")[2].partition("```")[0])
    sweep = Sweep.read(path)
    assert len(sweep.runs) == 40 and sweep.slurm["timeout_min"] == 720


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"taks": []}, "no key 'taks'; did you mean 'tasks'?"),
        ({"preset": "plant"}, "plant"),
        ({"preset": 3}, "preset must be a name or a list of names"),
        ({"seeds": -1}, "stands for no run"),
        ({"seeds": ["a"]}, "seeds must be how many, or a list of numbers from 0"),
        ({"seeds": 100_000}, "stands for more than 10000 runs"),
        ({"seeds": [1, 1]}, "2 runs would be called planet-cartpole-swingup-seed1"),
        ({"set": []}, None),
        ({"set": "x"}, "set must be lines of"),
        ({"set": {"env.id": "dmc/reacher-easy"}}, "set env.id: give it as `tasks`"),
        ({"set": {"seed": [1, 2]}}, "set seed: give it as `seeds`"),
        ({"out": ["a"]}, "out must be a folder"),
        ({"ray": {"num_cpu": 4}}, "ray has no key 'num_cpu'; did you mean 'num_cpus'?"),
        ({"ray": {"num_cpus": 0}}, "ray.num_cpus 0: must be a number above 0"),
        ({"ray": 4}, "ray must be lines of"),
        ({"set": {"planner.horizn": 3}}, "planner.horizon"),
        ({"set": {"planner.horizon": [3, -1]}}, "planner.horizon"),
        ({"set": {"env.kwargs.text": ["a", "b" * 300]}}, "a name of 3.. bytes, 250 are allowed"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_before_anything_begins(
    tmp_path: Path, values: dict, line: str | None
) -> None:
    path = sweep_file(tmp_path, **values)
    if line is None:
        assert len(Sweep.read(path).runs) == 1
        return
    with pytest.raises(PlanetError, match=line.replace("?", r"\?")):
        Sweep.read(path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("rya", "--on rya: must be local, slurm, ray or ray:ADDRESS"),
        ("ray:", "--on ray:: must be ray, for a cluster of this machine, or ray:ADDRESS"),
    ],
)
def test_a_place_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, line: str
) -> None:
    code, _, err = call(capsys, "sweep", str(sweep_file(tmp_path)), "--on", where)
    assert code == 1 and line in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_sweep_file_that_is_no_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a: [", "- a"):
        (tmp_path / "tiny.yaml").write_text(text)
        code, _, err = call(capsys, "sweep", str(tmp_path / "tiny.yaml"))
        assert code == 1 and err.count("\n") == 1
        assert f"sweep file {tmp_path / 'tiny.yaml'}: " in err and "settings file" not in err


def test_runs_are_made_once_and_a_failed_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = TINY | {"env.kwargs.nonsense": 1}
    path = str(sweep_file(tmp_path, set=wrong))
    code, result, err = call(capsys, "sweep", path, "--json")
    assert (code, result["failed"]) == (1, ["planet-cartpole-swingup-seed0"])
    assert "1 of 1 runs failed, planet-cartpole-swingup-seed0 first" in err and "nonsense" in err
    path = str(sweep_file(tmp_path, seeds=2))
    code, result, err = call(capsys, "sweep", path, "--json")
    names = ["planet-cartpole-swingup-seed0", "planet-cartpole-swingup-seed1"]
    assert (code, result["begun"], result["failed"]) == (0, names, [])
    assert "planet-cartpole-swingup-seed0: complete" in err
    code, result, err = call(capsys, "sweep", "run", path, "--json")
    assert (code, result["begun"]) == (0, []) and "2 complete" in err
    code, result, _ = call(capsys, "sweep", "status", path, "--json")
    assert (result["complete"], result["missing"]) == (2, 0)
    assert [one["env_steps"] for one in result["runs"]] == [120, 120]
    code, result, _ = call(capsys, "sweep", "collect", path, "--episodes", "1", "--json")
    assert code == 0 and len(result["results"]) == 2
    # the file is changed: these runs are not those that it stands for now
    path = str(sweep_file(tmp_path, seeds=2, set=TINY | {"rssm.deter": 20}))
    why = "was made with rssm.deter = 16, the sweep file has 20"
    code, result, err = call(capsys, "sweep", path, "--json")
    assert (code, result) == (1, {}) and err.count("\n") == 1
    assert f"{names[0]} (and 1 more): {why}; change {path} back" in err
    code, result, _ = call(capsys, "sweep", "status", path, "--json")
    assert (result["complete"], result["other"]) == (0, 2)
    assert [one["why"] for one in result["runs"]] == [why, why]
    code, result, err = call(capsys, "sweep", "collect", path, "--json")
    assert (code, result) == (1, {}) and err.count("left out, was made with") == 2
    path = str(sweep_file(tmp_path, set=TINY | {"rssm.deter": [16, 20], "env.kwargs.nonsense": 1}))
    code, result, err = call(capsys, "sweep", path, "--json")
    assert (code, len(result["failed"])) == (1, 2)
    assert f"also holds 2 runs that {path} does not name, {names[0]} first" in err
    longer = sweep_file(tmp_path, seeds=1, set=TINY | {"train.env_steps": 800})
    assert state_of(Sweep.read(longer).runs[0]).state == "stopped"  # it can go on


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(tmp_path)
    [run] = Sweep.read(path).runs
    assert state_of(run).state == "missing"
    assert call(capsys, "sweep", str(path))[0] == 0
    newest = location.numbered(run.folder)[-1]
    assert checkpoints.progress_of(newest) == checkpoints.load(newest).progress
    newest.unlink()
    os.mkfifo(newest)
    assert state_of(run).state == "stopped"  # and is not waited for
    newest.unlink()
    newest.write_bytes(b"damaged")  # the run goes on from the one before
    assert state_of(run).state == "stopped"
    assert call(capsys, "sweep", str(path))[0] == 0
    assert state_of(run).state == "complete"


def test_slurm_takes_a_job_away_and_it_goes_on_as_if_nothing_had_happened(
    tmp_path: Path,
) -> None:
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("needs the extra slurm")
    # Processes of their own: submitit's import closes all handlers of logging, and absl's, which
    # dm_control brings, then closes the file that pytest captures into.
    planet = [sys.executable, "-m", "planet_rssm", "sweep"]
    more = TINY | {"train.env_steps": 800}  # it is under way when the signal comes
    alone = sweep_file(tmp_path, set=more, out=str(tmp_path / "alone"))
    subprocess.run([*planet, str(alone)], check=True, timeout=100)
    path = sweep_file(tmp_path, set=more, slurm={"cluster": "local", "timeout_min": 60})
    said = tmp_path / "said.json"  # no pipe: the job would keep it open
    with said.open("wb") as out:
        subprocess.run(
            [*planet, str(path), "--on", "slurm", "--json"], stdout=out, check=True, timeout=100
        )
    assert len(json.loads(said.read_text())["jobs"]) == 1
    assert states_of(Sweep.read(path))[0].state == "running"  # before it has a folder
    [run] = Sweep.read(path).runs
    wait(lambda: location.numbered(run.folder))
    task = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
        and b"submitit.core._submit\0" in words_of(entry)
        and str(tmp_path).encode() in words_of(entry)
    )
    os.kill(task, signal.SIGUSR2)  # as SLURM does before it takes the machine away
    wait(lambda: state_of(run).state == "complete")
    [other] = Sweep.read(alone).runs
    logs = "".join(log.read_text() for log in (tmp_path / "out/submitit").glob("*_log.*"))
    assert "this job is preempted" in logs
    assert repeatable_lines(run.folder) == repeatable_lines(tmp_path / "alone" / other.name)


FAKES = {  # of SLURM: a folder `queue` has a file for each job that has not ended, with its state
    "srun": "",
    "sbatch": """
        date >> calls; first=$((100 + $(wc -l < calls)))
        count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        if [ -z "$count" ]; then echo PENDING > queue/$first; fi
        for index in $(seq 0 ${count:--1}); do echo PENDING > queue/${first}_$index; done
        echo Submitted batch job $first""",
    "squeue": """
        if [ -e down ]; then echo "Unable to contact slurm controller" >&2; exit 1; fi
        [ -z "$SQUEUE_STATES" ] || exit 2
        for asked in $(echo "$*" | sed 's/.*--jobs=//; s/,/ /g'); do
            for job in queue/${asked} queue/${asked}_*; do
                if [ -e $job ]; then found=1; echo "${job#queue/} $(cat $job)"; fi
            done
        done
        case "$*" in *,*) exit 0;; esac
        if [ -z "$found" ]; then
            echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
        fi""",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that starts no job, by programs of its names; its folder."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("needs the extra slurm")
    folder = tmp_path / "slurm"
    (folder / "queue").mkdir(parents=True)
    for name, script in FAKES.items():
        (folder / name).write_text(f"#!/bin/sh\ncd {folder}\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")  # as a user may have it
    return folder


def submit(path: Path) -> tuple[int, dict, str]:
    """Submit what is missing, in a process of its own: see below."""
    done = subprocess.run(
        [sys.executable, "-m", "planet_rssm", "sweep", str(path), "--on", "slurm", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_what_waits_in_the_queue_is_not_submitted_again(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, err = submit(sweep_file(tmp_path, seeds=3))
    assert (code, result["jobs"]) == (0, ["101_0", "101_1", "101_2"]), err
    path = sweep_file(tmp_path, seeds=4)  # the file has one more since
    (slurm / "queue/101_0").write_text("RUNNING")
    (slurm / "queue/101_1").unlink()  # its user has cancelled it
    code, result, _ = call(capsys, "sweep", "status", str(path), "--json")
    states = ["running", "missing", "queued", "missing"]
    assert [one["state"] for one in result["runs"]] == states and result["queued"] == 1
    code, result, err = submit(path)
    assert (code, result["jobs"]) == (0, ["102_0", "102_1"])
    assert [name[-1] for name in result["begun"]] == ["1", "3"]
    assert "4 runs in" in err and "2 missing, 1 queued, 1 running" in err
    code, result, _ = submit(path)
    assert (code, result["begun"], result["jobs"]) == (0, [], [])
    # jobs in the queue have other settings than the file has now
    changed = sweep_file(tmp_path, seeds=4, set=TINY | {"train.updates": 5})
    code, result, err = call(capsys, "sweep", "run", str(changed), "--json")
    assert (code, result) == (1, {}) and err.count("\n") == 1
    assert "(and 3 more): job 101_0, which has not ended, was submitted without " in err
    assert f"train.updates=5; cancel the job; change {changed} back" in err
    for job in (slurm / "queue").iterdir():
        job.unlink()
    code, result, err = call(capsys, "sweep", "status", str(changed), "--json")
    assert (result["missing"], result["other"], err) == (4, 0, "")


def test_one_job_that_waits_and_what_cannot_be_known(
    tmp_path: Path,
    slurm: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = sweep_file(tmp_path)
    out = tmp_path / "out"
    assert submit(path)[1]["jobs"] == ["101"]  # no array
    status = ("sweep", "status", str(path), "--json")
    assert call(capsys, *status)[1]["queued"] == 1
    (slurm / "queue/101").write_text("REQUEUED")
    assert call(capsys, *status)[1]["queued"] == 1
    (slurm / "down").touch()
    caplog.clear()
    code, result, _ = call(capsys, *status)
    assert (code, result["missing"]) == (0, 1)
    [line] = caplog.messages
    assert "squeue does not say which jobs wait (Unable to contact slurm controller)" in line
    (slurm / "down").unlink()
    (slurm / "squeue").rename(slurm / "away")
    caplog.clear()
    code, result, _ = call(capsys, *status)
    assert (code, result["missing"]) == (0, 1)
    [line] = caplog.messages
    assert "(No such file or directory)" in line
    (slurm / "away").rename(slurm / "squeue")
    (slurm / "queue/101").write_text("of another program's")
    caplog.clear()
    code, result, _ = call(capsys, *status)
    assert (code, result["missing"]) == (0, 1)
    [line] = caplog.messages
    assert "squeue does not say which jobs wait (it prints" in line
    (slurm / "queue/101").write_text("PENDING")
    jobs = out / "jobs.json"
    whole = jobs.read_bytes()
    for damaged in (b"", whole[:-9], whole.replace(b"101", b"102"), b"[]", b"\xff"):
        jobs.write_bytes(damaged)
        caplog.clear()
        code, result, _ = call(capsys, *status)
        assert (code, result["missing"]) == (0, 1)
        [line] = caplog.messages
        assert f"{jobs}: damaged or of another version" in line
    code, result, err = submit(path)  # the damaged file is replaced
    assert result["jobs"] == ["102"] and "damaged" in err
    assert call(capsys, *status)[1]["queued"] == 1
    jobs.unlink()
    jobs.mkdir()
    code, result, err = submit(path)
    assert (code, result) == (1, {}) and f"{jobs}: cannot be written" in err
    assert "nothing was submitted" in err and len((slurm / "calls").read_text().split("\n")) == 3


def words_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def wait(until) -> None:
    end = time.monotonic() + 90
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)
