"""What every benchmark has: cases taken in turns, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from planet_rssm.base.device import describe, resolve_device, synchronize, take_rates
from planet_rssm.base.json_types import Json
from planet_rssm.precision import summary, timed_precisions

REFERENCE = "reference"  # the name of what ours is compared with
PATIENCE = 60.0  # seconds for all repeats of a comparison

Say = Callable[[str], object]  # called with what is measured next

C = TypeVar("C")  # a dataclass of one benchmark's


@dataclass(frozen=True)
class Asked:
    """What a benchmark of presets is asked for, by a command or a program."""

    presets: Sequence[str]  # names or settings files
    overrides: Sequence[str] = ()  # `key=value` texts for each of them
    precisions: Sequence[str] = ()  # a case each; none: float32, and bfloat16 unless it is slow
    repeats: int = 3  # of each case after the first; a slow machine takes fewer
    device: str = "auto"
    say: Say = lambda text: None  # called with what is measured next


class Machine:
    """The device of a benchmark, and how fast its matrix products are in each precision."""

    def __init__(self, device: str, precisions: Sequence[str], say: Say) -> None:
        """Find the device, choose the precisions if none is given, and time products in them.

        Raises:
            PlanetError: no such device.
        """
        self.device = resolve_device(device)
        self.precisions = tuple(dict.fromkeys(precisions)) or timed_precisions(self.device)
        self.rates = dict.fromkeys(("float32", "bfloat16", *self.precisions), 0.0)
        say("matrix products")
        self.look()

    def look(self) -> None:
        """Time the products once more, the fastest counts: beside others one look is too few."""
        take_rates(self.rates, self.device)

    def result(self, cases: list[C]) -> "BenchResult[C]":
        """Return the cases with what is known of the machine."""
        return BenchResult(describe(self.device, self.rates) | summary(self.device), cases)


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
