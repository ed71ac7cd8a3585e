"""Set up or repair .venv, then become one of its programs.

Standard library only; called by _run.sh.

    python3 _setup.py PROGRAM ARGUMENT...      PROGRAM is a name in .venv/bin

Everything goes into .venv; the Python that runs this is only asked for its venv and pip modules. A
killed set-up or a damaged .venv is recognised by its files; complete packages are kept.
"""

import contextlib
import csv
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
SITE = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
# written last: what was installed, and for which folder; _run.sh compares times with its own
STAMP = VENV / "ready"
LOG = VENV / "setup.log"  # all that the installer says
QUIET = 30.0  # seconds between lines where there is no terminal
WIDTH = 120  # of them: pip names all it installs in one
LINES = 15  # of LOG, shown when a step fails
COST = "downloads about 3 GB (most of it torch with CUDA), takes 6 GB on disk"


class SetupError(Exception):
    """A set-up that cannot continue, with a line for the user."""


def main(program: str, *arguments: str) -> None:
    # so that run() ends the installer
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        ensure()
    except (SetupError, OSError) as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        print("set-up: interrupted; the next call continues from here", file=sys.stderr)
        sys.exit(130)
    sys.stderr.flush()
    os.execv(VENV / "bin" / program, [str(VENV / "bin" / program), *arguments])


def ensure() -> None:
    if not complete():
        with one_at_a_time() as lock:
            if not complete():  # nobody else repaired it while this process waited
                set_up(lock)
    # somebody else's complete .venv: usable, only checked again each time
    with contextlib.suppress(PermissionError):
        STAMP.touch()


def complete() -> bool:
    if not STAMP.is_file() or not own_python():
        return False
    stamp = STAMP.read_text().splitlines()
    return (
        stamp[:2] == fingerprint()
        and set(stamp[2:]) <= {package.name for package in installed()}
        and not damaged()
    )


def fingerprint() -> list[str]:
    """This folder, alone on a line for _run.sh, and a digest of what decides the installation."""
    return [
        str(ROOT),
        hashlib.sha256(
            LOCK.read_bytes() + b"\0" + (ROOT / "pyproject.toml").read_bytes()
        ).hexdigest(),
    ]


def own_python() -> bool:
    """Whether .venv/bin/python runs, is of this version and looks for packages in .venv only."""
    question = "import sys; print(sys.prefix, *sys.version_info[:2])"
    with contextlib.suppress(OSError):
        answer = subprocess.run([PYTHON, "-I", "-c", question], capture_output=True, text=True)
        return (
            answer.stdout.split("\n")[0]
            == f"{VENV} {sys.version_info.major} {sys.version_info.minor}"
        )
    return False


def installed() -> list[Path]:
    return list(SITE.glob("*.dist-info"))


def damaged() -> list[Path]:
    """The installed packages of which a file is missing or has another size than was recorded."""
    return [package for package in installed() if not intact(package)]


def intact(package: Path) -> bool:
    try:
        with open(package / "RECORD", newline="") as record:
            return all(
                os.stat(SITE / name).st_size == int(size)
                for name, _, size in csv.reader(record)
                if size
            )
    except (OSError, ValueError):  # no RECORD, half a RECORD, or a file that is gone
        return False


@contextlib.contextmanager
def one_at_a_time() -> Iterator[IO]:
    """Take a lock that every child inherits: an installer that outlives us keeps others out."""
    with open(ROOT / ".venv.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "set-up: waiting for another call that is setting up this folder", file=sys.stderr
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def set_up(lock: IO) -> None:
    if VENV.is_symlink():  # what is there belongs to another folder
        raise SetupError(f"{VENV}: is a link to {VENV.readlink()}; remove the link")
    install = installer()
    announce()
    STAMP.unlink(missing_ok=True)
    make_venv()
    remove_damaged()
    # First exactly the lock, whatever else its packages ask for (dm-control wants labmaze, which
    # Python 3.13 cannot install); then what torch brings along on this platform; then this
    # checkout, built with the tools now there.
    LOG.unlink(missing_ok=True)
    run("packages", [*install, "--no-deps", "-r", LOCK], lock)
    run("torch", [*install, "-c", LOCK, "torch"], lock)
    run(
        "planet_rssm",
        [*install, "--quiet", "--compile", "--no-deps", "--no-build-isolation", "-e", ROOT],
        lock,
    )
    STAMP.write_text(
        "\n".join([*fingerprint(), *sorted(package.name for package in installed()), ""])
    )
    print("set-up: done", file=sys.stderr)


def installer() -> list[str | Path]:
    """The command that installs into .venv, by uv or else pip, without the packages' names."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", PYTHON]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        raise SetupError(
            f"{sys.executable} has no pip and there is no uv: "
            "install one ('apt install python3-pip')"
        )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        PYTHON,
        "--disable-pip-version-check",
        "--no-input",
    ]
    return [*pip, "install", "--no-user"]


def announce() -> None:
    if VENV.exists():
        print(
            f"set-up: completing {VENV}, downloads what is missing (from nothing: {COST}); "
            f"log: {LOG}",
            file=sys.stderr,
        )
    else:
        free = shutil.disk_usage(ROOT).free / 1e9
        print(
            f"set-up: making {VENV}, once: {COST} ({free:.0f} GB are free); log: {LOG}",
            file=sys.stderr,
        )


def make_venv() -> None:
    """Create .venv, or give an old one its interpreter back; replace another Python's."""
    if VENV.exists() and not SITE.is_dir():
        shutil.rmtree(VENV)
    for old in VENV.glob("bin/python*"):  # venv leaves a dangling link as it is
        old.unlink()
    venv.create(VENV, symlinks=True, with_pip=False)


def remove_damaged() -> None:
    """Make the installer forget damaged packages, so that it installs them anew."""
    for package in [*damaged(), *SITE.glob("~*")]:  # ~name: an upgrade that was killed
        shutil.rmtree(package)


@contextlib.contextmanager
def signals_delayed() -> Iterator[None]:
    """Let SIGINT and SIGTERM act only after the block.

    They are not blocked, which the child would inherit.
    """
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def run(step: str, command: list[str | Path], lock: IO) -> None:
    """Run one step of the installer: no input, output to LOG, its progress on standard error."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    child = None
    try:
        # signals are delayed: an interrupt between start and assignment would leave an installer
        # that nobody ends
        with open(LOG, "ab") as log, signals_delayed():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        status = watch(step, child)
    except BaseException:
        if child:
            os.killpg(child.pid, signal.SIGTERM)  # pip works in a child of its own
            child.wait()
        raise
    if status:
        print(*last_lines(LINES), sep="\n", file=sys.stderr)
        raise SetupError(
            f"the installer stopped with status {status}, see above and {LOG}; "
            "the next call continues from here"
        )


def watch(step: str, child: subprocess.Popen) -> int:
    """Wait for the installer and show its last line: each second on a terminal, else each 30."""
    began = printed = time.monotonic()
    terminal = sys.stderr.isatty()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=1)
            now = time.monotonic()
            minutes, seconds = divmod(int(now - began), 60)
            line = f"set-up: {step}{count()}, {minutes}:{seconds:02d}, {' '.join(last_lines(1))}"
            if terminal:
                print(
                    f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
            elif now - printed >= QUIET:
                printed = now
                print(line[:WIDTH], file=sys.stderr, flush=True)
    finally:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def count() -> str:
    """How many of the lock's packages pip has come to; nothing of an installer that lists none."""
    come = len(re.findall(r"^Collecting ", LOG.read_text(errors="replace"), re.MULTILINE))
    total = sum(not line.startswith("#") for line in LOCK.read_text().splitlines())
    return f" {come} of {total}" if 0 < come <= total else ""


def last_lines(count: int) -> list[str]:
    """The last lines of LOG that say something; a bar that was drawn over itself is one."""
    text = LOG.read_text(errors="replace").replace("\r", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]


if __name__ == "__main__":
    main(*sys.argv[1:])
