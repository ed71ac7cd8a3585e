"""A fork is to the process that asks for it what a process that Python starts would be."""

import os
import signal
import subprocess
import sys

import forks
import pytest

PLANET = [sys.executable, "-m", "planet_rssm"]


def started(*words: str, **options: object) -> tuple[str, str, int]:
    done = subprocess.run([*PLANET, *words], capture_output=True, text=True, **options)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("words", [["config", "mine.yaml"], ["config", "their.yaml"], ["trian"]])
def test_it_prints_and_returns_the_same(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("rssm.latent: mine:Latent\n")
    forked = started(*words, env=os.environ | {"COLUMNS": "90"}, cwd=tmp_path)
    with forks.started_by_python():
        assert started(*words, env=os.environ | {"COLUMNS": "90"}, cwd=tmp_path) == forked


def test_it_is_a_child_that_is_killed_and_waited_for(tmp_path):
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [*PLANET, "collect", "cup-catch", "--policy", "random", "--out", tmp_path / "set"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    with open(f"/proc/{process.pid}/stat") as stat:
        assert int(stat.read().rpartition(")")[2].split()[1]) == os.getpid()
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{process.pid}")


def test_it_finds_the_modules_that_python_would(tmp_path, monkeypatch):
    """A package of another content in front of what the server has imported."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise RuntimeError('another numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "another numpy" in started("--debug", "plan", "nowhere")[1]
