"""Standard input, output and error: kept open, so that nothing else takes their numbers."""

import os
import sys
from typing import Literal, TextIO


def hold_standard() -> None:
    """Open the null device in place of descriptors 0, 1 and 2 where they are closed.

    Daemons and cron leave them closed. A pipe or shared memory made now would get such a number,
    and the start of a child process puts the child's own standard input or output there: what the
    two were to share is then lost without an error.
    """
    opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    while opened <= 2:
        os.set_inheritable(opened, True)
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
    if sys.stdin is None:  # so Python has it where they were closed when it started
        sys.stdin = _file(0, "r")
    if sys.stdout is None:
        sys.stdout = _file(1, "w")
    if sys.stderr is None:
        sys.stderr = _file(2, "w")


def _file(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    return open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)
