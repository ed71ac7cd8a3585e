import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import compiled
import forks
import hypothesis
import parsed
import pytest

import planet_rssm

# No test renders with OpenGL in the test process itself: one that does starts a child, which
# chooses its own backend. Unset, dm_control looks for a display and, on a machine without one,
# fails at the first frame.
os.environ.setdefault("MUJOCO_GL", "disable")

# What tests name as code of their own is not remembered among the user's.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="planet-state-")

subprocess.Popen = forks.Popen  # workers and the command: real processes, without Python's start
os.fsync = forks.fsync
parsed.keep()
DRAWS = 200

# The same cases everywhere and each time, and none that fails because the machine was busy.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    if "dm_control" in sys.modules:  # else the tests that were asked for do without
        compiled.keep()


@pytest.fixture(scope="session", autouse=True)
def fewer_draws():
    """Intervals are of a tenth of the draws: those of tiny runs need no more."""
    with pytest.MonkeyPatch.context() as patch:
        if statistics := sys.modules.get("planet_rssm.evaluation.statistics"):
            patch.setattr(statistics, "RESAMPLES", DRAWS)
        yield


@pytest.fixture(autouse=True)
def float32_unless_asked(monkeypatch):
    """`precision: auto` is float32, whatever this machine is fast in: tests compare numbers."""
    if precision := sys.modules.get(
        "planet_rssm.precision"
    ):  # not for the tests that do without torch
        monkeypatch.setattr(precision, "relative_time", lambda *_: float("inf"))


def pytest_collection_modifyitems(items):
    """The slow ones first: one that begins last is waited for while the other cores idle.

    A pretended device, see cuda_path, computes nothing.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items if "PLANET_PRETENDED_CUDA" in os.environ else ():
        mark = item.get_closest_marker("gpu")
        if mark is not None and mark.kwargs.get("numbers"):
            item.add_marker(
                pytest.mark.skip(reason="looks at numbers, which a pretended device has none of")
            )


@pytest.fixture
def one_thread_and_seed():
    """Tiny tensors are slower on two threads than on one; the global generator is seeded."""
    import torch  # not for the tests that do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)


@pytest.fixture
def started_by_python():
    """What a user starts is tested: no process of this test is forked."""
    with forks.started_by_python():
        yield


@pytest.fixture
def real_fsync(monkeypatch):
    """What is written waits for the disk, as it does for a user."""
    monkeypatch.setattr(os, "fsync", forks.real_fsync)


class PoolAtHand(contextlib.AbstractContextManager):
    """EnvPool(settings, count) of a task of dm_control, its environments in this process."""

    lost = 0

    def __init__(self, settings, count):
        from planet_rssm.simulator.local import LocalPool  # not for the tests that do without

        self.count, self._rows = count, [LocalPool(settings) for _ in range(count)]
        self.spec = self._rows[0].spec

    def reset(self, seeds):
        return {row: self._rows[row].reset({0: seed})[0] for row, seed in seeds.items()}

    def step(self, actions):
        return {row: self._rows[row].step({0: action})[0] for row, action in actions.items()}

    def render(self, row, size):
        return self._rows[row].render(0, size)

    def __exit__(self, *_):
        """Nothing is to be closed."""


def users_of_pools(*rooms):
    """Yield the modules of these rooms that import EnvPool."""
    package = Path(planet_rssm.__file__).parent
    for path in sorted(path for room in rooms for path in (package / room).glob("*.py")):
        if re.search(r"^from planet_rssm\.envs\.pool import .*\bEnvPool\b", path.read_text(), re.M):
            yield f"planet_rssm.{path.parent.name}.{path.stem}"


@pytest.fixture(scope="module")
def at_hand():
    """Whatever acts and measures plays in this process: starting workers takes most of a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in users_of_pools("diagnosis", "evaluation", "training"):
            patch.setattr(f"{name}.EnvPool", PoolAtHand)
        yield
