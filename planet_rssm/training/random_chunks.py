"""Chunks of noise, for measuring updates without a replay."""

import numpy as np

from planet_rssm.data.replay import Chunks
from planet_rssm.envs.spec import EnvSpec


def random_chunks(spec: EnvSpec, batch: int, length: int) -> Chunks:
    """Return noise as chunks [batch, length] of the environment's shapes and types."""
    rng = np.random.default_rng(0)
    shape = batch, length
    observation = {
        key: rng.integers(0, 256, (*shape, *size), np.uint8)
        if dtype == "uint8"
        else rng.standard_normal((*shape, *size), np.float32)
        for key, (size, dtype) in spec.observation.items()
    }
    is_first = np.zeros(shape, bool)
    is_first[:, 0] = True
    nothing = np.zeros(shape, bool)
    action = rng.uniform(-1, 1, (*shape, spec.action_size)).astype(np.float32)
    reward = rng.uniform(0, 1, shape).astype(np.float32)
    return Chunks(observation, action, reward, is_first, nothing, ~nothing)
