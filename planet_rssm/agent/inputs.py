"""What an agent is given, checked before anything is computed with it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.spec import EnvSpec

Array = np.ndarray | Tensor
_DROPPED = "give None as the observation of a dropped frame"  # what to give instead of NaN
_SENT = "give the action that was sent"
SLACK = 1e-3  # by which an actuator may report that it went beyond its range


def check_inputs(
    spec: EnvSpec,
    rows: int,
    observation: Mapping[str, Array] | None,
    executed_action: Array,
    is_first: Array,
) -> None:
    """Check the arguments of `Agent.observe` for `rows` rows.

    Shapes and types are checked always. Values are checked where they lie in the host's memory: to
    look at a GPU's would wait for it.

    Raises:
        PlanetError: what is wrong, what it must be, and how to fix it.
    """
    for key, (shape, dtype) in spec.observation.items() if observation is not None else ():
        if not isinstance(observation, Mapping) or key not in observation:
            given = sorted(observation) if isinstance(observation, Mapping) else type(observation)
            raise PlanetError(f"observation: no {key!r} in {given}; the model was trained on it")
        _check(f"observation {key!r}", observation[key], rows, shape, dtype)
    _check("executed_action", executed_action, rows, (spec.action_size,), "float32")
    if not spec.groups and _on_host(executed_action) and rows:
        furthest = float(torch.as_tensor(executed_action).abs().max())
        if furthest > 1 + SLACK:
            raise PlanetError(
                f"executed_action: {furthest:g} is among it; must be in [-1, 1], the units of "
                "Plan.action"
            )
    if tuple(np.shape(is_first)) != (rows,):
        raise PlanetError(
            f"is_first: shape {list(np.shape(is_first))}; must be {[rows]}, a bool a row"
        )


def _check(name: str, value: Array, rows: int, shape: tuple[int, ...], dtype: str) -> None:
    right = isinstance(value, np.ndarray) and value.shape == (rows, *shape) and value.dtype == dtype
    if right and (dtype == "uint8" or np.isfinite(value).all()):
        return  # what follows is slow
    kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    there, expected = list(np.shape(value)), [rows, *shape]
    given = f"{name}: {kind} {there}"
    if there != expected:
        fix = "; add the batch axis: value[None]" if there == [*shape] else ""
        if dtype == "uint8" and len(there) == 4 and there[::3] == expected[::3]:
            fix = f"; resize it, planet_rssm.envs.pictures.resized(frame, {shape[0]})"
        raise PlanetError(f"{given}; must be {dtype} {expected} for {rows} rows{fix}")
    if dtype == "uint8" and kind != "uint8":
        fix = "scale floats to 0..255, round, and convert them" if "float" in kind else "convert it"
        raise PlanetError(f"{given}; must be uint8, 0 to 255; {fix}")
    if kind.startswith(("complex", "str", "<U", "object")):
        raise PlanetError(f"{given}; must be numbers, float32 {expected}")
    if dtype != "uint8" and _on_host(value) and not torch.as_tensor(value).isfinite().all():
        fix = _SENT if name == "executed_action" else _DROPPED
        raise PlanetError(f"{name}: has NaN or infinity in it; {fix}")


def _on_host(value: Array) -> bool:
    return not isinstance(value, Tensor) or value.device.type == "cpu"
