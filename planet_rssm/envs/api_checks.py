"""Check what reset and step return: an older API or a slip would fail later, in odd places."""

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.pictures import UndeclaredError
from planet_rssm.envs.rates import Env

_OLD = "so Gymnasium has it, and Gym since 0.26"


class ApiChecks(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks what the environment under it returns, before a wrapper of gymnasium's unpacks it."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[object, dict[str, object]]:
        """Start an episode; see `Env.reset`.

        Raises:
            UndeclaredError: what comes is no pair of an observation and a dict.
        """
        result: Any = self.env.reset(seed=seed, options=options)
        pair = isinstance(result, tuple | list) and len(result) == 2
        if not pair or not isinstance(result[1], Mapping | None):
            raise UndeclaredError(
                f"reset returned {_describe(result)}, must be (observation, info), a dict; {_OLD}"
            )
        return result[0], dict(result[1] or {})

    def step(self, action: object) -> tuple[Any, Any, Any, Any, dict[str, object]]:
        """Apply an action; see `Env.step`.

        Raises:
            UndeclaredError: what comes is no tuple of five.
        """
        result: Any = self.env.step(action)
        if not isinstance(result, tuple | list) or len(result) != 5:
            raise UndeclaredError(
                f"step returned {_describe(result)}, "
                f"must be (observation, reward, terminated, truncated, info); {_OLD}"
            )
        return tuple(result)


class ContractError(PlanetError):
    """An environment whose first reset or step returned what it did not declare: it is unusable."""


def check_api(task: str, env: Env) -> Env:
    """Return the environment with `ApiChecks` around what is not gymnasium's own wrapper.

    Raises:
        PlanetError: its reset takes no seed or no options.
    """
    if isinstance(env, gymnasium.Wrapper) and type(env).__module__.startswith("gymnasium."):
        env.env = check_api(task, env.env)
        return env
    try:
        takes = inspect.signature(env.reset)
        takes.bind(seed=0, options=None)
    except ValueError:  # it has no signature that Python can see
        pass
    except TypeError:
        raise PlanetError(
            f"env.id = {task!r}: its reset{takes} must be reset(seed=None, options=None) "
            f"and return (observation, info); {_OLD}"
        ) from None
    return ApiChecks(env)


def check_spaces(task: str, env: Env) -> None:
    """Refuse an environment that declares no spaces.

    Raises:
        PlanetError: its observation_space or action_space is missing, or none of gymnasium's.
    """
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            kind = f"{type(space).__module__}.{type(space).__name__}"
            what = "missing" if space is None else f"a {kind}"
            raise PlanetError(
                f"env.id = {task!r}: its {name} is {what}, must be one of gymnasium.spaces; "
                "set it in its class or __init__"
            )


def as_number(reward: object) -> float:
    """Return a reward as a float.

    Raises:
        UndeclaredError: it is not one number.
    """
    try:
        value = np.asarray(reward)
    except ValueError:  # lists of different lengths
        value = np.array(None)
    if value.dtype.kind not in "biuf" or value.size != 1:
        raise UndeclaredError(f"reward is {_describe(reward)}; make it one number")
    return float(value.item())


def as_flag(name: str, flag: object) -> bool:
    """Return a flag as a bool.

    Raises:
        UndeclaredError: it is neither true nor false, nor 1 or 0.
    """
    single = np.isscalar(flag) or isinstance(flag, np.ndarray)
    value = np.asarray(flag) if single else np.array(None)
    if value.dtype.kind not in "biu" or value.size != 1 or value.item() not in (0, 1):
        raise UndeclaredError(f"{name} is {_describe(flag)}, must be True or False")
    return bool(value.item())


def _describe(value: object) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.size}" if value.ndim == 1 else f"an array {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    if value is None or isinstance(value, bool | int | float | str):
        return f"{value!r:.40}"
    return type(value).__name__
