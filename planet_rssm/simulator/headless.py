"""Prepare this process for dm_control's physics without its drawing."""

import logging
import os


def forbid_gl() -> None:
    """Set MUJOCO_GL so that mujoco loads no GL; call it before mujoco is imported.

    A process that has torch in it must not load a software GL, whatever the user's MUJOCO_GL is.
    """
    os.environ["MUJOCO_GL"] = "disable"
    # mujoco reports that dm_control's models are of an older style
    logging.getLogger("absl").setLevel(logging.ERROR)
