"""What a run needs to know of its environment once the environment is gone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from planet_rssm.envs.choices import Groups, from_places
from planet_rssm.errors import PlanetError

_OF_TIME = ("control_interval", "interval_from", "limit_from")


@dataclass(frozen=True)
class EnvSpec:
    """Spaces, rates and the identity of the pixels; stored in every run, episode and checkpoint."""

    id: str  # canonical, "dmc/walker-walk"
    observation: dict[str, tuple[tuple[int, ...], str]]  # key: (shape, dtype): uint8 [size, size, 3] or float32 [n]
    action_size: int  # actions are float32 in [-1, 1]; with `discrete` one-hot in each of `groups`
    action_repeat: int  # control steps an agent step
    control_interval: float  # seconds of simulated time an agent step
    episode_steps: int  # control steps after which an episode is truncated
    renderer: str  # resolved: egl, osmesa, glfw, raycast, own (the environment draws itself) or none
    simulator: str  # name and version of what these observations come from, "mujoco 3.17.0"
    discrete: bool = False  # actions are choices, not numbers
    terminates: bool = False  # an episode may end by itself, before its time is over
    interval_from: str = ""  # what control_interval was read from: dt, render_fps, …; "": of an earlier version
    limit_from: str = ""  # who set episode_steps: environment, setting or default; "": of an earlier version
    groups: Groups = ()  # how many choices each group of a discrete action has; alone it is one of action_size

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of from_json

    def __post_init__(self) -> None:
        """Make a discrete action without groups one group.

        Raises:
            ValueError: the groups are not those of an action of this kind and size.
        """
        if self.discrete and not self.groups:
            object.__setattr__(self, "groups", (self.action_size,))
        fit = not self.groups or (min(self.groups) > 0 and sum(self.groups) == self.action_size)
        if bool(self.groups) != self.discrete or not fit:
            kind = f"action_size {self.action_size} with discrete {self.discrete}"
            raise ValueError(f"groups {list(self.groups)}: not those of {kind}")

    def nothing(self) -> np.ndarray:
        """Return the action float32 [A] that stands for doing nothing: zeros, or the first choice of each group."""
        if not self.groups:
            return np.zeros(self.action_size, np.float32)
        return from_places(np.zeros(len(self.groups), int), self.groups)

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

    def differs(self, other: "EnvSpec") -> str | None:
        """Return a field in which two environments differ; None if they are the same. What is said of time is no part.

        Earlier versions took `render_fps` for the rate; nothing that is learned depends on it.
        """
        mine, theirs = asdict(self), asdict(other)
        return next((key for key in mine if key not in _OF_TIME and mine[key] != theirs[key]), None)

    def timing(self) -> dict[str, Any]:
        """Return what `--json` prints of time: the limit of an episode, the interval of a step, and who says so."""
        return {
            "time_limit": {"env_steps": self.episode_steps, "from": self.limit_from},
            "control_interval": {"seconds": self.control_interval, "from": self.interval_from},
        }

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back; one group is not named, as in files before groups were."""
        value = asdict(self)
        if len(self.groups) < 2:
            del value["groups"]
        return value

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
