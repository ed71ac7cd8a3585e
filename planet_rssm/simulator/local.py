"""An environment of dm_control in this process, played as a pool of one."""

from collections.abc import Mapping

import numpy as np
from dm_control.rl.control import PhysicsError

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.pool import Step


class LocalPool:
    """One row, as `EnvPool` has many, whose physics is in this process; there is no worker."""

    count = 1

    def __init__(self, settings: EnvSettings) -> None:
        """Make the environment of resolved settings; `renderer` must be one that needs no GL."""
        self.env = DMControlEnv(settings)
        self.spec = self.env.env_spec

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        """Start an episode in each row given, from its seed; return the first observations."""
        return {row: self.env.reset(seed=seed)[0] for row, seed in seeds.items()}

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """Apply one action, float32 [A] in [-1, 1], in each row given.

        Raises:
            PlanetError: the simulation broke down.
        """
        steps = {}
        for row, action in actions.items():
            try:
                observation, reward, terminated, truncated, info = self.env.step(action)
            except PhysicsError as error:
                raise PlanetError(
                    f"{self.spec.id}: the simulation broke down ({error}); "
                    "a lower planner.init_std acts less roughly"
                ) from None
            steps[row] = Step(
                observation, reward, terminated, truncated, info["env_steps"], lost=False
            )
        return steps

    def render(self, row: int, size: int) -> np.ndarray:
        """Return the present frame at another size for videos, uint8 [size, size, 3]."""
        return self.env.render_frame(size)
