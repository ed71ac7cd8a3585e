"""Any Gymnasium environment whose actions are numbers or choices: registered ones and a user's own class."""

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import logging
import os
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.envs import registration
from gymnasium.wrappers import TimeLimit
from PIL import Image, ImageOps

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings, nearest
from planet_rssm.envs import gl
from planet_rssm.envs.api_checks import ContractError, as_flag, as_number, check_api, check_spaces
from planet_rssm.envs.observer import Observer
from planet_rssm.envs.older_mujoco import older_mujoco
from planet_rssm.envs.pictures import MAX_FRAME, UndeclaredError
from planet_rssm.envs.rates import mujoco_model, own_limit, parts, step_seconds
from planet_rssm.envs.registry import (
    GL_BACKENDS,
    action_repeat,
    canonical_id,
    gym_name,
    require_registered,
)
from planet_rssm.envs.spaces import action_map
from planet_rssm.envs.spec import EnvSpec

EPISODE_STEPS = (
    1000  # control steps of an episode that neither the environment nor env.time_limit limits
)
T = TypeVar("T")
_LIMIT = "_max_episode_steps"  # gymnasium.wrappers.TimeLimit's; it has no other name for it
_SEEDS = 1 << 31  # environments may draw from old generators, which take no larger seed

_log = logging.getLogger("planet_rssm")


class GymEnv(gymnasium.Env[Any, np.ndarray]):
    """One Gymnasium environment, seen as `observer.Observer` says, with actions as `spaces.action_map` takes them.

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
        elif settings.renderer == "own":
            gl.choose_when_mujoco_loads()
        self._env, limit, limit_from = _attempt(task, "cannot be made", lambda: _make(settings))
        self._can_draw = self._env.render_mode == "rgb_array"
        self._playing = False
        self._kept_its_word: set[str] = set()  # of reset and step: what returned what it declares
        self._observer = Observer(task, self._env.observation_space, settings.observe, settings.size,
                                  settings.drop, settings.keys)  # fmt: skip
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
            {key: _box(*field) for key, field in self._observer.spec.items()}
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (self._action.size,), np.float32)
        self.render_mode = "rgb_array"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": max(1, round(1 / self.env_spec.control_interval)),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; with a seed (any non-negative integer, taken modulo 2^31) as far as it minds seeds.

        Raises:
            ContractError: the first one ever returned what the environment does not declare.
            ValueError: a later one did, or there is NaN or infinity in it.
        """
        with self._as_declared("reset"):
            observation, _ = self._env.reset(
                seed=None if seed is None else seed % _SEEDS, options=options
            )
            self._playing = True
            return self._observe(observation), {"env_steps": 0}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Apply one action; see the class.

        Raises:
            gymnasium.error.ResetNeeded: no episode is under way.
            ContractError: the first one ever returned what the environment does not declare.
            ValueError: a later one did; an action of another shape; NaN or infinity in an action or
                observation.
        """
        if not self._playing:
            raise gymnasium.error.ResetNeeded("step before reset, or after the end of the episode")
        total, steps = 0.0, 0
        with self._as_declared("step"):
            for _ in range(self.env_spec.action_repeat):
                # mapped anew each time: an environment may write into the array that it is given
                observation, reward, terminated, truncated, _ = self._env.step(self._action(action))
                total, steps = total + as_number(reward), steps + 1
                ends = as_flag("terminated", terminated), as_flag("truncated", truncated)
                if any(ends):
                    self._playing = False
                    break
            return (
                self._observe(observation),
                total,
                ends[0],
                ends[1] and not ends[0],
                {"env_steps": steps},
            )

    def render(self) -> np.ndarray:
        """Return a frame for videos, uint8 [480, 480, 3]."""
        return self.render_frame(MAX_FRAME)

    def render_frame(self, size: int) -> np.ndarray:
        """Return the present frame, uint8 [size, size, 3]; not a square one has bars in the colour of its corner.

        It is black if the environment cannot draw; of that nothing depends but a video.
        """
        if self._can_draw:
            try:
                frame = self._frame()
                corner = tuple(frame[0, 0].tolist())
                return np.array(ImageOps.pad(Image.fromarray(frame), (size, size), color=corner))
            except Exception as error:
                _log.warning("%s: its frames are black in videos: %s", self._task, _line(error))
                self._can_draw = False
        return np.zeros((size, size, 3), np.uint8)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @contextlib.contextmanager
    def _as_declared(self, what: str) -> Iterator[None]:
        """Refuse the environment for good if its first answer is not what it declares; a later one is an accident."""
        try:
            yield
        except UndeclaredError as error:
            if what in self._kept_its_word:
                raise
            raise ContractError(f"env.id = {self._task!r}: {error}") from None
        self._kept_its_word.add(what)

    def _observe(self, observation: Any) -> dict[str, np.ndarray]:  # noqa: ANN401
        frame = self._frame() if self._observer.draws and not self._blind else None
        try:
            return (
                self._observer.blind(observation)
                if self._blind
                else self._observer(observation, frame)
            )
        except UndeclaredError as error:
            raise UndeclaredError(
                f"{error}; return what observation_space declares, or declare the other"
            ) from None

    def _require_drawing(self) -> None:
        instead = "use env.observe=vectors"
        if not self._can_draw:
            raise PlanetError(
                f"env.observe: {self._task} has no image observation and no render_mode='rgb_array'; {instead}"
            )

        def draw() -> None:
            self.reset(seed=0)
            self._playing = False

        _attempt(self._task, f"cannot draw itself ({instead}, or mend this)", draw)

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


def _make(settings: EnvSettings) -> tuple[gymnasium.Env[Any, Any], int, str]:
    """Return the environment, drawing if it can, its time limit in control steps, and who set that."""
    env, applied = (_registered if settings.id.startswith("gym/") else _users)(settings)
    env = check_api(settings.id, env)
    check_spaces(settings.id, env)
    own = applied or own_limit(env)
    if own is None and settings.time_limit is None:
        line = "%s: has no time limit, so its episodes end after %d control steps; env.time_limit=N sets another"
        _log.info(line, settings.id, EPISODE_STEPS)
        return TimeLimit(env, EPISODE_STEPS), EPISODE_STEPS, "default"
    limit = min(steps for steps in (settings.time_limit, own) if steps)
    return (
        (env if limit == applied else TimeLimit(env, limit)),
        limit,
        "environment" if limit == own else "setting",
    )


def _registered(settings: EnvSettings) -> tuple[gymnasium.Env[Any, Any], int | None]:
    """Make an environment that gymnasium knows; with env.time_limit without its own limit, which is then replaced."""
    module, name = gym_name(settings.id)
    if module:
        importlib.import_module(module)
    require_registered(settings.id)
    spec = registration.registry[name]
    creator = (
        registration.load_env_creator(spec.entry_point)
        if isinstance(spec.entry_point, str)
        else spec.entry_point
    )
    draws = {"render_mode": "rgb_array"} if "rgb_array" in _render_modes(creator) else {}
    limit = -1 if settings.time_limit else None
    _check_arguments(settings, creator, spec.kwargs)
    env = gymnasium.make(
        spec, max_episode_steps=limit, disable_env_checker=True, **draws, **settings.kwargs
    )
    return env, None if settings.time_limit else spec.max_episode_steps


def _users(settings: EnvSettings) -> tuple[gymnasium.Env[Any, Any], int | None]:
    """Make what a user's class or function makes."""
    module, _, name = settings.id.partition(":")
    creator: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    takes = inspect.signature(creator).parameters.values()
    draws = any(
        parameter.name == "render_mode" or parameter.kind is parameter.VAR_KEYWORD
        for parameter in takes
    )
    _check_arguments(settings, creator, {})
    env = creator(**{"render_mode": "rgb_array"} if draws else {}, **settings.kwargs)
    if not isinstance(env, gymnasium.Env):
        raise TypeError(f"it makes a {type(env).__name__}, must be a gymnasium.Env")
    wrapped = env.has_wrapper_attr(_LIMIT)
    return env, int(env.get_wrapper_attr(_LIMIT)) if wrapped else None


def _check_arguments(settings: EnvSettings, creator: Any, given: Collection[str]) -> None:  # noqa: ANN401
    """Refuse an argument that what makes the environment does not take, as far as can be seen without calling it.

    Raises:
        PlanetError: there is one.
    """
    try:
        takes = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return
    named = {
        parameter.name for parameter in takes if parameter.kind is not parameter.VAR_POSITIONAL
    }
    for name in settings.kwargs:
        if name not in named:
            known = sorted(named - {"render_mode"} | {*given})
            instead = nearest(name, known) if known else ", nor any other"
            raise PlanetError(f"env.kwargs.{name}: {settings.id} takes no such argument{instead}")


def _render_modes(creator: Any) -> Collection[str]:  # noqa: ANN401
    metadata = getattr(creator, "metadata", None)
    return metadata.get("render_modes") or () if isinstance(metadata, dict) else ()


def _attempt(task: str, what: str, act: Callable[[], T]) -> T:
    """Return what `act` does, or tell in one line what an environment's own code stumbled over.

    Raises:
        PlanetError: whatever went wrong.
    """
    try:
        return act()
    except PlanetError:
        raise
    except Exception as error:
        raise PlanetError(
            f"env.id = {task!r}: {what}: {_line(error)}{_mend(task, error)}"
        ) from error


def _line(error: Exception) -> str:
    """Return an error in one line; if it has no words of its own, with where it was raised and the code there."""
    if words := " ".join(str(error).split()):
        return f"{type(error).__name__}: {words}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    where = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}"
    return f"{type(error).__name__} ({where}: {' '.join((frames[-1].line or '').split())[:80]})"


def _mend(task: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "imageio":
        return "; pip install imageio, which gymnasium's MuJoCo environments import"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"; pip install the package of {error.name}, or start planet in the folder that {error.name} lies in"
    return older_mujoco(task.removeprefix("gym/").partition(":")[0], _line(error))


def _simulator(env: gymnasium.Env[Any, Any]) -> str:
    """Return name and version of what the observations come from: mujoco, the environment's package, or gymnasium."""
    name = "mujoco" if _uses_mujoco(env) else type(env.unwrapped).__module__.partition(".")[0]
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:  # a file of the user's
        return f"gymnasium {gymnasium.__version__}"


def _uses_mujoco(env: gymnasium.Env[Any, Any]) -> bool:
    return any(
        kind.__module__.startswith("gymnasium.envs.mujoco") for kind in type(env.unwrapped).__mro__
    )


def _choose_gl(env: gymnasium.Env[Any, Any]) -> None:
    """Give what draws by MuJoCo and looks at MUJOCO_GL when it first draws, as gymnasium's do, a backend that works.

    Raises:
        PlanetError: there is none; others than gymnasium's may draw by other means.
    """
    if not _uses_mujoco(env) and all(mujoco_model(part) is None for part in parts(env)):
        return
    if (probes := gl.choose()) and _uses_mujoco(env):
        faults = "; ".join(f"{probe.backend}: {probe.error}" for probe in probes)
        fix = "apt install libegl1, or env.observe=vectors"
        raise PlanetError(f"env.renderer = 'own': no GL works here ({faults}); {fix}")
