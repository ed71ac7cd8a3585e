"""Time as a control loop needs it, real or simulated: a clock, and jobs that take time."""

import concurrent.futures
import math
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """The time, in seconds, and a place where a loop's jobs run beside it, one at a time."""

    def now(self) -> float:
        """Return the time."""

    def sleep_until(self, when: float) -> None:
        """Return at that time; at once if it is over."""

    def start(self, job: Callable[[], Any], *, decides: bool) -> Any:  # noqa: ANN401
        """Begin a job and return its handle; `decides`: it is a decision, not a filter step."""

    def result(self, handle: Any, until: float) -> tuple[Any, float] | None:  # noqa: ANN401
        """Return what the job returned and when it ended; None if it has not by `until`.

        Raises as the job did.
        """

    def close(self) -> None:
        """Wait for the job under way."""


class RealTime:
    """The machine's monotonic clock; jobs run in one thread."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "planet-control")

    def now(self) -> float:
        """Return the time since some beginning."""
        return time.perf_counter()

    def sleep_until(self, when: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, when - self.now()))

    def start(
        self, job: Callable[[], T], *, decides: bool
    ) -> concurrent.futures.Future[tuple[T, float]]:
        """Begin a job in the thread."""
        return self._thread.submit(lambda: (job(), self.now()))

    def result(
        self, handle: concurrent.futures.Future[tuple[T, float]], until: float
    ) -> tuple[T, float] | None:
        """Wait for the job; see Clock."""
        timeout = None if until == math.inf else max(0.0, until - self.now())
        concurrent.futures.wait([handle], timeout)
        return handle.result() if handle.done() else None

    def close(self) -> None:
        """Wait for the job under way and end the thread."""
        self._thread.shutdown()


class SimulatedTime:
    """A clock that moves only while the loop sleeps or waits.

    So the same plans come at the same ticks on every machine. A decision takes `decision_s` seconds
    of it, which may be changed at any time; all else takes none.
    """

    def __init__(self, decision_s: float = 0.0) -> None:
        self.decision_s = decision_s
        self._now = 0.0

    def now(self) -> float:
        """Return the time since this was made."""
        return self._now

    def sleep_until(self, when: float) -> None:
        """Move the clock."""
        self._now = max(self._now, when)

    def start(self, job: Callable[[], T], *, decides: bool) -> tuple[T, float]:
        """Do the job; its result is kept until it would have ended."""
        return job(), self._now + (self.decision_s if decides else 0.0)

    def result(self, handle: tuple[T, float], until: float) -> tuple[T, float] | None:
        """Move the clock to the job's end, or to `until` if that is earlier."""
        self.sleep_until(min(handle[1], until))
        return handle if handle[1] <= self._now else None

    def close(self) -> None:
        """Nothing is under way."""
