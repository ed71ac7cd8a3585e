"""./scripts/planet and ./scripts/test in their own checkout, with a pretended installer."""

import importlib.metadata
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = 3  # calls of the installer in one set-up

# Stands for uv. Like any installer it leaves a package alone whose .dist-info is there; this one
# brings the programs.
UV = """#!{python} -IS
import os, pathlib, sys, time
with open(os.environ["UV_LOG"], "a") as log:
    print(os.getpid(), *sys.argv[1:], file=log)
print("installing")
time.sleep(float(os.environ.get("UV_SECONDS", 0)))
if "UV_FAILS" in os.environ:
    sys.exit(2)
venv = pathlib.Path(sys.argv[4]).parent.parent
(site,) = venv.glob("lib/python3.*/site-packages")
program = "#!/bin/sh\\necho ${{0##*/}} \\"$@\\"; cat; exit 7\\n"
files = {{"demo/__init__.py": "demo = 1"}}
files |= {{"../../../bin/planet": program, "../../../bin/pytest": program}}
if not (site / "demo-1.dist-info").exists():
    for name in ("demo", "demo-1.dist-info"):
        (site / name).mkdir(exist_ok=True)
    for name, text in files.items():
        (site / name).write_text(text)
        (site / name).chmod(0o755)
    record = [f"{{name}},,{{len(text)}}" for name, text in files.items()]
    record.append("demo-1.dist-info/RECORD,,")
    (site / "demo-1.dist-info" / "RECORD").write_text("\\n".join(record))
"""


def heed_interrupts():
    """Undo what a job in the background inherits: SIGINT ignored, for all its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Checkout:
    """The scripts in a folder with a space in its name, and a PATH with the pretended uv first."""

    def __init__(self, folder: Path):
        self.root = folder / "check out"
        shutil.copytree(
            REPOSITORY / "scripts",
            self.root / "scripts",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in ("requirements.lock", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, self.root)
        (self.root / "tests").mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "uv.log"
        self.log.touch()
        self.program("uv", UV.format(python=sys._base_executable))
        (self.bin / "python3").symlink_to(sys._base_executable)
        self.environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "UV_LOG": str(self.log)}
        self.elsewhere = folder

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(
        self, script: str = "planet", *arguments: str, **environment: str
    ) -> subprocess.Popen:
        return subprocess.Popen(
            [self.root / "scripts" / script, *arguments],
            env=self.environment | environment,
            cwd=self.elsewhere,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )

    def call(self, *words: str, text: str = "", **environment: str) -> tuple[int, str, str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(text, timeout=60)
        return process.returncode, out, err

    def installs(self) -> int:
        """Count the calls of the installer since the last count."""
        count = len(self.log.read_text().splitlines())
        self.log.write_text("")
        return count

    def wait_for_installer(self) -> int:
        """Return the process id of an installer that has started."""
        for _ in range(1000):
            if words := self.log.read_text().split():
                return int(words[0])
            time.sleep(0.01)
        raise AssertionError("the installer was not called")

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def site(self) -> Path:
        (site,) = self.venv.glob("lib/python3.*/site-packages")
        return site


@pytest.fixture
def fresh(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def ready(fresh):
    assert fresh.call("planet")[0] == 7
    assert fresh.installs() == STEPS
    return fresh


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_first_call_announces_sets_up_and_becomes_the_program(fresh):
    status, out, err = fresh.call("planet", "train", "a b", text="input\n")
    assert (status, out) == (7, "planet train a b\ninput\n")
    assert "3 GB" in err
    assert "installing" not in err and len(err.splitlines()) == 2
    log = fresh.venv / "setup.log"
    assert str(log) in err and log.read_text() == "installing\n" * STEPS


def test_second_call_installs_nothing_and_says_nothing(ready):
    assert ready.call("planet", "plan", text="x") == (7, "planet plan\nx", "")
    assert ready.installs() == 0


def test_a_python_script_sets_up_too_and_continues_there(fresh):
    """It needs the package, which the pretended installer does not bring."""
    status, _, err = fresh.call("bench_peers", "--help")
    assert (status, fresh.installs()) == (1, STEPS)
    assert err.endswith(f"{fresh.venv} has no planet_rssm: delete it, then run this again\n")


def test_a_touched_but_equal_lock_installs_nothing(ready):
    (ready.root / "requirements.lock").touch()
    assert ready.call("planet") == (7, "planet\n", "")
    assert ready.installs() == 0


DAMAGE = {
    "lock changed": lambda c: (c.root / "requirements.lock").write_text("other==1\n"),
    "killed before the end": lambda c: (c.venv / "ready").unlink(),
    "half a stamp": lambda c: (c.venv / "ready").write_text(""),
    "environment deleted": lambda c: shutil.rmtree(c.venv),
    "package deleted": lambda c: shutil.rmtree(c.site / "demo"),
    "package uninstalled": lambda c: [
        shutil.rmtree(c.site / name) for name in ("demo", "demo-1.dist-info")
    ],
    "record lost": lambda c: (c.site / "demo-1.dist-info" / "RECORD").unlink(),
    "program deleted": lambda c: (c.venv / "bin" / "planet").unlink(),
    "interpreter deleted": lambda c: (c.venv / "bin" / "python").unlink(),
    "interpreter dangling": lambda c: point_at(c.venv / "bin" / "python", "/nowhere/python3"),
    "half made, with another Python": lambda c: [
        (c.venv / "ready").unlink(),
        c.site.parent.rename(c.venv / "lib/python3.9"),
    ],
    "pyvenv.cfg deleted": lambda c: (c.venv / "pyvenv.cfg").unlink(),
    "folder moved": lambda c: move(c),
}


def point_at(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def move(checkout: Checkout) -> None:
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_next_call_mends(ready, damage):
    time.sleep(0.05)  # file times advance in steps of some milliseconds
    damage(ready)
    status, out, _ = ready.call("planet", "plan")
    assert (status, out) == (7, "planet plan\n")
    assert ready.installs() == STEPS
    assert (ready.site / "demo" / "__init__.py").is_file()
    assert ready.call("planet") == (7, "planet\n", "")
    assert ready.installs() == 0


def test_a_file_cut_short_is_repaired_when_looked_for(ready):
    time.sleep(0.05)  # file times advance in steps of some milliseconds
    (ready.site / "demo" / "__init__.py").write_text(
        ""
    )  # a folder does not show it; the next full check does
    (ready.root / "requirements.lock").touch()
    assert ready.call("planet")[0] == 7
    assert (ready.site / "demo" / "__init__.py").read_text() == "demo = 1"


def test_a_failed_installer_ends_in_one_line_and_the_next_call_goes_on(fresh):
    status, out, err = fresh.call("planet", UV_FAILS="1")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("set-up: the installer stopped with status 2")
    assert err.splitlines()[-2] == "installing"  # the last lines of the log
    assert fresh.installs() == 1
    assert fresh.call("planet")[0] == 7


def test_a_link_to_another_folder_s_environment_is_refused_and_nothing_there_changes(fresh):
    other = fresh.root / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").touch()
    fresh.venv.symlink_to(other)
    status, _, err = fresh.call("planet")
    assert status == 1
    assert err.splitlines()[-1] == f"set-up: {fresh.venv}: is a link to {other}; remove the link"
    assert (other / "bin" / "python").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_set_up_ends_its_installer(fresh, number, status):
    process = fresh.start("planet", UV_SECONDS="60")
    installer = fresh.wait_for_installer()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == status
    assert not alive(installer)
    assert fresh.call("planet")[0] == 7


def test_an_installer_that_outlives_a_killed_set_up_keeps_others_waiting(fresh):
    process = fresh.start("planet", UV_SECONDS="2")
    fresh.wait_for_installer()
    process.kill()
    process.wait(timeout=30)
    status, _, err = fresh.call("planet")
    process.communicate()
    assert status == 7
    assert "waiting" in err
    assert fresh.installs() == 1 + STEPS


def test_two_calls_at_once_set_up_once(fresh):
    both = [fresh.start("planet", UV_SECONDS="0.2") for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["planet\n", "planet\n"]
    assert fresh.installs() == STEPS


def test_without_a_suitable_python_one_line_says_so(fresh):
    (fresh.bin / "python3").unlink()
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        fresh.program(name, "#!/bin/sh\necho Python 3.9.2; exit 1\n")
    status, out, err = fresh.call("planet")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "3.11" in err
    assert "Python 3.9.2" in err


def test_a_link_to_the_script_works(ready):
    (ready.bin / "planet-here").symlink_to(ready.root / "scripts" / "planet")
    done = subprocess.run(
        ["planet-here", "x"], env=ready.environment, capture_output=True, text=True, input=""
    )
    assert (done.returncode, done.stdout) == (7, "planet x\n")


def test_the_suite_runs_whole_unless_a_path_is_given(ready):
    ready.elsewhere.joinpath("test_mine.py").touch()
    assert ready.call("test", "-k", "cem")[1].endswith(f"-k cem {ready.root / 'tests'}\n")
    assert ready.call("test", "test_mine.py::test_x")[1].endswith(" test_mine.py::test_x\n")


def test_a_line_of_progress_stays_short(tmp_path, capsys):
    setup = runpy.run_path(str(REPOSITORY / "scripts/_setup.py"))
    (tmp_path / "setup.log").write_text("Installing collected packages: " + "numpy, " * 200)

    class Installer:
        """Takes a second."""

        waits = iter([subprocess.TimeoutExpired("pip", 1), 0])

        def wait(self, timeout):
            if isinstance(came := next(self.waits), Exception):
                raise came
            return came

    setup["watch"].__globals__.update(LOG=tmp_path / "setup.log", QUIET=0.0)
    assert setup["watch"]("packages", Installer()) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("set-up: packages, 0:00, Installing") and len(line) == 120


def test_the_line_of_progress_counts_what_pip_has_come_to(tmp_path):
    setup = runpy.run_path(str(REPOSITORY / "scripts/_setup.py"))
    setup["count"].__globals__.update(LOG=tmp_path / "setup.log", LOCK=tmp_path / "lock")
    (tmp_path / "lock").write_text("# a list\na==1\nb==2\nc==3\n")
    (tmp_path / "setup.log").write_text("Collecting a==1\n  Downloading a\nCollecting b==2\n")
    assert setup["count"]() == " 2 of 3"
    (tmp_path / "setup.log").write_text("Resolved 3 packages\n")
    assert setup["count"]() == ""


def test_everything_listed_accepts_the_oldest_python():
    """Debian 12 has 3.11.2: a package that wants 3.11.5 would end its set-up."""
    names = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements.lock").read_text(), re.M)
    assert len(names) > 100
    for name in names:
        try:
            wanted = importlib.metadata.metadata(name)["Requires-Python"]
        except importlib.metadata.PackageNotFoundError:  # not of this Python, or no checkout's
            continue
        oldest = "3.11.2" if sys.version_info < (3, 12) else "3.12.0"
        assert oldest in SpecifierSet(wanted or ""), name
