"""What has become of a sweep's runs, by their folders and by the jobs that were submitted."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import exclusive
from planet_rssm.base.json_types import Json
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, LOCK, as_resolved, decided_otherwise, read_metrics
from planet_rssm.sweep.plan import Sweep, SweepRun
from planet_rssm.sweep.submitted import Job, not_ended, noted
from planet_rssm.training.progress import NEEDED, is_complete

STATES = ("missing", "stopped", "queued", "running", "complete", "other")
_IDLE = ("missing", "stopped")  # unless a job says more


@dataclass(frozen=True)
class State:
    """Where a run stands: `state` is one of STATES, `last_return` of its last test or round.

    `other` is a run that was made with other settings than the sweep file has now, or will be by a
    job in the queue; `why` says it.
    """

    name: str
    state: str
    env_steps: int
    updates: int
    last_return: float | None
    why: str = ""

    def to_json(self) -> Json:
        """Return what `planet sweep status --json` prints of it."""
        return {
            "run": self.name,
            "state": self.state,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "return": self.last_return,
            "why": self.why,
        }


def states_of(sweep: Sweep) -> list[State]:
    """Return where the runs of a sweep stand, those among them that wait in a queue.

    Raises:
        PlanetError: the metrics of one cannot be read.
    """
    states = {run.name: state_of(run) for run in sweep.runs}
    jobs = {}
    if any(state.state in _IDLE for state in states.values()):
        jobs = noted(sweep.out)
    asked = [run for run in sweep.runs if run.name in jobs and states[run.name].state in _IDLE]
    going = not_ended(jobs[run.name] for run in asked)
    for run in asked:
        states[run.name] = _with_job(run, jobs[run.name], going)
    return list(states.values())


def _with_job(run: SweepRun, job: Job, going: Mapping[Job, str]) -> State:
    state = state_of(run)  # once more: the job may have ended since, and is then asked too late
    if state.state not in _IDLE or job not in going:
        return state
    if why := job.otherwise(run):
        why = f"job {job.number}, which has not ended, {why}; cancel the job"
        return replace(state, state="other", why=why)
    return replace(state, state=going[job])


def state_of(run: SweepRun) -> State:
    """Return where a run stands, by its folder alone.

    Raises:
        PlanetError: its metrics cannot be read.
    """
    if not (run.folder / CONFIG).exists():
        return State(run.name, "missing", 0, 0, None)
    progress = _progress(run)
    state = "complete" if progress and is_complete(run.settings, progress) else "stopped"
    if state == "stopped" and _locked(run):
        state = "running"
    why = _made_otherwise(run) if progress else ""
    returns = []
    if (run.folder / "metrics.jsonl").exists():
        returns = [line["return"] for line in read_metrics(run.folder) if "return" in line]
    return State(
        run.name,
        "other" if why else state,
        int(progress.get("env_steps", 0)),
        int(progress.get("updates", 0)),
        returns[-1] if returns else None,
        why,
    )


def _progress(run: SweepRun) -> Json:
    """Return what the newest checkpoint counts that can be read, from which a run goes on."""
    for path in reversed(location.numbered(run.folder)):
        with contextlib.suppress(PlanetError):
            progress = checkpoints.progress_of(path)
            if progress.keys() >= set(NEEDED):
                return progress
    return {}


def _made_otherwise(run: SweepRun) -> str:
    """Say which setting of a run is not what the sweep file has; nothing where it can go on."""
    try:
        saved = config.load(run.folder / CONFIG)
    except PlanetError as error:
        return str(error)
    wanted = as_resolved(run.settings, saved)
    if (key := decided_otherwise(saved, wanted)) is None:
        return ""
    before, after = config.flatten(saved)[key], config.flatten(wanted)[key]
    return f"was made with {key} = {before}, the sweep file has {after}"


def _locked(run: SweepRun) -> bool:
    try:
        with exclusive(run.folder / LOCK):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
