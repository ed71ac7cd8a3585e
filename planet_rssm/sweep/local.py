"""A sweep's runs on this machine, a process each, some at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from planet_rssm.sweep.plan import SweepRun

LOGS = "logs"
_LOOK = 0.2  # seconds between two looks whether a run has ended


def run_here(
    runs: Sequence[SweepRun], out: Path, at_once: int, say: Callable[[str], object]
) -> list[str]:
    """Make the runs, `at_once` at a time, and return the names of those that failed.

    What a run prints is in `out`/logs. A signal that ends this process stops the runs first, which
    commit what they have learned.
    """
    threads = max(1, (os.cpu_count() or 1) // at_once)
    waiting = list(runs)
    going: list[tuple[SweepRun, subprocess.Popen[bytes]]] = []
    failed = []
    try:
        while waiting or going:
            while waiting and len(going) < at_once:
                run = waiting.pop(0)
                going.append((run, start(run, out, threads)))
                say(f"{run.name}: begun")
            for run, process in list(going):
                if (code := process.poll()) is None:
                    continue
                going.remove((run, process))
                if code:
                    failed.append(run.name)
                say(f"{run.name}: {last_line(out, run) if code else 'complete'}")
            time.sleep(_LOOK)
    finally:
        for _, process in going:
            process.send_signal(signal.SIGTERM)
        for _, process in going:
            process.wait()
    return failed


def start(
    run: SweepRun, out: Path, threads: int, *, life: int | None = None, folder: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start the process that trains a run, in a session of its own.

    Args:
        run: begun where it is missing, else continued.
        out: of the sweep; what the process prints is in a log there.
        threads: to compute with, unless the environment says so.
        life: a descriptor of a pipe that has its other end here alone; the process is killed when
            that closes. None: it outlives this process.
        folder: where it is started; None: here.
    """
    program = "planet_rssm" if life is None else "planet_rssm.base.parent"
    bound = [] if life is None else [str(life)]
    with _log_of(out, run).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", program, *bound, *run.words()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"OMP_NUM_THREADS": str(threads)} | os.environ,
            pass_fds=[] if life is None else [life],
            start_new_session=True,  # Ctrl-C comes from here, once
        )


def last_line(out: Path, run: SweepRun) -> str:
    """Return the last line that a run has printed."""
    lines = _log_of(out, run).read_text(errors="replace").splitlines()
    return lines[-1] if lines else "ended without a word"


def _log_of(out: Path, run: SweepRun) -> Path:
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    return out / LOGS / f"{run.name}.log"
