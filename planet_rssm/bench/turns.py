"""What every benchmark has: cases taken in turns, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from planet_rssm.base.device import synchronize
from planet_rssm.base.json_types import Json

REFERENCE = "reference"  # the name of what ours is compared with
PATIENCE = 60.0  # seconds for all repeats of a comparison

Say = Callable[[str], object]  # called with what is measured next

C = TypeVar("C")  # a dataclass of one benchmark's


@dataclass(frozen=True)
class BenchResult(Generic[C]):
    """The cases that a benchmark measured, and the machine."""

    machine: Json
    cases: list[C]

    def to_json(self) -> Json:
        """Return the object that `planet bench … --json` prints."""
        return {"machine": self.machine, "cases": [dict(vars(case)) for case in self.cases]}


def titled(say: Say, title: str) -> Say:
    """Return a `say` that puts a title before its text."""
    return lambda text: say(f"{title}: {text}")


def in_turns(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    say: Say = lambda text: None,
) -> dict[str, float]:
    """Return the median seconds of each case, called `repeats` times in turns.

    On a slow machine they are called fewer times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    begin = time.perf_counter()
    for turn in range(repeats):
        say(f"{turn + 1} of {repeats}")
        for name, case in cases.items():
            synchronize(device)
            started = time.perf_counter()
            case()
            synchronize(device)
            seconds[name].append(time.perf_counter() - started)
        if time.perf_counter() - begin > PATIENCE:
            break
    return {name: statistics.median(each) for name, each in seconds.items()}
