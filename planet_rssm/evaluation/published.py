"""Published returns, each with the protocol that it was measured by: never shown without it."""

import functools
import json
import math
from pathlib import Path
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import nearest

MAX = "max"  # a scale that is no method's: the most that a task gives
FILE = Path(__file__).with_name("published_scores.json")


@functools.cache
def entries() -> list[dict[str, Any]]:
    """Return the tables: method, obs (pixels or state), steps (env_steps), source, protocol and scores by task."""
    return json.loads(FILE.read_text(encoding="utf-8"))["entries"]


def published(task: str) -> list[dict[str, Any]]:
    """Return what was published of a task, `dmc/…`: each method's score with its observation, steps and protocol."""
    name = task.removeprefix("dmc/")
    told = ("method", "obs", "steps", "protocol", "source")
    return [
        {"task": task, **{key: entry[key] for key in told}, "score": entry["scores"][name]}
        for entry in entries()
        if task.startswith("dmc/") and name in entry["scores"]
    ]


def beside(task: str, obs: str, steps: int, method: str) -> dict[str, Any] | None:
    """Return the published score to set beside a run's: of the same kind of observation, after the nearest steps.

    Args:
        task: `dmc/…`.
        obs: pixels or state.
        steps: env_steps that the run has learned from.
        method: how the names of the methods begin that are taken where there is one, say `PlaNet`.
    """
    alike = [entry for entry in published(task) if entry["obs"] == obs]
    found = [
        entry for entry in alike if bool(entry["steps"]) == bool(steps)
    ]  # what learned nothing stands alone

    def unlike(entry: dict[str, Any]) -> tuple[bool, float]:
        return not entry["method"].startswith(method), abs(
            math.log(max(entry["steps"], 1) / max(steps, 1))
        )

    return min(found, key=unlike, default=None)


def check_method(normalise: str | None) -> None:
    """Refuse a scale that there is not.

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
    found = [entry for entry in published(task) if entry["method"] == method]
    if not found:
        raise PlanetError(
            f"--normalise {method}: has no published score of {task}; normalise by another, or by max"
        )
    return max(found, key=lambda entry: (entry["obs"] == "pixels", entry["steps"]))["score"]
