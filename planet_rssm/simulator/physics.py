"""The physics of a running dm_control episode, followed under many sequences of actions."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from dm_control.rl.control import PhysicsError

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.registry import parse
from planet_rssm.simulator.rewards import REWARDS, Reward, States

if TYPE_CHECKING:
    from dm_control.mujoco import Physics


class Followed(NamedTuple):
    """What came of N sequences of H actions: all float64."""

    # [N, H], summed over the action repeat; NaN from where the simulation broke down
    reward: np.ndarray
    discount: np.ndarray  # [N, H], 0 from where the task ended the episode, else 1
    last: np.ndarray  # [N, S], states


class Simulator:
    """Follows the episode that `env` is in, without touching it.

    The model is the same, its random parts included. A state is one row of float64, mujoco's
    mjSTATE_FULLPHYSICS (time, positions, velocities, activations, …) and after it the solver's warm
    start [nv]: with both, following actions gives what stepping `env` gives, bit for bit.
    `mujoco.rollout` does the stepping, in `threads` threads, where the task's reward is known for
    many states at once (`rewards.REWARDS`). Elsewhere the task itself is stepped, one sequence
    after another: ten to a hundred times as slow. Time limits are not followed: beyond its last
    step an episode goes on.
    """

    def __init__(self, env: DMControlEnv, threads: int) -> None:
        """Take an environment, whose episode is followed, whichever it is in at the time.

        Raises:
            PlanetError: no threads.
        """
        if threads < 1:
            raise PlanetError(
                f"threads {threads}: must be at least 1; a core each is as fast as it gets"
            )
        import mujoco  # not before the environment has imported it, which sets MUJOCO_GL
        from mujoco import rollout

        self._env = env
        self._threads = threads
        self._inner = env.inner
        self._physics = env.inner.physics
        self._model = self._physics.model.ptr
        # physics steps a control step
        self._substeps = round(env.inner.control_timestep() / self._physics.timestep())
        self._repeat = env.env_spec.action_repeat
        self._begin_step = mujoco.mj_step1
        self._reward = REWARDS.get(parse(env.env_spec.id))
        self.batched = self._reward is not None
        self._full = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._warm = int(mujoco.mjtState.mjSTATE_WARMSTART)
        self._physics_size = mujoco.mj_stateSize(self._model, self._full)
        if self.batched:
            self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
            self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        else:
            self._workers = [self._physics.copy(share_model=True) for _ in range(threads)]
            for physics in self._workers:
                physics.legacy_step = True

    def state(self) -> np.ndarray:
        """Return the state that the environment is in, float64 [S]."""
        return self._state_of(self._physics)

    def _state_of(self, physics: "Physics") -> np.ndarray:
        return np.concatenate([physics.get_state(self._full), physics.get_state(self._warm)])

    def follow(self, state: np.ndarray, actions: np.ndarray) -> Followed:
        """Follow `actions` [N, H, A], in [-1, 1] and clipped to it, from `state` [S]."""
        control = self._env.control(np.asarray(actions, np.float64))
        if self._reward is None:
            return self._step(state, control)
        return self._roll(state, control, self._reward)

    def _roll(self, state: np.ndarray, control: np.ndarray, reward_of: Reward) -> Followed:
        """Follow controls [N, H, nu] with `mujoco.rollout`.

        After a step mujoco's sensors are still those of the state before it, while dm_control
        rewards what the state after it shows. So a step more is taken: its sensors are those of the
        last state.
        """
        count, horizon, _ = control.shape
        each = self._repeat * self._substeps
        steps = np.concatenate([control.repeat(each, 1), control[:, -1:]], 1)
        start = state[None, : self._physics_size]
        warm = state[None, self._physics_size :]
        states, sensors = self._pool.rollout(
            self._model, self._data, start, steps, initial_warmstart=warm
        )
        # [N, H · repeat, ...], after each control step
        after = states[:, self._substeps - 1 : -1 : self._substeps]
        time, qpos, qvel, _ = np.split(
            after, np.cumsum([1, self._model.nq, self._model.nv]), axis=-1
        )
        reached = States(
            qpos,
            qvel,
            control.repeat(self._repeat, 1),
            sensors[:, self._substeps :: self._substeps],
        )
        reward = reward_of(self._inner.task, self._physics, reached)
        reward = np.where(self._clock_is_right(state[0], time[..., 0]), reward, np.nan)
        # a rollout does not return the solver's last warm start: from `last` it starts cold
        last = np.concatenate([after[:, -1], np.zeros((count, self._model.nv))], 1)
        return Followed(reward.reshape(count, horizon, -1).sum(-1), np.ones((count, horizon)), last)

    def _clock_is_right(self, begin: float, time: np.ndarray) -> np.ndarray:
        """Return where the clock [N, steps] is right.

        mujoco resets or stops it where the simulation breaks down.
        """
        interval = self._inner.control_timestep()
        return np.abs(time - begin - interval * np.arange(1, 1 + time.shape[1])) < interval / 2

    def _step(self, state: np.ndarray, control: np.ndarray) -> Followed:
        """Follow controls [N, H, nu] by stepping the task, each thread a share of the sequences."""
        shares = [share for share in np.array_split(control, self._threads) if len(share)]

        def act(physics: "Physics", share: np.ndarray) -> list[tuple[np.ndarray, ...]]:
            return [self._act(physics, state, each) for each in share]

        with ThreadPoolExecutor(len(shares)) as pool:
            parts = [part for done in pool.map(act, self._workers, shares) for part in done]
        return Followed(*(np.stack([part[field] for part in parts]) for field in range(3)))

    def _act(
        self,
        physics: "Physics",
        state: np.ndarray,
        control: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Follow one sequence [H, nu] as `DMControlEnv.step` and dm_control's own step do."""
        reward = np.zeros(len(control))
        discount = np.zeros(len(control))
        index = 0
        try:
            self._restore(physics, state)
            for index, action in enumerate(control):
                reward[index], ended = self._repeat_action(physics, action)
                if ended:
                    break
                discount[index] = 1
        except PhysicsError:
            reward[index:], discount[index:] = np.nan, 1
        return reward, discount, self._state_of(physics)

    def _repeat_action(
        self,
        physics: "Physics",
        control: np.ndarray,
    ) -> tuple[float, bool]:
        """Return the summed reward, and whether the task ended the episode."""
        total = 0.0
        task = self._inner.task
        for _ in range(self._repeat):
            task.before_step(control, physics)
            physics.step(self._substeps)
            task.after_step(physics)
            total += task.get_reward(physics)
            if task.get_termination(physics) is not None:
                return total, True
        return total, False

    def _restore(self, physics: "Physics", state: np.ndarray) -> None:
        """Put the physics where dm_control's own stands between two steps.

        Raises:
            PhysicsError: the state is not one that can be simulated.
        """
        physics.set_state(state[: self._physics_size], self._full)
        physics.set_state(state[self._physics_size :], self._warm)
        # a second warning of a kind, after mujoco's own reset, would look like none
        physics.data.warning.number[:] = 0
        with physics.check_invalid_state():  # dm_control's step begins with mj_step2
            self._begin_step(self._model, physics.data.ptr)
