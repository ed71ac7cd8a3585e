"""The command itself, before any verb."""

import os
import subprocess
import sys

import pytest

from planet_rssm.cli.main import main


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


@pytest.mark.parametrize(("verb", "argument"), [("train", "PRESET"), ("plan", "RUN"), ("collect", "TASK")])
def test_a_missing_argument_is_named_in_one_line(verb, argument, capsys):
    assert call(verb) == 2
    assert capsys.readouterr().err == f"planet: Missing argument '{argument}'.\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "quickstart", "seed=3"], "extra argument (seed=3); a setting is written with -s: -s seed=3"),
        (["plan", "RUN", "planner.elites=3"], "-s planner.elites=3"),
        (["train", "quickstart", "--config", "a.yaml"], "no such option '--config'; a settings file takes"),
        (["train", "--wandb"], "no such option '--wandb'; metrics are in RUN/metrics.jsonl"),
        (["train", "quickstart", "--batch-size", "3"], "'--batch-size'; a setting is written -s train.batch_size=…"),
        (["train", "quickstart", "--env.id", "a"], "no such option '--env.id'; a setting is written -s env.id=…"),
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
def test_openmp_is_told_to_spin_briefly_unless_the_user_says(given, kept):
    code = "import os\nfrom planet_rssm.cli.main import main\ntry: main(['config', 'planet'])\nfinally: "
    code += "print(os.environ['GOMP_SPINCOUNT'], os.environ.get('OMP_WAIT_POLICY'))"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP_", "OMP_WAIT"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{kept} None"
