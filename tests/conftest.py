import os

import hypothesis

# No test renders with OpenGL in the test process itself: one that does starts a child, which chooses its own backend.
# Unset, dm_control looks for a display and, on a machine without one, fails at the first frame.
os.environ.setdefault("MUJOCO_GL", "disable")

# The same cases everywhere and each time, and none that fails because the machine was busy.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("fixed")
