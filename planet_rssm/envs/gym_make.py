"""Make a Gymnasium environment by its id; errors of its own code become one line."""

import functools
import importlib
import inspect
import logging
import os
import re
import traceback
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs import registration
from gymnasium.wrappers import TimeLimit

from planet_rssm.base import plugins, text
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings, nearest
from planet_rssm.envs.api_checks import check_api, check_spaces
from planet_rssm.envs.older_mujoco import older_mujoco
from planet_rssm.envs.rates import Env, own_limit
from planet_rssm.envs.registry import gym_name, require_registered

# control steps of an episode that neither the environment nor env.time_limit limits
EPISODE_STEPS = 1000
T = TypeVar("T")
_LIMIT = "_max_episode_steps"  # gymnasium.wrappers.TimeLimit's; it has no other name for it

_log = logging.getLogger("planet_rssm")


def make_gym(settings: EnvSettings) -> tuple[Env, int, str]:
    """Return the environment, drawing if it can, its limit in control steps, and who set that."""
    create = _make_registered if settings.id.startswith("gym/") else _make_own
    env, applied = create(settings)
    env = check_api(settings.id, env)
    check_spaces(settings.id, env)
    own = applied or own_limit(env)
    if own is None and settings.time_limit is None:
        _log.info(
            "%s: has no time limit, so its episodes end after %d control steps; "
            "env.time_limit=N sets another",
            settings.id,
            EPISODE_STEPS,
        )
        return TimeLimit(env, EPISODE_STEPS), EPISODE_STEPS, "default"
    limit = min(steps for steps in (settings.time_limit, own) if steps)
    limited = env if limit == applied else TimeLimit(env, limit)
    return limited, limit, "environment" if limit == own else "setting"


def _make_registered(settings: EnvSettings) -> tuple[Env, int | None]:
    """Make an environment that gymnasium knows; return it with the time limit that it has.

    With env.time_limit it is made without its own limit, and has none.
    """
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


def _make_own(settings: EnvSettings) -> tuple[Env, int | None]:
    """Make what a user's class or function makes; return it with the time limit that it has."""
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


def _check_arguments(
    settings: EnvSettings,
    creator: object,
    given: Collection[str],
) -> None:
    """Refuse an argument that `creator` does not take, as far as its signature says.

    Raises:
        PlanetError: there is one.
    """
    if not callable(creator):
        return
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


def _render_modes(creator: object) -> Collection[str]:
    metadata = getattr(creator, "metadata", None)
    return metadata.get("render_modes") or () if isinstance(metadata, dict) else ()


def attempt(task: str, what: str, act: Callable[[], T]) -> T:
    """Return what `act` does, and turn an error of an environment's own code into one line.

    Raises:
        PlanetError: whatever went wrong.
    """
    try:
        return act()
    except PlanetError:
        raise
    except (Exception, SystemExit) as error:  # some end the process where a licence is missing
        line = f"env.id = {task!r}: {what}: {one_line(error)}{_missing(error)}"
        line += _advice(task, error)
        raise PlanetError(line) from error


def one_line(error: BaseException) -> str:
    """Return an error in one line; one without a message, with where it was raised."""
    if str(error).strip():
        return text.one_line(f"{type(error).__name__}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    where = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}"
    return f"{type(error).__name__} ({where}: {' '.join((frames[-1].line or '').split())[:80]})"


def _missing(error: BaseException) -> str:
    """Return how to give the arguments that what makes an environment lacks; "" if none."""
    found = re.search(
        r"missing \d+ required [\w-]+ arguments?: ((?:, |,? and |'\w+')+)", str(error)
    )
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    if not found or raised not in (__file__, registration.__file__):  # within it, it is its own
        return ""
    names = re.findall(r"\w+(?=')", found[1])
    return f"; give it, {' '.join(f'-s env.kwargs.{name}=VALUE' for name in names)}"


def _advice(task: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "imageio":
        return "; pip install imageio, which gymnasium's MuJoCo environments import"
    if isinstance(error, ModuleNotFoundError) and (fix := plugins.without_suffix(task)):
        return f"; {fix}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"; pip install the package of {error.name}, "
            f"or start planet in the folder that {error.name} lies in"
        )
    return older_mujoco(task.removeprefix("gym/").partition(":")[0], one_line(error))
