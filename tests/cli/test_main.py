"""The command itself, before any verb."""

import os
import re
import subprocess
import sys

import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import CLOSED, main


def call(*words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return caught.value.code or 0


def test_the_bare_command_prints_the_help(capsys):
    assert call("--help") == 0
    wanted = capsys.readouterr()
    assert call() == 0
    assert capsys.readouterr() == wanted
    assert wanted.out.startswith("Usage: planet ")
    assert not wanted.err


@pytest.mark.parametrize(
    ("verb", "argument"), [("train", "PRESET"), ("plan", "RUN"), ("collect", "TASK")]
)
def test_a_missing_argument_is_named_in_one_line(verb, argument, capsys):
    assert call(verb) == 2
    assert capsys.readouterr().err == f"planet: Missing argument '{argument}'.\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["train", "quickstart", "seed=3"],
            "extra argument (seed=3); a setting is written with -s: -s seed=3",
        ),
        (["plan", "RUN", "planner.elites=3"], "-s planner.elites=3"),
        (
            ["train", "quickstart", "--config", "a.yaml"],
            "no such option '--config'; a settings file takes",
        ),
        (["train", "--wandb"], "no such option '--wandb'; metrics are in RUN/metrics.jsonl"),
        (
            ["train", "quickstart", "--batch-size", "3"],
            "'--batch-size'; a setting is written -s train.batch_size=…",
        ),
        (
            ["train", "quickstart", "--env.id", "a"],
            "no such option '--env.id'; a setting is written -s env.id=…",
        ),
        (["train", "quickstart", "--lr=1"], "-s optimizer.lr=… or -s behavior.lr=…"),
        (["train", "quickstart", "--sed=1"], "No such option '--sed'"),
        (["envs", "--config"], "No such option '--config'"),
    ],
)
def test_a_word_from_elsewhere_gets_a_hint(words, line, capsys):
    assert call(*words) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


@pytest.mark.parametrize(("given", "kept"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_openmp_spins_briefly_unless_the_user_says(given, kept):
    code = "import os\nfrom planet_rssm.cli.main import main\n"
    code += "try: main(['config', 'planet'])\nfinally: "
    code += "print(os.environ['GOMP_SPINCOUNT'], os.environ.get('OMP_WAIT_POLICY'))"
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("GOMP_", "OMP_WAIT"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{kept} None"


def test_a_word_that_would_steer_the_terminal_is_refused_and_shown_harmless(capsys):
    assert call("plan", "run\x1b[2Jx") == 1
    assert capsys.readouterr().err == "planet: run\\x1b[2Jx: holds a control character; rename it\n"


def run_into(command):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )


PLANET = f"{sys.executable} -m planet_rssm"


def test_an_output_that_is_full_is_one_line():
    done = run_into(f"{PLANET} config planet > /dev/full")
    assert done.returncode == 1
    assert (
        done.stderr == "planet: output: No space left on device; free some, or send it elsewhere\n"
    )


def test_an_output_that_nobody_reads_any_more_is_one_line():
    done = run_into(f"{PLANET} config planet > >(exec true); exit $?")
    expected = {
        0: "",
        141: f"planet: {CLOSED}\n",
    }  # the pipe takes the few lines before it is closed, or it does not
    assert done.stderr == expected[done.returncode]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "memory: used up; .*train.batch_size or planner.candidates"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            "memory: used up; free",
        ),
        (
            OSError(24, "Too many open files", "x"),
            "Too many open files: this system lets .* ulimit -n 1024",
        ),
        (OSError(28, "No space left on device"), "output: No space left on device"),
        (PlanetError("name\x1b[1m"), r"name\\x1b\[1m"),
    ],
)
def test_what_a_system_runs_out_of_is_one_line(error, line, monkeypatch, capsys):
    monkeypatch.setattr("planet_rssm.cli.main._drop_output", lambda: None)
    monkeypatch.setattr("planet_rssm.cli.main._run", lambda words: (_ for _ in ()).throw(error))
    assert call("config") == 1
    assert re.fullmatch(f"planet: {line}.*\n", capsys.readouterr().err)


def test_what_rich_makes_of_a_closed_pipe_is_one_line_too(monkeypatch, capsys):
    def closed(*_):
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 (as rich does it)

    monkeypatch.setattr("planet_rssm.cli.main._drop_output", lambda: None)
    monkeypatch.setattr("click.Group.invoke", closed)
    assert call("config", "planet") == 141
    assert capsys.readouterr().err == f"planet: {CLOSED}\n"


@pytest.mark.parametrize("group", ["data", "minari", "sweep"])
def test_a_verb_of_verbs_alone_says_what_there_is(group, capsys):
    assert call(group) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Usage: planet {group} ") and not shown.err
    assert call(group, "colect") == (1 if group == "sweep" else 2)  # a sweep takes a file too
    assert capsys.readouterr().err.count("\n") == 1


def test_a_verb_that_a_verb_does_not_know_gets_the_known_ones(capsys):
    assert call("data", "improt") == 2
    line = capsys.readouterr().err
    assert line == "planet: No such command 'improt'. Did you mean 'import'?\n"
    assert call("data", "zzz") == 2
    line = capsys.readouterr().err
    assert line == "planet: No such command 'zzz'; known: export, import, info\n"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.threads=0", "train.threads = 0: must be 'auto' or at least 1"),
        ("train.threads=5000", "train.threads = 5000: must be 'auto' or at most 1024"),
        ("train.collect_threads=x", "train.collect_threads = 'x': must be 'auto' or a valid int"),
        ("train.trackers=wandb", "train.trackers = 'wandb': must be a list, as [a, b]"),
        ("train.trackers=[x]", "train.trackers.0 = 'x': must be 'wandb' or 'trackio'"),
    ],
)
def test_a_setting_of_several_kinds_says_all_that_is_allowed(setting, said, tmp_path, capsys):
    assert call("train", "quickstart", "-s", setting, "--run-dir", str(tmp_path / "run")) == 1
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


def test_a_settings_file_needs_its_ending(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("preset: quickstart")
    assert call("train", str(tmp_path / "mine.txt")) == 1
    assert "mine.txt: must end in .yaml; rename it" in capsys.readouterr().err
