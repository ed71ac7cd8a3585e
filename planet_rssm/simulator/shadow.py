"""Episodes played twice: by workers, which draw them, and here, where their physics is needed."""

from collections.abc import Mapping

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs.pool import Pool, Step
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.simulator.local import LocalPool
from planet_rssm.simulator.physics import Simulator

TOLERANCE = 1e-6  # of a reward: the two are equal where all is well


class ShadowedPool:
    """A pool of dm_control's episodes, and for each row the same episode in this process.

    Reset seeds and actions decide an episode, so only they are passed: whatever the workers draw
    with, this process needs no GL, which it must not have beside torch. `simulators` follow the
    rows, see `Simulator`.
    """

    def __init__(self, pool: Pool, settings: EnvSettings, threads: int) -> None:
        """Take a pool, the resolved settings that it was made of, and threads a simulator."""
        self._pool = pool
        self._rows = [LocalPool(drawing_nothing(settings)) for _ in range(pool.count)]
        self.spec: EnvSpec = pool.spec
        self.simulators = [Simulator(row.env, threads) for row in self._rows]
        self.running: set[int] = set()  # rows whose episode goes on

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._pool.count

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        """Start an episode in each row given, from its seed; return the first observations."""
        for row, seed in seeds.items():
            self._rows[row].reset({0: seed})
            self.running.add(row)
        return self._pool.reset(seeds)

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """Apply one action, float32 [A] in [-1, 1], in each row given.

        Raises:
            PlanetError: the simulation broke down, or the two episodes are not the same.
        """
        steps = self._pool.step(actions)
        for row, step in steps.items():
            if step.lost:  # begun again from its seed
                continue
            here = self._rows[row].step({0: actions[row]})[0]
            if abs(here.reward - step.reward) > TOLERANCE:
                raise PlanetError(
                    f"{self.spec.id}: the same seed and actions gave a reward of {step.reward:g} "
                    f"in a worker and of {here.reward:g} here; only a task that these decide can "
                    "be simulated beside its episodes"
                )
            if step.terminated or step.truncated:
                self.running.discard(row)
        return steps

    def render(self, row: int, size: int) -> np.ndarray:
        """Return the present frame of a row, uint8 [size, size, 3]."""
        return self._pool.render(row, size)


def drawing_nothing(settings: EnvSettings) -> EnvSettings:
    """Return the same environment, drawing nothing."""
    return settings.model_copy(update={"observe": "vectors", "renderer": "none"})
