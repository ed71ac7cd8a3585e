"""Small episodes whose every number shows where it comes from."""

import numpy as np
import pytest

from planet_rssm.data.episode import Episode
from planet_rssm.envs.spec import EnvSpec


@pytest.fixture
def spec():
    observation = {"image": ((4, 4, 3), "uint8"), "speed": ((2,), "float32")}
    return EnvSpec("dmc/test-task", observation, 2, 4, 0.04, 1000, "raycast", "mujoco 3.17.0")


@pytest.fixture
def make_episode(spec):
    """Return a function that makes an episode whose numbers carry `mark` and the frame."""

    def make(frames=6, mark=0, terminated=False, env=None):
        steps = frames - 1
        time = np.arange(frames)
        observation = {
            "image": np.broadcast_to(
                (10 * mark + time)[:, None, None, None], (frames, 4, 4, 3)
            ).astype(np.uint8),
            "speed": np.stack([time, np.full(frames, mark)], 1).astype(np.float32),
        }
        action = np.stack([0.01 * time[1:], np.full(steps, 0.1)], 1).astype(np.float32)
        reward = (100 * mark + time[1:]).astype(np.float32)
        info = {"env": env or spec.to_json(), "seed": 7 + mark, "env_steps": 4 * steps}
        return Episode.from_transitions(
            observation, action, reward, terminated, not terminated, info
        )

    return make
