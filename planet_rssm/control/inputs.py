"""A robot's observations and executed actions, brought to the sizes of the training."""

from collections.abc import Mapping

import numpy as np

from planet_rssm.agent.inputs import SLACK
from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.choices import one_hot
from planet_rssm.envs.pictures import resized
from planet_rssm.envs.spec import EnvSpec

Array = np.ndarray


def fit_observation(
    observation: Mapping[str, Array] | None, spec: EnvSpec
) -> dict[str, Array] | None:
    """Return copies [1, ...] of what the model observes, in its sizes; None stays None.

    Raises:
        PlanetError: something is missing, of another kind or not finite.
    """
    if observation is None:
        return None
    if not isinstance(observation, Mapping):
        given = type(observation).__name__
        raise PlanetError(f"observation: {given}; must be a dict with {list(spec.observation)}")
    for key in spec.observation:
        if key not in observation:
            raise PlanetError(
                f"observation: no {key!r} among {sorted(observation)}; the model was trained on it"
            )
    return {
        key: _fit_value(key, np.asarray(observation[key]), shape, dtype)[None]
        for key, (shape, dtype) in spec.observation.items()
    }


def fit_action(action: Array, spec: EnvSpec) -> Array:
    """Return a copy of an action float32 [A], in [-1, 1] or one-hot by group.

    Raises:
        PlanetError: it has another shape, is not finite or is out of its range.
    """
    if np.shape(action) != (spec.action_size,):
        raise PlanetError(
            f"executed_action: shape {list(np.shape(action))}; must be {[spec.action_size]}"
        )
    fix = "leave it out if it is not known"
    done = _finite("executed_action", np.array(action, np.float32), fix)
    if spec.groups:
        if not np.array_equal(done, one_hot(done, spec.groups)):
            several = f" in each of the groups of {list(spec.groups)}"
            where = "" if len(spec.groups) == 1 else several
            raise PlanetError(
                f"executed_action: {done.tolist()}; must be one-hot{where}, 1 for the choice and 0 "
                "elsewhere"
            )
    elif np.abs(done).max() > 1 + SLACK:
        raise PlanetError(
            f"executed_action: {done.tolist()}; must be in [-1, 1], the units of Command.action"
        )
    return done if spec.groups else done.clip(-1, 1)


def _fit_value(key: str, value: Array, shape: tuple[int, ...], dtype: str) -> Array:
    if len(shape) == 3:
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
            raise PlanetError(
                f"observation {key!r}: {value.dtype} {list(value.shape)}; must be uint8 [H, W, 3]"
            )
        return resized(value, shape[0])
    if value.shape != shape:
        raise PlanetError(f"observation {key!r}: shape {list(value.shape)}; must be {list(shape)}")
    fix = "give None as the observation of a dropped frame"
    return _finite(f"observation {key!r}", np.array(value, dtype), fix)


def _finite(name: str, value: Array, fix: str) -> Array:
    """Refuse what would spoil the belief for the rest of the episode."""
    if not np.isfinite(value).all():
        raise PlanetError(f"{name}: has NaN or infinity in it; {fix}")
    return value
