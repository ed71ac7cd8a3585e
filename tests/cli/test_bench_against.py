"""`planet bench train --against`: which checkout runs, what is compared, and what goes wrong.

Both checkouts are folders whose `planet_rssm` prints an answer at once.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from planet_rssm.cli.main import main

MACHINE = {
    "device": "cpu",
    "threads": 1,
    "gemm_gflops": {"float32": 1.0},
    "auto_precision": "float32",
}
SLOW, FAST = ("float32", 20.0), ("float32", 5.0)
HALF = ("bfloat16", 3.0)


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[..., Path]:
    """checkout("old", ("float32", 20.0), ...): a folder whose bench takes so many milliseconds.

    Every call adds 1 ms, and writes its words and its folder to `calls` beside the folders.
    """

    def make(name: str, *cases: tuple[str, float], line: str = "") -> Path:
        package = tmp_path / name / "planet_rssm"
        package.mkdir(parents=True)
        (tmp_path / name / "configs").mkdir()
        (tmp_path / name / "configs" / "some.yaml").touch()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            "import json, pathlib, sys\n"
            f"calls = pathlib.Path({str(tmp_path / 'calls')!r})\n"
            "before = calls.read_text().splitlines() if calls.exists() else []\n"
            f"calls.write_text('\\n'.join([*before, ' '.join([{name!r}, *sys.argv[1:]])]))\n"
            f"sys.exit({line!r}) if {line!r} else None\n"
            f"late = sum(call.startswith({name!r}) for call in before)\n"
            "cases = [{'preset': sys.argv[3], 'precision': p, 'ms': ms + late, 'more': 1}\n"
            f"         for p, ms in {list(cases)!r}]\n"
            f"print(json.dumps({{'machine': {MACHINE!r}, 'cases': cases}}))\n"
        )
        return tmp_path / name

    return make


@pytest.fixture
def here(checkout: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """This checkout, where `planet bench` answers at once."""
    folder = checkout("here", FAST, HALF)
    monkeypatch.setattr("planet_rssm.bench.against.HERE", folder)
    return folder


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *words])
        raise SystemExit(0)
    return int(caught.value.code or 0)


def test_both_are_timed_in_turns(here, checkout, tmp_path, capsys) -> None:
    old = checkout("old", SLOW)
    words = ["quickstart", "-s", "model.depth=2", "--precision", "float32", "--device", "cpu"]
    assert call("train", *words, "--against", str(old), "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["machine"] == MACHINE | {"against": str(old)}
    assert result["cases"] == [
        {
            "preset": "quickstart",
            "precision": "float32",
            "ms": 6.0,
            "against_ms": 21.0,
            "ratio": 0.286,
            "turns": [[5.0, 20.0], [6.0, 21.0], [7.0, 22.0]],
        }
    ]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[0] for line in calls] == ["old", "here", "here", "old", "old", "here"]
    given = "bench train quickstart --repeats 3 --device cpu --json -s model.depth=2"
    assert calls[0] == f"old {given} --precision float32"


def test_people_get_a_table(here, checkout, capsys) -> None:
    old = checkout("old", SLOW, HALF)
    assert call("behavior", "quickstart", "--against", str(old)) == 0
    shown = capsys.readouterr().out
    assert "0.29" in shown and "1.00, 1.00, 1.00" in shown and f"ms of {old}"[:10] in shown


def test_without_git_one_line_says_so(here, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert call("train", "quickstart", "--against", "HEAD") == 1
    said = capsys.readouterr().err.strip()
    assert "git does not start (No such file or directory); give a folder" in said


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_a_commit_is_taken_from_this_checkouts_repository(here, checkout, capsys) -> None:
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    main_file = here / "planet_rssm" / "__main__.py"
    main_file.write_text(main_file.read_text().replace("5.0", "4.0"))
    assert call("train", "quickstart", "--against", "HEAD", "--json") == 0
    for case in json.loads(capsys.readouterr().out)["cases"]:
        assert case["ratio"] < 1 or case["precision"] == "bfloat16"
    assert not (here / ".git" / "worktrees").exists()
    assert call("train", "quickstart", "--against", "HEAD~9") == 1
    said = capsys.readouterr().err.strip()
    assert "--against HEAD~9: no such folder, and git in " in said and "\n" not in said


@pytest.mark.parametrize("name", ["empty", "-no-such"])
def test_a_folder_without_the_package_is_one_line(name, here, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    where = str(tmp_path / "empty") if name == "empty" else name
    assert call("train", "quickstart", f"--against={where}") == 1
    said = capsys.readouterr().err.strip()
    assert f"--against {where}: no " in said and "\n" not in said


def test_what_the_other_one_says_is_passed_on(here, checkout, capsys) -> None:
    old = checkout("old", SLOW, line="Error: unknown setting 'model.new'")
    assert call("train", "quickstart", "--against", str(old)) == 1
    said = capsys.readouterr().err
    assert f"planet bench train of {old}: Error: unknown setting 'model.new'" in said


def test_no_case_in_common_is_one_line(here, checkout, capsys) -> None:
    old = checkout("old", ("float16", 1.0))
    assert call("train", "quickstart", "--against", str(old)) == 1
    said = capsys.readouterr().err
    assert "it timed quickstart float16, this checkout quickstart float32, quickstart bf" in said


def test_a_precision_that_some_turns_only_have_timed_is_left_out(here, checkout, capsys) -> None:
    """By default a bench leaves out what it finds slow, which is another thing in each process."""
    old = checkout("old", SLOW, HALF)
    main_file = old / "planet_rssm" / "__main__.py"
    main_file.write_text(
        main_file.read_text().replace("print", "del cases[1:2 if late else 1]\nprint")
    )
    assert call("train", "quickstart", "quickstart", "--against", str(old), "--json") == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["precision"] == "float32" and len(case["turns"]) == 3
