"""What a run needs to know of its environment once the environment is gone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from planet_rssm.errors import PlanetError


@dataclass(frozen=True)
class EnvSpec:
    """Spaces, rates and the identity of the pixels; stored in every run, episode and checkpoint."""

    id: str  # canonical, "dmc/walker-walk"
    observation: dict[str, tuple[tuple[int, ...], str]]  # key: (shape, dtype): uint8 [size, size, 3] or float32 [n]
    action_size: int  # actions are float32 in [-1, 1]; with `discrete` one of so many, one-hot
    action_repeat: int  # control steps an agent step
    control_interval: float  # seconds of simulated time an agent step
    episode_steps: int  # control steps after which an episode is truncated
    renderer: str  # resolved: egl, osmesa, glfw, raycast, own (the environment draws itself) or none
    simulator: str  # name and version of what these observations come from, "mujoco 3.17.0"
    discrete: bool = False  # actions are choices, not numbers
    terminates: bool = False  # an episode may end by itself, before its time is over

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of from_json

    def seen(self, observe: str) -> "EnvSpec":
        """Return the same environment observed by `pixels` or `vectors` alone, or by `both` as it is.

        Raises:
            PlanetError: there is nothing of that kind.
        """
        rank = {"pixels": 3, "vectors": 1}.get(observe)
        kept = {key: value for key, value in self.observation.items() if rank in (None, len(value[0]))}
        if not kept:
            raise PlanetError(f"env.observe = {observe}: the episodes have only {', '.join(self.observation)}; "
                              "leave it out")  # fmt: skip
        return replace(self, observation=kept, renderer="none" if observe == "vectors" else self.renderer)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "EnvSpec":
        """Read what `to_json` wrote.

        Raises:
            PlanetError: a field is missing, unknown or of another type; files of another version look like that.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(value))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "it"
            what = f"description of an environment: {name}: {first['msg'][0].lower()}{first['msg'][1:]}"
            raise PlanetError(f"{what}; read it with the version of planet_rssm that wrote it") from None
