"""Gymnasium environments whose actions are numbers or choices: registered, or a user's class."""

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageOps

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl
from planet_rssm.envs.api_checks import ContractError, as_flag, as_number
from planet_rssm.envs.gym_make import attempt, make_gym, one_line
from planet_rssm.envs.observer import Observer
from planet_rssm.envs.pictures import MAX_FRAME, UndeclaredError
from planet_rssm.envs.rates import Env, mujoco_model, parts, step_seconds
from planet_rssm.envs.registry import GL_BACKENDS, action_repeat, canonical_id
from planet_rssm.envs.spaces import action_map
from planet_rssm.envs.spec import EnvSpec

_SEEDS = 1 << 31  # environments may draw from old generators, which take no larger seed

_log = logging.getLogger("planet_rssm")


class GymEnv(gymnasium.Env[Any, np.ndarray]):
    """One Gymnasium environment, by `observer.Observer` and `spaces.action_map`.

    An action is applied for `action_repeat` control steps, fewer when the episode ends among them;
    the rewards are summed. `terminated` means that the environment ended the episode, `truncated`
    that its time is over, never both. info["env_steps"] = control steps done. With the renderer
    `none` images are black.
    """

    def __init__(self, settings: EnvSettings) -> None:
        """Make the environment; `settings` must be resolved, see `registry.resolve`.

        Raises:
            PlanetError: it cannot be made, observed as asked or acted in; the line says what would
                work.
        """
        task = self._task = canonical_id(settings.id)
        if settings.renderer in GL_BACKENDS:
            os.environ.setdefault("MUJOCO_GL", settings.renderer)
        elif settings.renderer == "own" or settings.observe != "vectors":
            gl.choose_when_mujoco_loads()  # with the renderer none too: what it returns is drawn
        else:  # a choice takes a second, and most that are observed by vectors draw nothing
            gl.choose_when_mujoco_loads(("dm_control",))
        self._env, limit, limit_from = attempt(task, "cannot be made", lambda: make_gym(settings))
        self._can_draw = self._env.render_mode == "rgb_array"
        self._playing = False
        self._as_declared: set[str] = set()  # of reset and step: which have returned what they must
        self._observer = Observer(
            task,
            self._env.observation_space,
            settings.observe,
            settings.size,
            settings.drop,
            settings.keys,
        )
        self._action = action_map(task, self._env.action_space)
        self._blind = settings.renderer == "none"
        if self._observer.draws and not self._blind:
            self._require_drawing()
        repeat = settings.action_repeat or action_repeat(task)
        seconds, interval_from = step_seconds(self._env)
        self.env_spec = EnvSpec(
            id=task,
            observation=self._observer.spec,
            action_size=self._action.size,
            action_repeat=repeat,
            control_interval=repeat * seconds,
            episode_steps=limit,
            renderer=settings.renderer,
            simulator=_simulator(self._env),
            discrete=bool(self._action.groups),
            terminates=True,
            interval_from=interval_from,
            limit_from=limit_from,
            groups=self._action.groups,
            kwargs=settings.kwargs,
            drop=settings.drop,
            keys=settings.keys,
        )
        self.observation_space = gymnasium.spaces.Dict(
            {key: _box(shape, dtype) for key, (shape, dtype) in self._observer.spec.items()}
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (self._action.size,), np.float32)
        self.render_mode = "rgb_array"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": max(1, round(1 / self.env_spec.control_interval)),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Start an episode.

        A seed is any non-negative integer, taken modulo 2^31; environments may ignore it.

        Raises:
            ContractError: the first one ever returned what the environment does not declare.
            ValueError: a later one did, or there is NaN or infinity in it.
        """
        with self._checking("reset"):
            observation, _ = self._env.reset(
                seed=None if seed is None else seed % _SEEDS, options=options
            )
            self._playing = True
            return self._observe(observation), {"env_steps": 0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, int]]:
        """Apply one action; see the class.

        Raises:
            gymnasium.error.ResetNeeded: no episode is under way.
            ContractError: the first one ever returned what the environment does not declare.
            ValueError: a later one did; an action of another shape; NaN or infinity in an action or
                observation.
        """
        if not self._playing:
            raise gymnasium.error.ResetNeeded("step before reset, or after the end of the episode")
        total = 0.0
        steps = 0
        with self._checking("step"):
            for _ in range(self.env_spec.action_repeat):
                # mapped anew each time: an environment may write into the array that it is given
                observation, reward, terminated, truncated, _ = self._env.step(self._action(action))
                total += as_number(reward)
                steps += 1
                ended = as_flag("terminated", terminated)
                out_of_time = as_flag("truncated", truncated) and not ended
                if ended or out_of_time:
                    self._playing = False
                    break
            return self._observe(observation), total, ended, out_of_time, {"env_steps": steps}

    def render(self) -> np.ndarray:
        """Return a frame for videos, uint8 [480, 480, 3]."""
        return self.render_frame(MAX_FRAME)

    def render_frame(self, size: int) -> np.ndarray:
        """Return the present frame, uint8 [size, size, 3].

        One that is not square gets bars in the colour of its corner. It is black if the environment
        cannot draw: only videos depend on it.
        """
        if self._can_draw:
            try:
                frame = self._frame()
                corner = tuple(frame[0, 0].tolist())
                return np.array(ImageOps.pad(Image.fromarray(frame), (size, size), color=corner))
            except Exception as error:
                reason = one_line(error)
                _log.warning("%s: its frames are black in videos: %s", self._task, reason)
                self._can_draw = False
        return np.zeros((size, size, 3), np.uint8)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @contextlib.contextmanager
    def _checking(self, what: str) -> Iterator[None]:
        """Refuse the environment for good if its first reset or step is not as declared.

        A later one is an accident.
        """
        try:
            yield
        except UndeclaredError as error:
            if what in self._as_declared:
                raise
            raise ContractError(f"env.id = {self._task!r}: {error}") from None
        self._as_declared.add(what)

    def _observe(self, observation: object) -> dict[str, np.ndarray]:
        try:
            if self._blind:
                return self._observer.blind(observation)
            return self._observer(observation, self._frame() if self._observer.draws else None)
        except UndeclaredError as error:
            raise UndeclaredError(
                f"{error}; return what observation_space declares, or declare the other"
            ) from None

    def _require_drawing(self) -> None:
        instead = "use env.observe=vectors"
        if not self._observer.has_vectors:
            instead = "give as env.id=module:Class a wrapper of your own that has either"
        if not self._can_draw:
            raise PlanetError(
                f"env.observe: {self._task} has no image observation "
                f"and no render_mode='rgb_array'; {instead}"
            )

        def draw() -> None:
            self.reset(seed=0)
            self._playing = False

        attempt(self._task, f"cannot draw itself ({instead}, or fix this)", draw)

    def _frame(self) -> np.ndarray:
        _choose_gl(self._env)
        frame = np.asarray(self._env.render())
        if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8:
            raise ValueError(
                f"render() gave {frame.dtype} {list(frame.shape)}, must be uint8 [H, W, 3]"
            )
        return np.ascontiguousarray(frame[..., :3])


def _box(shape: tuple[int, ...], dtype: str) -> gymnasium.spaces.Box:
    low, high = (0, 255) if dtype == "uint8" else (-np.inf, np.inf)
    return gymnasium.spaces.Box(low, high, shape, np.dtype(dtype).type)


def _simulator(env: Env) -> str:
    """Return name and version of what the observations come from.

    That is mujoco, the environment's package, or gymnasium.
    """
    name = "mujoco" if _uses_mujoco(env) else type(env.unwrapped).__module__.partition(".")[0]
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:  # a file of the user's
        return f"gymnasium {gymnasium.__version__}"


def _uses_mujoco(env: Env) -> bool:
    return any(
        kind.__module__.startswith("gymnasium.envs.mujoco") for kind in type(env.unwrapped).__mro__
    )


def _choose_gl(env: Env) -> None:
    """Choose a GL backend that works for what draws by MuJoCo.

    gymnasium's environments look at MUJOCO_GL when they first draw.

    Raises:
        PlanetError: there is none; others than gymnasium's may draw by other means.
    """
    if not _uses_mujoco(env) and all(mujoco_model(part) is None for part in parts(env)):
        return
    if (probes := gl.choose()) and _uses_mujoco(env):
        faults = "; ".join(f"{probe.backend}: {probe.error}" for probe in probes)
        fix = "apt install libegl1, or env.observe=vectors"
        raise PlanetError(f"env.renderer = 'own': no GL works here ({faults}); {fix}")
