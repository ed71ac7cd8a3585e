"""Adapters for environments with another interface than Gymnasium's: env.id=adapters:NAME here."""

from typing import Any

import gymnasium
import numpy as np


class Crafter(gymnasium.Env[np.ndarray, int]):
    """Crafter 1.8.3 (pip install crafter), of gym 0.2x: reset takes no seed, step returns four."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode: str | None = None, area: tuple[int, int] = (64, 64)) -> None:
        import crafter

        self._crafter, self._area, self.render_mode = crafter, area, render_mode
        self._env = crafter.Env(area)
        self.observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(self._env.action_space.n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict]:
        """Start an episode in a new world, which follows from the seed."""
        super().reset(seed=seed)
        self._env = self._crafter.Env(tuple(self._area), seed=int(self.np_random.integers(1 << 31)))
        return self._env.reset(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act; the episode ends by death, or is cut off after Crafter's 10 000 steps."""
        observation, reward, done, info = self._env.step(action)
        died = info["discount"] == 0
        return observation, float(reward), bool(done and died), bool(done and not died), info

    def render(self) -> np.ndarray:
        """Return a frame."""
        return self._env.render()


def deep_sea_treasure(
    render_mode: str | None = None, weights: tuple[float, float] = (1.0, 0.1)
) -> gymnasium.Env:
    """Return mo-gymnasium's deep-sea-treasure, treasure and time weighted into one reward."""
    import mo_gymnasium

    env = mo_gymnasium.make("deep-sea-treasure-v0", render_mode=render_mode)
    return mo_gymnasium.wrappers.LinearReward(env, np.array(weights))
