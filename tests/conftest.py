import os

# No test renders with OpenGL in the test process itself: one that does starts a child, which chooses its own backend.
# Unset, dm_control looks for a display and, on a machine without one, fails at the first frame.
os.environ.setdefault("MUJOCO_GL", "disable")
