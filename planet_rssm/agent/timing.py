"""How many rounds of search fit into a time budget."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from planet_rssm.types import Plan

_log = logging.getLogger("planet_rssm")


class RoundTimes(NamedTuple):
    """Milliseconds from observation to action: `ms[i]` with i + 1 rounds, never falling."""

    ms: tuple[float, ...]

    def within(self, budget_ms: float) -> int:
        """Return how many rounds fit into the budget: at least 1, with a warning if it is late."""
        if budget_ms < self.ms[0]:
            _log.warning(
                "budget_ms %g: one round takes %.1f ms here and is done all the same; lower "
                "planner.candidates",
                budget_ms,
                self.ms[0],
            )
        return max(1, sum(ms <= budget_ms for ms in self.ms))


def time_rounds(
    act: Callable[[int], Plan],
    rounds: int,
    repeats: int,
    pick: Callable[[Sequence[float]], float] = max,
) -> RoundTimes:
    """Measure `act(n)` for n from 1 to `rounds`: the slowest of `repeats`, or what `pick` returns.

    All rounds are made once before, and each number once: it is then captured.
    """

    def measure(count: int) -> float:
        begin = time.perf_counter()
        act(count).action.cpu()  # waits for the device
        return 1000 * (time.perf_counter() - begin)

    counts = range(1, rounds + 1)
    measure(counts[-1])
    picked = [pick([measure(count) for _ in range(1 + repeats)][1:]) for count in counts]
    return RoundTimes(tuple(itertools.accumulate(picked, max)))
