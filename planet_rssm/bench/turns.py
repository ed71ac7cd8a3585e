"""What every benchmark times by: cases taken in turns, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from planet_rssm.base.device import synchronize

REFERENCE = "reference"  # the name of what ours is compared with
PATIENCE = 60.0  # seconds for all repeats of a comparison


Say = Callable[[str], object]  # is told what is measured next


def titled(say: Say, title: str) -> Say:
    """Return what says its text after a title."""
    return lambda text: say(f"{title}: {text}")


def in_turns(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    say: Say = lambda text: None,
) -> dict[str, float]:
    """Return the median seconds of each case, called `repeats` times in turns; fewer times on a slow machine."""
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
