"""The CUDA path on a device that is not there; ./scripts/test-cuda-path builds it and runs these tests.

Kernels are counted and not run: what is tested is where tensors are, what is waited for, what is
captured how often. Numbers on the device mean nothing.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = os.environ.get("PLANET_PRETENDED_CUDA")
KINDS = (
    "launch", "graph launch", "replayed node", "wait", "device wait", "transfer", "capture", "failed capture",
    "illegal", "outside", "host memory in capture",
)  # fmt: skip
WRONG = ("failed capture", "illegal", "outside", "host memory in capture")  # what never may be


def pytest_collection_modifyitems(items):
    for item in items:
        inside = Path(__file__).parent in item.path.parents
        if inside and item.get_closest_marker("gpu") and LIBRARY is None:
            item.add_marker(
                pytest.mark.skip(reason="runs on a pretended device, see ./scripts/test-cuda-path")
            )


class Pretended:
    """What the device that is not there counts."""

    def __init__(self, library: str) -> None:
        self.library = ctypes.CDLL(library)
        self.library.fake_count.restype = self.library.fake_live.restype = ctypes.c_long

    def count(self, kind: str) -> int:
        return self.library.fake_count(kind.encode())

    @contextlib.contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """Count what happens inside, by kind."""
        found: dict[str, int] = {}
        before = {kind: self.count(kind) for kind in KINDS}
        yield found
        found.update({kind: self.count(kind) - before[kind] for kind in KINDS})

    @contextlib.contextmanager
    def limited(self, spare: int) -> Iterator[None]:
        """Let the device have no more than `spare` bytes beside those that are taken now."""
        self.library.fake_limit(ctypes.c_long(self.library.fake_live() + spare))
        try:
            yield
        finally:
            self.library.fake_limit(ctypes.c_long(140 << 30))


@pytest.fixture(scope="session")
def pretended():
    import torch

    torch.backends.cudnn.enabled = False  # the device has none: convolutions are PyTorch's own
    return Pretended(LIBRARY)


@pytest.fixture
def device(pretended):
    """The device; a test in which a capture failed or took in what is not its own fails, whatever came of it."""
    with pretended.counted() as found:
        yield pretended
    assert not {kind: found[kind] for kind in WRONG if found[kind]}
