"""Rewards of dm_control's tasks for many states at once, each equal to the task's own `get_reward`.

They read the positions, velocities, controls and sensors of a rollout; all that an episode draws at
random, such as the place of reacher's target, is read from the model of the episode under way. The
tasks' modules are imported when used: they import mujoco, for which MUJOCO_GL must be set.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from dm_control.utils.rewards import tolerance

if TYPE_CHECKING:
    from dm_control.mujoco import Physics
    from dm_control.suite.base import Task


class States(NamedTuple):
    """States after control steps, of any leading shape *B; `control` is what led to them."""

    qpos: np.ndarray  # [*B, nq]
    qvel: np.ndarray  # [*B, nv]
    control: np.ndarray  # [*B, nu], in the actuators' units
    sensors: np.ndarray  # [*B, nsensordata], sensors of position and velocity only: see Simulator


Reward = Callable[["Task", "Physics", States], np.ndarray]  # of the task and its physics: [*B]


def cartpole(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """Balance and swing-up of one pole, dense."""
    upright = (np.cos(states.qpos[..., 1]) + 1) / 2
    centred = (1 + tolerance(states.qpos[..., 0], margin=2)) / 2
    little_control = tolerance(
        states.control[..., 0], margin=1, value_at_margin=0, sigmoid="quadratic"
    )
    little_speed = tolerance(states.qvel[..., 1], margin=5)
    return upright * (4 + little_control) / 5 * (1 + little_speed) / 2 * centred


def reacher(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """Both sizes of the target; both links lie along x, in a plane."""
    model = physics.named.model
    shoulder, elbow = states.qpos[..., 0], states.qpos.sum(-1)
    upper, lower = model.body_pos["hand", "x"], model.body_pos["finger", "x"]
    x = upper * np.cos(shoulder) + lower * np.cos(elbow) - model.geom_pos["target", "x"]
    y = upper * np.sin(shoulder) + lower * np.sin(elbow) - model.geom_pos["target", "y"]
    return tolerance(np.hypot(x, y), (0, model.geom_size[["target", "finger"], 0].sum()))


def cheetah_run(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """Horizontal speed of the centre of mass."""
    from dm_control.suite import cheetah

    fast = cheetah._RUN_SPEED
    return tolerance(
        _speed(physics, states), (fast, np.inf), margin=fast, value_at_margin=0, sigmoid="linear"
    )


def finger_spin(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """Speed of the hinge."""
    from dm_control.suite import finger

    [hinge] = physics.model.joint("hinge").dofadr
    return (states.qvel[..., hinge] <= -finger._SPIN_VELOCITY).astype(float)


def ball_in_cup(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """The ball inside the cup's target, in x and in z; joints are cup x, z, then ball x, z."""
    model = physics.named.model
    target = (
        states.qpos[..., :2]
        + model.body_pos["cup", ["x", "z"]]
        + model.site_pos["target", ["x", "z"]]
    )
    ball = states.qpos[..., 2:] + model.body_pos["ball", ["x", "z"]]
    room = model.site_size["target", [0, 2]] - model.geom_size["ball", 0]
    return (np.abs(target - ball) < room).all(-1).astype(float)


def planar_walker(task: "Task", physics: "Physics", states: States) -> np.ndarray:
    """Stand, walk and run; the torso's joints are z, x and its angle."""
    from dm_control.suite import walker

    tall = walker._STAND_HEIGHT
    wanted = task._move_speed
    height = states.qpos[..., 0] + physics.named.model.body_pos["torso", "z"]
    standing = tolerance(height, (tall, np.inf), margin=tall / 2)
    stand = (3 * standing + (1 + np.cos(states.qpos[..., 2])) / 2) / 4
    if wanted == 0:
        return stand
    speed = _speed(physics, states)
    move = tolerance(
        speed, (wanted, np.inf), margin=wanted / 2, value_at_margin=0.5, sigmoid="linear"
    )
    return stand * (5 * move + 1) / 6


def _speed(physics: "Physics", states: States) -> np.ndarray:
    [first, *_] = physics.model.sensor("torso_subtreelinvel").adr
    return states.sensors[..., first]


REWARDS: dict[tuple[str, str], Reward] = {  # by domain and task
    ("cartpole", "balance"): cartpole,
    ("cartpole", "swingup"): cartpole,
    ("reacher", "easy"): reacher,
    ("reacher", "hard"): reacher,
    ("cheetah", "run"): cheetah_run,
    ("finger", "spin"): finger_spin,
    ("ball_in_cup", "catch"): ball_in_cup,
    ("walker", "stand"): planar_walker,
    ("walker", "walk"): planar_walker,
    ("walker", "run"): planar_walker,
}
