"""dm_control's suite as a `gymnasium.Env`: pixels in, one action repeated, rewards summed."""

import os
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs.pictures import MAX_FRAME
from planet_rssm.envs.registry import action_repeat, canonical_id, parse
from planet_rssm.envs.spec import EnvSpec, chosen

if TYPE_CHECKING:  # these import mujoco, for which MUJOCO_GL must be set
    from dm_control.mujoco import Physics
    from dm_control.rl.control import Environment
    from dm_env.specs import Array, BoundedArray

    from planet_rssm.envs.opengl import GlRenderer
    from planet_rssm.envs.raycast import RayCaster

# control steps: the suite's own limit, and also that of lqr, which never ends by time
EPISODE_STEPS = 1000
_CAMERA = 0  # as PlaNet
_IMAGE = "image"
_UNBOUNDED = 1e6  # lqr's actuators have no limits (dm_control says 1e10): they get [-1, 1]
# domains whose episodes end by themselves: a point at rest has nothing left to earn
_ENDING = ("lqr",)
_MODEL_SEED = 0  # lqr draws its masses and springs when it is loaded: one system for everybody


class DMControlEnv(gymnasium.Env[Any, np.ndarray]):
    """One task of the suite.

    Observation: {"image": uint8 [size, size, 3]}, the task's own vectors by dm_control's names,
    float32 [n] each, or both, as `settings.observe` has it. Action: float32 [A] in [-1, 1], mapped
    linearly onto the task's bounds and applied for `action_repeat` control steps, fewer when the
    episode ends among them. `terminated` means that the task ended it (discount 0), `truncated`
    that its time is over. info["env_steps"] = control steps done.
    """

    def __init__(self, settings: EnvSettings) -> None:
        """Load the task.

        `settings.renderer` must be resolved, and fit what MUJOCO_GL was when mujoco was imported.
        """
        os.environ.setdefault("MUJOCO_GL", gl_variable(settings.renderer))
        import mujoco
        from dm_control import suite

        domain, task = parse(settings.id)
        self._env = suite.load(domain, task, task_kwargs={"random": _MODEL_SEED})
        _remove_gl_contexts(self._env.physics)
        self._renderer = settings.renderer
        self._size = settings.size
        self._renderers: dict[int, RayCaster | GlRenderer] = {}  # by size
        self._centre, self._half = _action_map(self._env.action_spec())
        self._limit = min(settings.time_limit or EPISODE_STEPS, EPISODE_STEPS)
        self._elapsed = self._limit  # no episode yet
        repeat = settings.action_repeat or action_repeat(settings.id)
        self._vectors: dict[str, np.ndarray] = {}
        spaces = _spaces(settings, self._env.observation_spec())
        self.env_spec = EnvSpec(
            id=canonical_id(settings.id),
            observation={
                key: (space.shape or (), str(space.dtype)) for key, space in spaces.items()
            },
            action_size=len(self._half),
            action_repeat=repeat,
            control_interval=repeat * self._env.control_timestep(),
            episode_steps=self._limit,
            renderer=settings.renderer,
            simulator=f"mujoco {mujoco.__version__}",
            terminates=domain in _ENDING,
            interval_from="control_timestep",
            limit_from="environment" if self._limit == EPISODE_STEPS else "setting",
            drop=settings.drop,
            keys=settings.keys,
        )
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1, 1, self._half.shape, np.float32)
        self.render_mode = "rgb_array"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(1 / self.env_spec.control_interval),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Start an episode; with a seed (any non-negative integer) it depends on that alone."""
        super().reset(seed=seed)
        if seed is not None:  # RandomState itself takes 32 bits only
            self._env.task._random = np.random.RandomState(
                np.random.MT19937(np.random.SeedSequence(seed))
            )
        self._vectors = self._env.reset().observation
        self._elapsed = 0
        for renderer in self._renderers.values():
            renderer.refresh()
        return self._observe(), {"env_steps": 0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, int]]:
        """Apply one action; see the class.

        Raises:
            gymnasium.error.ResetNeeded: no episode is under way.
            ValueError: an action of another shape, or with NaN or infinity in it.
        """
        if self._elapsed >= self._limit:
            raise gymnasium.error.ResetNeeded("step before reset, or after the end of the episode")
        control = self.control(_checked(action, self._half.shape))
        reward = 0.0
        begin = self._elapsed
        terminated = False
        for _ in range(min(self.env_spec.action_repeat, self._limit - begin)):
            time_step = self._env.step(control)
            self._elapsed += 1
            reward += time_step.reward
            if time_step.last():
                terminated = time_step.discount == 0
                break
        steps = self._elapsed - begin
        truncated = not terminated and (time_step.last() or self._elapsed >= self._limit)
        if terminated or truncated:
            self._elapsed = self._limit
        self._vectors = time_step.observation
        return (
            self._observe(),
            float(reward),
            bool(terminated),
            bool(truncated),
            {"env_steps": steps},
        )

    @property
    def inner(self) -> "Environment":
        """dm_control's own environment, for those who look at its physics."""
        return self._env

    def control(self, action: np.ndarray) -> np.ndarray:
        """Return what the actuators are given for actions [*B, A], which are clipped to [-1, 1]."""
        return self._centre + self._half * np.clip(action, -1, 1)

    def render(self) -> np.ndarray:
        """Return a frame for videos, uint8 [480, 480, 3]."""
        return self.render_frame(MAX_FRAME)

    def render_frame(self, size: int) -> np.ndarray:
        """Return the present frame at another size (1 to MAX_FRAME), uint8 [size, size, 3]."""
        if size not in self._renderers:
            self._renderers[size] = self._make_renderer(size)
        return self._renderers[size].render(self._env.physics.data.ptr)

    def close(self) -> None:
        """Free the physics and the GL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._env.close()

    def _make_renderer(self, size: int) -> "RayCaster | GlRenderer":
        model = self._env.physics.model.ptr
        if gl_variable(self._renderer) == "disable":
            from planet_rssm.envs.raycast import RayCaster

            return RayCaster(model, size, _CAMERA)
        from planet_rssm.envs.opengl import GlRenderer

        return GlRenderer(model, size, _CAMERA)

    def _observe(self) -> dict[str, np.ndarray]:
        """Return what the specification names."""
        keys = self.env_spec.observation
        observation = {
            key: np.array(self._vectors[key], np.float32).ravel() for key in keys if key != _IMAGE
        }
        if _IMAGE in keys:
            observation[_IMAGE] = self._image()
        return observation

    def _image(self) -> np.ndarray:
        if self._renderer == "none":
            return np.zeros((self._size, self._size, 3), np.uint8)
        return self.render_frame(self._size)


def _spaces(
    settings: EnvSettings, vectors: "dict[str, Array]"
) -> dict[str, gymnasium.spaces.Space[object]]:
    """Return the space of each key that is observed.

    `vectors` are dm_control's specs, scalars among them.
    """
    spaces: dict[str, gymnasium.spaces.Space[object]] = {}
    if settings.observe != "vectors":
        spaces[_IMAGE] = gymnasium.spaces.Box(0, 255, (settings.size, settings.size, 3), np.uint8)
    if settings.observe != "pixels":
        for key, spec in vectors.items():
            spaces[key] = gymnasium.spaces.Box(
                -np.inf, np.inf, (int(np.prod(spec.shape)),), np.float32
            )
    names = chosen(settings.id, list(spaces), settings.drop, settings.keys)
    if not names:
        raise PlanetError(
            f"env.drop: leaves nothing of what {settings.id} shows, {', '.join(spaces)}; name less"
        )
    return {key: space for key, space in spaces.items() if key in names}


def gl_variable(renderer: str) -> str:
    """Return what MUJOCO_GL must be, before mujoco is imported, for a resolved renderer."""
    return "disable" if renderer in ("raycast", "none") else renderer


def _remove_gl_contexts(physics: "Physics") -> None:
    """Make `physics.contexts` None.

    quadruped-escape asks whether there is a context, which would create one. Nothing here uses it:
    GlRenderer makes its own.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})


def _action_map(spec: "BoundedArray") -> tuple[np.ndarray, np.ndarray]:
    low = np.where(spec.minimum < -_UNBOUNDED, -1.0, spec.minimum)
    high = np.where(spec.maximum > _UNBOUNDED, 1.0, spec.maximum)
    return (high + low) / 2, (high - low) / 2


def _checked(action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    action = np.asarray(action, np.float64)
    if action.shape != shape or not np.isfinite(action).all():
        raise ValueError(f"action {action.tolist()}: needs shape {list(shape)} and finite values")
    return action
