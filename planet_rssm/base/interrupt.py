"""Ctrl-C and SIGTERM as a question the loop asks, so that nothing is left half-done."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop: it is committed, without the round of episodes under way."""


class InterruptGuard:
    """While entered, the first signal only sets `asked`; a second one ends the process."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> Self:
        # elsewhere Python allows no handlers
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
