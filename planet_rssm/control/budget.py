"""How many rounds of search a decision makes, so that its plan comes within the budget."""

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planet_rssm.agent import RoundTimes


WINDOW, LATE = 20, 2  # so many of the last plans may not have been late
PATIENCE, LONGEST = 40, 1280  # plans before one round more is tried


class RoundBudget:
    """As many rounds as fit, first by the times measured at the start, then by the plans' own.

    A machine that is busy, or slows down as it warms up, is late with what it did in time at the
    start. Where two of the last 20 plans were late, a round is left out. It is tried again after 40
    plans; where it is late again sooner than that, after twice as many, up to 1280.
    """

    def __init__(self, times: "RoundTimes", budget_ms: float | None) -> None:
        """Begin with what fits into `budget_ms` milliseconds; None: with all rounds, always."""
        self.rounds = None if budget_ms is None else times.within(budget_ms)
        self._budget = budget_ms
        self._most = self.rounds
        self._late: deque[bool] = deque(maxlen=WINDOW)  # of the last plans with these rounds
        self._plans = 0  # with these rounds
        self._patience = PATIENCE

    def note(self, latency_ms: float) -> None:
        """Count a plan that took so many milliseconds from its frame."""
        if self._budget is None or self.rounds is None or self._most is None:
            return
        self._plans += 1
        self._late.append(latency_ms > self._budget)
        if sum(self._late) >= LATE and self.rounds > 1:
            if self._plans < self._patience:
                self._patience = min(2 * self._patience, LONGEST)
            self._use(self.rounds - 1)
        elif self.rounds < self._most and self._plans >= self._patience and not any(self._late):
            self._use(self.rounds + 1)

    def _use(self, rounds: int) -> None:
        self.rounds = rounds
        self._late.clear()
        self._plans = 0
