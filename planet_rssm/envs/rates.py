"""What a Gymnasium environment says of time: how long a step is, and when its episodes end."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium

FRAMES_PER_SECOND = 30.0  # control steps a second, where nothing says
_ATARI_HZ = 60.0  # frames a second of the emulated console
_FRAME_LIMIT = "max_num_frames_per_episode"  # ALE's
# gym-pusht's, robosuite's, highway-env's (in its config)
_RATES = ("control_hz", "control_freq", "policy_frequency")
# physics steps a control step, beside a MuJoCo model
_SUBSTEPS = ("frame_skip", "n_substeps", "n_sub_steps")
# minigrid's is max_steps
_LIMITS = ("max_episode_steps", "_max_episode_steps", "max_steps", "_max_steps")

Env = gymnasium.Env[Any, Any]


class Figure(NamedTuple):
    """A number, and what in the environment it was read from."""

    value: float
    source: str


def step_seconds(env: Env) -> Figure:
    """Return the simulated time of a control step in seconds.

    It is read from what the environment steps by. `render_fps` says at which rate somebody wants to
    see it, which is often another (Pendulum-v1: 30 for 20 steps a second, Acrobot-v1: 15 for 5),
    and counts only where nothing else is there.
    """
    for read in (_control_timestep, _atari, _doom, _rate, _mujoco, _dt):
        if figure := read(env):
            return figure._replace(value=figure.value * _skipped(env))
    fps = _number(env.metadata.get("render_fps"))
    return Figure(1 / fps, "render_fps") if fps else Figure(1 / FRAMES_PER_SECOND, "default")


def own_limit(env: Env) -> int | None:
    """Return after how many control steps the environment itself truncates; None: unknown."""
    inner = env.unwrapped
    frames = _frames(inner)
    if frames is not None:
        return math.ceil(frames / (min(_frame_skip(inner)) * _skipped(env))) or None
    named = (_read(inner, name) for name in _LIMITS)
    limits = (_tics(inner), _duration(inner), *named)
    return next((limit for limit in limits if type(limit) is int and limit > 0), None)


def parts(env: Env) -> Iterator[object]:
    """Yield the environment without its wrappers, then its attributes.

    One of another kind may do the work.
    """
    yield env.unwrapped
    yield from list(getattr(env.unwrapped, "__dict__", {}).values())


def mujoco_model(part: object) -> Any:  # noqa: ANN401
    """Return the MuJoCo model of an environment or of what it has; None if there is none."""
    model = _read(part, "model")
    return model if type(model).__name__ == "MjModel" else None


def _control_timestep(env: Env) -> Figure | None:
    """dm_control's environments, also within an adapter."""
    for inner in parts(env):
        if callable(asked := _read(inner, "control_timestep")):
            return Figure(asked(), "control_timestep")
    return None


def _atari(env: Env) -> Figure | None:
    if _frames(env.unwrapped) is None:
        return None
    skip = _frame_skip(env.unwrapped)
    return Figure(sum(skip) / len(skip) / _ATARI_HZ, "frameskip")


def _doom(env: Env) -> Figure | None:
    """ViZDoom, whose render_fps is that of the game's tics, not of steps that skip some."""
    game = _read(env.unwrapped, "game")
    skip = _number(_read(env.unwrapped, "frame_skip"))
    if skip is None or not (callable(asked := _read(game, "get_ticrate")) and _number(asked())):
        return None
    return Figure(skip / asked(), "frame_skip / ticrate")


def _tics(inner: object) -> int | None:
    """Return ViZDoom's time limit, of which gymnasium is not informed; 0 for none."""
    asked = _read(_read(inner, "game"), "get_episode_timeout")
    skip = _number(_read(inner, "frame_skip"))
    return math.ceil(asked() / skip) if callable(asked) and skip else None


def _duration(inner: object) -> int | None:
    """Return highway-env's time limit, which is in seconds of its config."""
    config = _read(inner, "config")
    if not isinstance(config, Mapping):
        return None
    seconds, hz = _number(config.get("duration")), _number(config.get("policy_frequency"))
    return math.ceil(seconds * hz) if seconds and hz else None


def _rate(env: Env) -> Figure | None:
    inner = env.unwrapped
    config = _read(inner, "config")
    for name in _RATES:
        value = _read(inner, name) or (config.get(name) if isinstance(config, Mapping) else None)
        if hz := _number(value):
            return Figure(1 / hz, name)
    return None


def _mujoco(env: Env) -> Figure | None:
    for inner in parts(env):
        model = mujoco_model(inner)
        if model is None:
            continue
        for name in _SUBSTEPS:
            if substeps := _number(_read(inner, name)):
                return Figure(model.opt.timestep * substeps, f"timestep x {name}")
    return None


def _dt(env: Env) -> Figure | None:
    inner = env.unwrapped
    for part, name in ((inner, "dt"), (_read(inner, "sim"), "dt"), (inner, "tau")):
        # tau: CartPole's
        if seconds := _number(_read(part, name)):
            return Figure(seconds, name)
    return None


def _skipped(env: Env) -> int:
    """Return how often gymnasium's wrappers that skip frames repeat an action."""
    times = 1
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.AtariPreprocessing):
            times *= env.frame_skip
        elif isinstance(env, gymnasium.wrappers.MaxAndSkipObservation):
            times *= env._skip
        env = env.env
    return times


def _frames(inner: object) -> int | None:
    """Return after how many frames ALE ends an episode, 0 for never; None where it is not ALE."""
    asked = _read(_read(inner, "ale"), "getInt")
    return asked(_FRAME_LIMIT) if callable(asked) else None


def _frame_skip(inner: object) -> tuple[int, ...]:
    """Return how many frames ALE may repeat an action for: of a range any below its end."""
    skip = getattr(inner, "_frameskip", 1)
    return tuple(range(*skip)) if isinstance(skip, tuple) else (int(skip),)


def _number(value: Any) -> float | None:  # noqa: ANN401
    """Return a positive number, None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None


def _read(part: object, name: str) -> object:
    """Return an attribute; None where there is none, or where code of the environment raises."""
    try:
        return getattr(part, name, None)
    except Exception:
        return None
