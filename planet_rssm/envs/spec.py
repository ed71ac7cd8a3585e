"""What a run needs to know of its environment once the environment is gone."""

from dataclasses import asdict, dataclass
from typing import Any


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

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EnvSpec":
        """Read what `to_json` wrote."""
        observation = {key: (tuple(shape), dtype) for key, (shape, dtype) in value["observation"].items()}
        return cls(**{**value, "observation": observation})
