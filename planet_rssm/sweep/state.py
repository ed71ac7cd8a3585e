"""What has become of a sweep's runs, by their folders alone."""

from dataclasses import dataclass

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, Run, read_metrics
from planet_rssm.sweep.plan import SweepRun
from planet_rssm.training.progress import is_complete

STATES = ("missing", "stopped", "running", "complete")


@dataclass(frozen=True)
class State:
    """Where a run stands: `state` is one of STATES, `last_return` of its last test or round."""

    name: str
    state: str
    env_steps: int
    updates: int
    last_return: float | None

    def to_json(self) -> Json:
        """Return what `planet sweep status --json` prints of it."""
        return {
            "run": self.name,
            "state": self.state,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "return": self.last_return,
        }


def state_of(run: SweepRun) -> State:
    """Return where a run stands.

    Raises:
        PlanetError: its newest checkpoint cannot be read.
    """
    if not (run.folder / CONFIG).exists():
        return State(run.name, "missing", 0, 0, None)
    newest = location.numbered(run.folder)[-1:]
    progress = checkpoints.progress_of(newest[0]) if newest else {}
    state = "complete" if newest and is_complete(run.settings, progress) else "stopped"
    if state == "stopped" and _locked(run):
        state = "running"
    returns = []
    if (run.folder / "metrics.jsonl").exists():
        returns = [line["return"] for line in read_metrics(run.folder) if "return" in line]
    return State(
        run.name,
        state,
        int(progress.get("env_steps", 0)),
        int(progress.get("updates", 0)),
        returns[-1] if returns else None,
    )


def _locked(run: SweepRun) -> bool:
    try:
        with Run(run.folder, run.settings).lock():
            return False
    except PlanetError:
        return True
