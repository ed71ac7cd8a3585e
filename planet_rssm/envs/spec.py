"""What a run needs to know of its environment once the environment is gone."""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import nearest
from planet_rssm.envs.choices import Groups, from_places

# fields in which descriptions of one environment may differ
_NOT_COMPARED = ("control_interval", "interval_from", "limit_from", "drop", "keys")

_OF = "description of an environment"
_OLDER = "read it with the version of planet_rssm that wrote it"
_SHORTEST = 1e-9  # seconds of an agent step

_log = logging.getLogger("planet_rssm")


@dataclass(frozen=True)
class EnvSpec:
    """Spaces, rates and the identity of the pixels; stored in every run, episode and checkpoint."""

    id: str  # canonical, "dmc/walker-walk"
    # key: (shape, dtype): uint8 [size, size, 3] or float32 [n]
    observation: dict[str, tuple[tuple[int, ...], str]]
    action_size: int  # actions are float32 in [-1, 1]; with `discrete` one-hot in each of `groups`
    action_repeat: int  # control steps an agent step
    control_interval: float  # seconds of simulated time an agent step
    episode_steps: int  # control steps after which an episode is truncated
    # resolved: egl, osmesa, glfw, raycast, own (the environment draws itself) or none
    renderer: str
    simulator: str  # name and version of what these observations come from, "mujoco 3.17.0"
    discrete: bool = False  # actions are choices, not numbers
    terminates: bool = False  # an episode may end by itself, before its time is over
    # what control_interval was read from: dt, render_fps, …; "": of an earlier version
    interval_from: str = ""
    # who set episode_steps: environment, setting or default; "": of an earlier version
    limit_from: str = ""
    # how many choices each group of a discrete action has; alone it is one of action_size
    groups: Groups = ()
    # arguments that the environment was made with
    kwargs: Json = field(default_factory=dict)
    drop: tuple[str, ...] = ()  # observations that are left out, as env.drop names them
    keys: tuple[str, ...] = ()  # the only observations, as env.keys names them; (): every one

    # of from_json
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

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
        """Return the action float32 [A] that stands for doing nothing.

        It is zeros, or the first choice of each group.
        """
        if not self.groups:
            return np.zeros(self.action_size, np.float32)
        return from_places(np.zeros(len(self.groups), int), self.groups)

    def select_observations(
        self, observe: str, drop: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> "EnvSpec":
        """Return the same environment observed by `pixels` or `vectors` alone, or by `both`.

        What `drop` names is left out, if it is there at all, and with `keys` what those do not
        name. What was left out when it was recorded is so already: another may have its name now,
        as the frame that is drawn has "image".

        Raises:
            PlanetError: there is nothing of that kind, or of a name in `keys`.
        """
        rank = {"pixels": 3, "vectors": 1}.get(observe)
        names = list(self.observation)
        new = [name for name in drop if name not in self.drop]
        there = [name for name in new if any(_is_in(known, name) for known in names)]
        names = [
            key
            for key in chosen(self.id, names, there, keys)
            if rank in (None, len(self.observation[key][0]))
        ]
        kept = {key: self.observation[key] for key in names}
        if not kept:
            raise PlanetError(
                f"env.observe = {observe}: the episodes have only {', '.join(self.observation)}; "
                "leave it out"
            )
        return replace(
            self, observation=kept, renderer="none" if observe == "vectors" else self.renderer
        )

    def differs(self, other: "EnvSpec", ignoring: Collection[str] = ()) -> str | None:
        """Return a field in which two environments differ, None if they are the same.

        The interval of a step does not count: earlier versions took it from `render_fps`, and
        nothing that is learned depends on it. `drop` and `keys` are in `observation`.

        Args:
            other: the environment to compare.
            ignoring: more fields that do not count.
        """
        mine = asdict(self)
        theirs = asdict(other)
        counted = (key for key in mine if key not in _NOT_COMPARED and key not in ignoring)
        return next((key for key in counted if mine[key] != theirs[key]), None)

    def timing(self) -> dict[str, dict[str, float | str]]:
        """Return what `--json` prints of time.

        It has the limit of an episode, the interval of a step, and what each was read from.
        """
        return {
            "time_limit": {"env_steps": self.episode_steps, "from": self.limit_from},
            "control_interval": {"seconds": self.control_interval, "from": self.interval_from},
        }

    def to_json(self) -> Json:
        """Return a JSON object that `from_json` reads back.

        The newest fields are left out where they are empty, as in older files.
        """
        empty = [key for key in ("kwargs", "drop", "keys") if not getattr(self, key)]
        empty += ["groups"] * (len(self.groups) < 2)
        return {key: value for key, value in asdict(self).items() if key not in empty}

    @classmethod
    def from_json(cls, value: Json) -> "EnvSpec":
        """Read what `to_json` wrote.

        Raises:
            PlanetError: a field is missing, unknown or of another type; files of another version
                look like that.
        """
        try:
            spec = TypeAdapter(cls).validate_json(json.dumps(value))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "it"
            reason = first["msg"][0].lower() + first["msg"][1:]
            raise PlanetError(
                f"description of an environment: {name}: {reason}; "
                "read it with the version of planet_rssm that wrote it"
            ) from None
        for key, (shape, _) in spec.observation.items():
            if any(length < 0 for length in shape):
                raise PlanetError(f"{_OF}: observation {key!r} has shape {list(shape)}; {_OLDER}")
        if not _SHORTEST <= spec.control_interval <= 1 / _SHORTEST:  # seconds: films play at it
            raise PlanetError(f"{_OF}: control_interval = {spec.control_interval:g}; {_OLDER}")
        return spec


def chosen(task: str, names: Sequence[str], drop: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the observations of `names` that env.drop and env.keys leave.

    They name an observation, or a Dict or Tuple that contains it.

    Raises:
        PlanetError: one that they name is not there.
    """
    for setting, wanted in (("drop", drop), ("keys", keys)):
        for name in wanted:
            if not any(_is_in(known, name) for known in names):
                known_names = nearest(name, names)
                raise PlanetError(
                    f"env.{setting} = {name!r}: {task} has no such observation{known_names}"
                )
    return [
        name
        for name in names
        if not any(_is_in(name, left) for left in drop)
        and (not keys or any(_is_in(name, key) for key in keys))
    ]


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def require_same_environment(trained: EnvSpec, now: EnvSpec) -> EnvSpec:
    """Return `now`, if it is the environment of the training.

    Another version of the simulator costs a warning.

    Raises:
        PlanetError: the environments differ in anything else.
    """
    if now.simulator != trained.simulator:
        _log.warning(
            "trained with %s, planning with %s: returns may differ; "
            "compare them under one version only",
            trained.simulator,
            now.simulator,
        )
    if name := trained.differs(now, ignoring=("simulator",)):
        raise PlanetError(
            f"{trained.id}: the run was trained with {name} = {getattr(trained, name)}, "
            f"here it is {getattr(now, name)}; "
            "plan with the versions that its run.json names, or train another run"
        )
    return now
