"""The batches of one update after another."""

import concurrent.futures
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """Makes batches by their number, with `ahead` the next one in a thread beside an update.

    They are the same batches then: each follows from its number, and nothing that they are drawn
    from changes between two of them.
    """

    def __init__(self, draw: Callable[[int], T], *, ahead: bool) -> None:
        """Take `draw(number)`, which makes a batch."""
        self._draw = draw
        self._thread = concurrent.futures.ThreadPoolExecutor(1) if ahead else None
        self._begun: tuple[int, concurrent.futures.Future[T]] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def take(self, number: int) -> T:
        """Return batch `number`; an error in making it, in the thread too, is raised here."""
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == number:
            return begun[1].result()
        return self._draw(number)

    def begin(self, number: int) -> None:
        """Have batch `number` made meanwhile, if there is a thread."""
        if self._thread is not None:
            self._begun = number, self._thread.submit(self._draw, number)

    def wait(self) -> None:
        """Wait for what was begun: after this nothing reads what the batches are drawn from."""
        if self._begun is not None:
            concurrent.futures.wait([self._begun[1]])
