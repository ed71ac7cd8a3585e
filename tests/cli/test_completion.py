"""Shell completion, as the shells ask for it."""

import os
import shutil
import subprocess
import sys

import pytest

from planet_rssm.cli.main import VERBS, main


def complete(capsys, monkeypatch, line: str) -> list[str]:
    """The words that bash would offer at the end of `line`."""
    words = line.split(" ")
    monkeypatch.setenv("_PLANET_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as caught:
        main([])
    said = capsys.readouterr()
    assert not caught.value.code
    assert not said.err
    return [answer.partition(",")[2] for answer in said.out.split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("name", "variable"), [("planet", "_PLANET"), ("planet-rssm", "_PLANET_RSSM")]
)
def test_the_script_is_printed_under_the_name_that_was_called(
    shell, name, variable, capsys, monkeypatch
):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version, and there is no bash here")
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{name}"])
    monkeypatch.setenv(f"{variable}_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert not caught.value.code
    assert f"{variable}_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_verbs_and_options_are_offered(capsys, monkeypatch):
    assert complete(capsys, monkeypatch, "planet ") == list(VERBS)
    assert complete(capsys, monkeypatch, "planet doc") == ["doctor"]
    assert complete(capsys, monkeypatch, "planet doctor --j") == ["--json"]
    assert complete(capsys, monkeypatch, "planet plan RUN --planner i") == ["icem"]


def test_a_mistake_earlier_in_the_line_offers_nothing(capsys, monkeypatch):
    assert complete(capsys, monkeypatch, "planet trian --s") == []


def test_bash_completes(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    shim = tmp_path / "planet"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m planet_rssm "$@"\n')
    shim.chmod(0o755)
    code = (
        'eval "$(_PLANET_COMPLETE=bash_source planet)"; '
        "COMP_WORDS=(planet env) COMP_CWORD=1; _planet_completion planet"
    )
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [bash, "--norc", "-c", f"{code}; echo ${{COMPREPLY[@]}}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "envs\n", done.stderr


TASKS = ("ball_in_cup-catch", "cartpole-swingup", "cheetah-run", "finger-spin", "walker-walk")
PACKAGED = [f"pretrained:{name}" for name in TASKS]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("planet train quickstart-", ["quickstart-discrete", "quickstart-search"]),
        ("planet config systems/dreamer-v3", ["systems/dreamer-v3-pytorch"]),
        ("planet bench train pend", ["pendulum-pixels"]),
        ("planet plan pre", PACKAGED),
        (
            "planet eval runs/one pre",
            PACKAGED,
        ),
        ("planet collect walker-w", ["walker-walk"]),
        ("planet train quickstart -s train.bat", ["train.batch_size=", "train.batch_length="]),
        ("planet plan RUN -s train.bat", []),
        ("planet plan RUN -s planner.cand", ["planner.candidates="]),
        ("planet collect walker-walk -s env.siz", ["env.size="]),
    ],
)
def test_presets_models_tasks_and_settings_are_offered(line, offered, capsys, monkeypatch):
    assert complete(capsys, monkeypatch, line) == offered
