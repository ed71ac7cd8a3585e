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
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    waiting = list(runs)
    going: list[tuple[SweepRun, subprocess.Popen[bytes]]] = []
    failed = []
    try:
        while waiting or going:
            while waiting and len(going) < at_once:
                run = waiting.pop(0)
                going.append((run, _start(run, out, at_once)))
                say(f"{run.name}: begun")
            for run, process in list(going):
                if (code := process.poll()) is None:
                    continue
                going.remove((run, process))
                if code:
                    failed.append(run.name)
                say(f"{run.name}: {_last_line(out, run) if code else 'complete'}")
            time.sleep(_LOOK)
    finally:
        for _, process in going:
            process.send_signal(signal.SIGTERM)
        for _, process in going:
            process.wait()
    return failed


def log_of(out: Path, run: SweepRun) -> Path:
    """Return the file with what a run prints."""
    return out / LOGS / f"{run.name}.log"


def _start(run: SweepRun, out: Path, at_once: int) -> "subprocess.Popen[bytes]":
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    with log_of(out, run).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "planet_rssm", *run.words()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"OMP_NUM_THREADS": threads} | os.environ,
            start_new_session=True,  # Ctrl-C comes from here, once
        )


def _last_line(out: Path, run: SweepRun) -> str:
    lines = log_of(out, run).read_text(errors="replace").splitlines()
    return lines[-1] if lines else "ended without a word"
