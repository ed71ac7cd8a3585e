"""The plain path: PyTorch's own layers and autograd's own gradients in place of our faster forms.

It has the numbers of the fast path up to rounding, and is there to check that.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_plain = ContextVar("plain", default=False)


is_plain = _plain.get  # whether the plain path is asked for; not Python, for every layer asks


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Let what is computed inside, in this thread, take the plain path."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)
