"""Which jobs were submitted for a sweep's runs, and which of these have not ended.

Their numbers are in the sweep's folder. SLURM is asked by squeue, which every cluster has and which
knows a job at once; submitit asks sacct, which is not everywhere and learns of a job later.
"""

import io
import json
import logging
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import (
    UNSEALED,
    check_writable,
    is_sealed,
    read_regular,
    seal,
    write_atomic,
)
from planet_rssm.base.text import one_line
from planet_rssm.sweep.plan import SweepRun

FILE = "jobs.json"
FORMAT = 1
_PATIENCE = 60.0  # seconds for squeue to answer
_GONE = "Invalid job id"  # what squeue says of the only job that it is asked for, once it has ended
_LOCAL = b"submitit.local._local"  # in the command of a job of submitit's `local`
_log = logging.getLogger("planet_rssm")


@dataclass(frozen=True)
class Job:
    """A job of one run: where it is, and what it was submitted with."""

    cluster: str  # submitit's word: slurm, or local, where the number is that of a process
    number: str  # 123, or 123_4 in an array
    preset: str
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, cluster: str, number: str, run: SweepRun) -> "Job":
        """Return the job of a run as it is now."""
        run = run.absolute()
        return cls(cluster, number, run.preset, run.overrides)

    def otherwise(self, run: SweepRun) -> str:
        """Say what the job has not as the run is now; nothing where it has the same."""
        now, then = ([one.preset, *one.overrides] for one in (run.absolute(), self))
        for value in now:
            if value not in then:
                return f"was submitted without {one_line(value)}"
        for value in then:
            if value not in now:
                return f"was submitted with {one_line(value)}, which the sweep file has no more"
        return ""


def noted(out: Path) -> dict[str, Job]:
    """Return the last job of each run of a sweep's folder, by the run's name."""
    jobs = _read(out / FILE)
    if jobs is None:
        _log.warning(
            "%s: damaged or of another version; jobs that still wait are not known, their runs "
            "count by their folders. A second job of a run ends at once",
            out / FILE,
        )
    return jobs or {}


def check_note(out: Path) -> None:
    """Refuse a folder where `note` cannot write, before anything is submitted.

    Raises:
        PlanetError: it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_writable(out / FILE)
    except OSError as error:
        raise PlanetError(
            f"{out / FILE}: cannot be written ({error.strerror}); nothing was submitted"
        ) from error


def note(out: Path, jobs: Mapping[str, Job]) -> None:
    """Keep the jobs of runs, beside those of others. A disk that is full costs a warning."""
    kept = {**(_read(out / FILE) or {}), **jobs}
    record = {
        "format": FORMAT,
        "crc32": UNSEALED,
        "jobs": {name: asdict(job) for name, job in kept.items()},
    }
    try:
        write_atomic(out / FILE, [seal(json.dumps(record).encode())])
    except OSError as error:
        _log.warning(
            "%s: cannot be written (%s); the same command would submit these %d runs again",
            out / FILE,
            error.strerror,
            len(jobs),
        )


def not_ended(jobs: Iterable[Job]) -> dict[Job, str]:
    """Return `queued` or `running` for the jobs that have not ended."""
    jobs = list(jobs)
    states = {}
    if numbers := [job.number for job in jobs if job.cluster == "slurm"]:
        queue = _squeue(numbers)
        states = {job: queue[job.number] for job in jobs if job.number in queue}
    return states | {
        job: "running" for job in jobs if job.cluster == "local" and _is_process(job.number)
    }


def _squeue(numbers: Iterable[str]) -> dict[str, str]:
    """Return which jobs SLURM has not ended; none, and a warning, where it does not answer."""
    asked = ",".join(sorted({number.partition("_")[0] for number in numbers}))
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={asked}"]
    # a user's SQUEUE_STATES and the like would leave jobs out
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            env=plain,
            check=False,
        )
        if answer.returncode and _GONE not in answer.stderr:
            raise OSError(answer.returncode, answer.stderr or f"exit code {answer.returncode}")
        lines = [line.split() for line in answer.stdout.splitlines() if line.strip()]
        for words in lines:
            if len(words) != 2 or not words[1].isupper():
                raise OSError(0, f"it prints {' '.join(words)[:60]!r}")
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"silent for {_PATIENCE:.0f} s"
        _log.warning(
            "squeue does not say which jobs wait (%s); their runs count by their folders. A second "
            "job of a run ends at once",
            one_line(why or str(error)),
        )
        return {}
    return {number: "running" if state == "RUNNING" else "queued" for number, state in lines}


def _is_process(number: str) -> bool:
    try:
        return _LOCAL in Path("/proc", number, "cmdline").read_bytes()
    except OSError:
        return False


def _read(path: Path) -> dict[str, Job] | None:
    """Return the jobs that a file has, none if there is no file; None if it is damaged."""
    try:
        data = read_regular(path)
        record = json.loads(data)
        if not is_sealed(io.BytesIO(data)) or record["format"] != FORMAT:
            return None
        return {
            name: Job(job["cluster"], job["number"], job["preset"], tuple(job["overrides"]))
            for name, job in record["jobs"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
