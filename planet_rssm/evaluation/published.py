"""Published returns, each with the protocol that it was measured by: never shown without it."""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import is_dm_control, nearest

MAX = "max"  # a scale that is no method's: the most that a task gives
PLANET_TASKS = tuple(
    f"dmc/{name}"
    for name in (
        "cartpole-swingup",
        "reacher-easy",
        "cheetah-run",
        "finger-spin",
        "ball_in_cup-catch",
        "walker-walk",
    )
)
METHODS = ("PlaNet", "Dreamer")  # how the names of the methods begin that stand beside ours
FILE = Path(__file__).with_name("published_scores.json")


@dataclass(frozen=True)
class PublishedScore:
    """What one method scores on one task."""

    task: str  # dmc/…
    method: str
    obs: str  # pixels or state
    steps: int  # env_steps
    protocol: str
    source: str
    score: float

    def to_json(self) -> dict[str, str | float]:
        """Return the object that `planet eval --json` prints."""
        return dict(vars(self))


@functools.cache
def entries() -> list[Json]:
    """Return the tables of the file.

    Each has method, obs (pixels or state), steps (env_steps), source, protocol and scores by task.
    """
    return json.loads(FILE.read_text(encoding="utf-8"))["entries"]


def published(task: str) -> list[PublishedScore]:
    """Return what was published of a task, `dmc/…`, one score a method."""
    name = task.removeprefix("dmc/")
    return [
        PublishedScore(
            task=task,
            method=entry["method"],
            obs=entry["obs"],
            steps=entry["steps"],
            protocol=entry["protocol"],
            source=entry["source"],
            score=entry["scores"][name],
        )
        for entry in entries()
        if is_dm_control(task) and name in entry["scores"]
    ]


def beside(task: str, obs: str, steps: int, method: str) -> PublishedScore | None:
    """Return the published score to show beside a run's.

    It is of the same kind of observation, after the nearest steps.

    Args:
        task: `dmc/…`.
        obs: pixels or state.
        steps: env_steps that the run has learned from.
        method: how the names of the preferred methods begin, say `PlaNet`.
    """
    alike = _alike(task, obs, steps)
    return min(
        alike,
        key=lambda entry: (not entry.method.startswith(method), _distance(entry, steps)),
        default=None,
    )


def published_by(task: str, obs: str, steps: int, method: str) -> PublishedScore | None:
    """Return what `beside` does, of methods whose names begin so alone; None if there is none."""
    alike = [entry for entry in _alike(task, obs, steps) if entry.method.startswith(method)]
    return min(alike, key=lambda entry: _distance(entry, steps), default=None)


def _alike(task: str, obs: str, steps: int) -> list[PublishedScore]:
    # a method that learned nothing is only compared with another one that did not
    return [
        entry for entry in published(task) if entry.obs == obs and bool(entry.steps) == bool(steps)
    ]


def _distance(entry: PublishedScore, steps: int) -> float:
    return abs(math.log(max(entry.steps, 1) / max(steps, 1)))


def check_method(normalise: str | None) -> None:
    """Refuse an unknown scale.

    Raises:
        PlanetError: it is neither `max` nor a method.
    """
    known = [MAX, *dict.fromkeys(entry["method"] for entry in entries())]
    if normalise is not None and normalise not in known:
        raise PlanetError(f"--normalise {normalise}: no such scale{nearest(normalise, known)}")


def score_of(method: str, task: str) -> float:
    """Return the score of a method by its name: from pixels if there is one, after the most steps.

    Raises:
        PlanetError: none of this task was published.
    """
    scores = [entry for entry in published(task) if entry.method == method]
    if not scores:
        raise PlanetError(
            f"--normalise {method}: has no published score of {task}; "
            "normalise by another, or by max"
        )
    return max(scores, key=lambda entry: (entry.obs == "pixels", entry.steps)).score
