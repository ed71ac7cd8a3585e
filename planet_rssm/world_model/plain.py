"""The plain path: PyTorch's own layers and autograd's own gradients in place of our faster forms.

It has the numbers of the fast path up to rounding, and is there to check that.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_plain = ContextVar("plain", default=False)


@contextlib.contextmanager
def plainly(plain: bool = True) -> Iterator[None]:
    """Let what is computed inside, in this thread, take the plain path; False: as it would."""
    before = _plain.set(plain or _plain.get())
    try:
        yield
    finally:
        _plain.reset(before)


def is_plain() -> bool:
    """Return whether the plain path is asked for."""
    return _plain.get()
