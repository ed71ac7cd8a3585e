import os

import hypothesis
import pytest

# No test renders with OpenGL in the test process itself: one that does starts a child, which chooses its own backend.
# Unset, dm_control looks for a display and, on a machine without one, fails at the first frame.
os.environ.setdefault("MUJOCO_GL", "disable")

# The same cases everywhere and each time, and none that fails because the machine was busy.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture
def one_thread_and_seed():
    """Tiny tensors are slower on two threads than on one; where a test gives no generator, the global one is seeded."""
    import torch  # not for the tests that do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)
