"""The simulator as the model: plan in dm_control itself, with nothing learned.

It shows what a planner alone can do: the best that a learned model could hope for (PlaNet's row
"CEM + true simulator", arXiv 1811.04551, table 1).

    >>> import torch
    >>> from planet_rssm import ICEM, Objective, SimulatorDynamics
    >>> from planet_rssm.config import EnvSettings, PlannerSettings
    >>> from planet_rssm.envs.dmc import DMControlEnv
    >>> from planet_rssm.simulator.physics import Simulator
    >>> env = DMControlEnv(EnvSettings(id="dmc/reacher-easy", observe="vectors", renderer="none"))
    >>> _ = env.reset(seed=0)
    >>> dynamics = SimulatorDynamics([Simulator(env, threads=2)])  # one a row, follows its env
    >>> settings = PlannerSettings(name="icem", candidates=40, iterations=3, elites=10)
    >>> planner = ICEM(settings, action_size=2)
    >>> carry = planner.initial(batch=1)
    >>> rng = torch.Generator().manual_seed(0)
    >>> for t in range(15):
    ...     state = dynamics.state()  # where the environment is now
    ...     first = torch.tensor([t == 0])
    ...     plan, carry = planner.plan(dynamics, Objective(), state, carry, first, rng)
    ...     reward = env.step(plan.action[0].numpy())[1]
    >>> reward  # of four control steps: the target is reached
    4.0
"""

from collections.abc import Sequence
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.planners import Objective
from planet_rssm.simulator.physics import Simulator
from planet_rssm.types import C, Dynamics, Planner, Rollout


class SimulatorDynamics(Dynamics[Tensor]):
    """dm_control's physics as a dynamics, on the CPU.

    Row b of a state follows the episode of `simulators[b]`. A state is float64 [B, S], as
    `Simulator` has it; searches in it run in float64.
    """

    differentiable = False

    def __init__(self, simulators: Sequence[Simulator]) -> None:
        """Take one simulator a row, all of one task."""
        self.simulators = tuple(simulators)

    def state(self) -> Tensor:
        """Return the states that the environments are in now, [B, S]."""
        return torch.from_numpy(np.stack([simulator.state() for simulator in self.simulators]))

    def noise_shape(self, batch: int, candidates: int, horizon: int) -> None:
        """Return None: nothing is drawn."""
        return None

    def rollout(self, state: Tensor, actions: Tensor, noise: Tensor | None = None) -> Rollout:
        """Follow `actions` [B, N, H, A] from `state` [B, S].

        Raises:
            PlanetError: B is not the number of simulators.
        """
        if len(state) != len(self.simulators):
            raise PlanetError(
                f"state of {len(state)} rows: must be {len(self.simulators)}, one a simulator"
            )
        rows = zip(self.simulators, state.cpu().numpy(), actions.cpu().numpy(), strict=True)
        parts = zip(
            *(simulator.follow(start, sequences) for simulator, start, sequences in rows),
            strict=True,
        )
        reward, discount, last = (torch.from_numpy(np.stack(part)) for part in parts)
        return Rollout(reward.to(actions), discount.to(actions), last.to(actions.device))


class SimulatorPolicy(Generic[C]):
    """A planner that searches the simulators of running episodes, as a policy for collect.collect.

    It looks at no observation: it reads the physics itself.
    """

    def __init__(
        self,
        simulators: Sequence[Simulator],
        planner: Planner[Tensor, C],
        seed: int = 0,
        *,
        discount: float = 1.0,
    ) -> None:
        """Take one simulator for each row that is played, and the `seed` of the planner's draws.

        `discount` is that of one agent step.
        """
        self._dynamics = SimulatorDynamics(simulators)
        self._planner = planner.prepare(self._dynamics, Objective(discount))
        self._carry = planner.initial(len(simulators))
        self._seed = seed
        self._decisions = 0

    def __call__(
        self, observation: dict[str, np.ndarray], executed_action: np.ndarray, is_first: np.ndarray
    ) -> np.ndarray:
        """Return actions [B, A]; see Policy."""
        rng = torch.Generator().manual_seed(
            stream_seed(self._seed, Stream.PLAN, self._decisions, 1)
        )
        self._decisions += 1
        begins = torch.from_numpy(np.array(is_first))
        plan, self._carry = self._planner.plan(self._dynamics.state(), self._carry, begins, rng)
        return plan.action.numpy()
