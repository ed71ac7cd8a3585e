#!/bin/bash
# stable-worldmodel's World.collect keeps no row for a reset, and rolls the actions by one, so that
# each row has the action that follows its frame. The last row of an episode then has the episode's
# first action, where one would expect none or NaN. Code that takes "the action of row t" for every
# row learns from one wrong transition an episode; the frame before the first action is not kept.
#
# Output, stable-worldmodel 0.1.1, an environment that counts its steps, whose policy acts by
# 1, 2, 3, … and which ends after 4 steps:
#   frames 1 2 3 4, actions 2 3 4 1, rewards 1 2 3 4
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet stable-worldmodel==0.1.1 h5py hdf5plugin gymnasium==1.2.3 \
    opencv-python-headless imageio matplotlib scipy
cd "$folder"
"$folder/venv/bin/python" - <<'END'
import gymnasium
import h5py
import numpy as np
import stable_worldmodel


class Count(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        now = np.full(1, self.steps, np.float32)
        return now, float(action[0]), self.steps == 4, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


class Counter:
    def set_env(self, env):
        self.made = 0

    def get_action(self, info, **_):
        self.made += 1
        return np.full((1, 1), self.made, np.float32)


gymnasium.register("Count-v0", Count)
world = stable_worldmodel.World(
    "Count-v0", 1, (8, 8), 50, goal_conditioned=False, render_mode="rgb_array"
)
world.set_policy(Counter())
world.collect("count.h5", episodes=1, seed=0, format="hdf5", progress=False)
with h5py.File("count.h5") as file:
    frames, actions, rewards = (
        file[key][:].ravel().astype(int).tolist() for key in ("observation", "action", "reward")
    )
print("frames", *frames, "actions", *actions, "rewards", *rewards)
assert frames == [1, 2, 3, 4] and actions == [2, 3, 4, 1] and rewards == [1, 2, 3, 4], "changed"
END
