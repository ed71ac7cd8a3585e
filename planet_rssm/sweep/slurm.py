"""A sweep's runs as SLURM's jobs, submitted by submitit (extra `slurm`).

A job is one process, `planet train`. When SLURM takes the job away, or its time is over, the run
commits what it has learned, is queued again by submitit, and goes on by --resume.
"""

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.sweep.plan import Sweep, SweepRun
from planet_rssm.sweep.submitted import Job, check_note, note

FOLDER = "submitit"
_LOOK = 0.2  # seconds between two looks whether the run has ended
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # by which SLURM says so, to every process of the job


class Training:
    """What submitit calls on the machine of a job."""

    def __init__(self, run: SweepRun) -> None:
        self.run = run
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Train to the end, and return the exit code.

        Raises:
            RuntimeError: the run ended with another than 0, which submitit reports.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "planet_rssm", *self.run.words()],
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore,
        )
        while (code := self._process.poll()) is None:  # a signal comes in between
            time.sleep(_LOOK)
        if code:
            raise RuntimeError(f"{self.run.name}: ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:  # noqa: ANN401
        """Have the run commit, and return what is to be queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            while self._process.poll() is None:
                time.sleep(_LOOK)
        return DelayedSubmission(Training(self.run))


def submit(sweep: Sweep, runs: Sequence[SweepRun]) -> list[str]:
    """Submit the runs as one array of jobs and return the numbers of these; it does not wait.

    The numbers are noted in the sweep's folder, for `states_of`.

    Raises:
        PlanetError: submitit is not installed, or refuses what the sweep file gives it; or the
            folder cannot be written.
    """
    if importlib.util.find_spec("submitit") is None:
        raise PlanetError("--on slurm: needs submitit; pip install 'planet-rssm[slurm]'")
    import submitit

    given = dict(sweep.slurm)
    cluster = given.pop("cluster", "slurm")
    folder = sweep.out / FOLDER
    check_note(sweep.out)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{"name": sweep.out.name, **given})
        with executor.batch():
            jobs = [executor.submit(Training(run.absolute())) for run in runs]
    except (ValueError, TypeError, NameError, RuntimeError, OSError, AssertionError) as error:
        line = " ".join(str(error).split())
        raise PlanetError(f"--on slurm: submitit refuses ({line}); fix `slurm` there") from error
    numbers = [str(job.job_id) for job in jobs]
    note(
        sweep.out,
        {
            run.name: Job.of(executor.cluster, number, run)
            for run, number in zip(runs, numbers, strict=True)
        },
    )
    return numbers


def _ignore() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
