"""Published returns, each with the protocol that it was measured by: never shown without it."""

import functools
import json
from pathlib import Path
from typing import Any

from planet_rssm.config import nearest
from planet_rssm.errors import PlanetError

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
        raise PlanetError(f"--normalise {method}: has no published score of {task}; normalise by another, or by max")
    return max(found, key=lambda entry: (entry["obs"] == "pixels", entry["steps"]))["score"]
