"""One episode in memory and on disk, and how time is aligned in it.

    t            0     1     2    ...   T-1
    image[t]     o0    o1    o2        oT-1
    action[t]    0     a0    a1        aT-2     the action that LED to image[t]; zeros at is_first
    reward[t]    0     r0    r1        rT-2     the reward that CAME WITH image[t]; 0 at is_first
    is_first     1     0     0         0
    is_last      0     0     0         1        the episode ends here, for whatever reason
    is_terminal  0     0     0         0 or 1   the environment terminated it, not the time limit

`Transitions` is the same episode in Gymnasium and Minari order, one step shorter.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import safetensors
import safetensors.numpy

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import is_sealed, read_regular, sealed, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.data.header import PREFIX, DamagedFileError, Header, lay_out, parse_header

Array = np.ndarray
MOST = 1 << 34  # bytes that are read of an episode's file
# What every episode's info holds, and its types.
INFO = {"env": dict, "seed": int, "env_steps": int, "truncated": bool}


class Transitions(NamedTuple):
    """An episode in Gymnasium and Minari order.

    `observation[t]`, `action[t]` -> `reward[t]`, `observation[t + 1]`.
    """

    observation: dict[str, Array]  # [T+1, ...]
    action: Array  # [T, A]
    reward: Array  # [T]
    terminated: bool
    truncated: bool
    info: Json


@dataclass(frozen=True, eq=False)
class Episode:
    """A complete episode of T frames, aligned as drawn above.

    `observation` holds uint8 images [T, H, W, C] (0 to 255) and finite float32 vectors [T, N];
    `action` [T, A] and `reward` [T] are finite float32; the flags are bool [T]. `info` is a JSON
    object with at least `env` (an `EnvSpec` as JSON), `seed` (of the reset), `env_steps` (control
    steps, repeats included) and `truncated`; more may be added.

    Raises:
        PlanetError: an array of another dtype, rank or length, a value that is not finite, frames
            that are not aligned.
    """

    observation: dict[str, Array]
    action: Array
    reward: Array
    is_first: Array
    is_last: Array
    is_terminal: Array
    info: Json

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", _plain_info(self.info))
        _check_arrays(self)
        _check_alignment(self)

    def select_observations(self, keys: Iterable[str]) -> Self:
        """Return the same episode with the observations named `keys` alone."""
        return replace(self, observation={key: self.observation[key] for key in keys})

    @property
    def length(self) -> int:
        """T, in frames: one more than the agent steps."""
        return len(self.reward)

    @property
    def env_steps(self) -> int:
        """Simulator control steps, action repeats included."""
        return self.info["env_steps"]

    @property
    def seed(self) -> int:
        """The seed that the environment was reset with."""
        return self.info["seed"]

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of the rewards."""
        return float(self.reward.sum(dtype=np.float64))

    @classmethod
    def from_transitions(
        cls,
        observation: Mapping[str, Array],
        action: Array,
        reward: Array,
        terminated: bool,
        truncated: bool,
        info: Json,
    ) -> Self:
        """Align `Transitions`: T steps become T + 1 frames, the first without action and reward."""
        is_first, is_last, is_terminal = np.zeros((3, len(reward) + 1), bool)
        is_first[0], is_last[-1], is_terminal[-1] = True, True, terminated
        return cls(
            dict(observation),
            np.concatenate([np.zeros_like(action[:1]), action]),
            np.concatenate([np.zeros_like(reward[:1]), reward]),
            is_first,
            is_last,
            is_terminal,
            {**info, "truncated": bool(truncated)},
        )

    def to_transitions(self) -> Transitions:
        """Return the inverse of `from_transitions`."""
        return Transitions(
            self.observation,
            self.action[1:],
            self.reward[1:],
            terminated=bool(self.is_terminal[-1]),
            truncated=self.info["truncated"],
            info=self.info,
        )

    def to_bytes(self) -> bytes:
        """Return the safetensors file; equal episodes give equal bytes."""
        return b"".join(self._chunks())

    def header(self, path: Path) -> Header:
        """Return the header of its file, which is to be `path`, without the arrays' bytes.

        Raises:
            PlanetError: its arrays do not fit together.
        """
        start, arrays = self._laid_out()
        return parse_header(path, start, len(start) + sum(array.nbytes for array in arrays))

    def save(self, path: Path, *, sync_name: bool = True) -> None:
        """Write one safetensors file; see `files.write_atomic`."""
        write_atomic(path, self._chunks(), sync_name=sync_name)

    def _chunks(self) -> list[bytes | memoryview]:
        """Return the file in parts: no array is copied for it."""
        start, arrays = self._laid_out()
        rest = [array.reshape(-1).view(np.uint8).data for array in arrays]
        return [sealed(start, rest), *rest]

    def _laid_out(self) -> tuple[bytes, list[Array]]:
        described = {"frames": self.length, "return": self.episode_return, "info": self.info}
        return lay_out(self.arrays(), described)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: a PlanetError; the file is truncated, changed or not an episode.
            PlanetError: there is no such file, or it is of a newer format.
        """
        try:
            data = read_regular(path, MOST)
        except OSError as error:
            raise PlanetError(
                f"episode {path}: not readable ({error.strerror}); give a .safetensors file"
            ) from None
        return cls.from_bytes(data, path)

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Self:
        """Read what `to_bytes` gave; `path` names it in error lines.

        Raises:
            DamagedFileError: a PlanetError; it is truncated, changed or not an episode.
            PlanetError: it is of a newer format.
        """
        header = parse_header(path, data, len(data))
        if not is_sealed(io.BytesIO(data)):
            raise DamagedFileError(
                f"episode {path}: changed since it was written; collect it again or delete it"
            )
        try:
            arrays = safetensors.numpy.load(data)
            observation = {
                key.removeprefix(PREFIX): arrays.pop(key)
                for key in list(arrays)
                if key.startswith(PREFIX)
            }
            return cls(observation, **arrays, info=header.info)
        except (safetensors.SafetensorError, PlanetError, TypeError) as error:
            raise DamagedFileError(
                f"episode {path}: {error}; collect it again or delete it"
            ) from None

    def arrays(self) -> dict[str, Array]:
        """Return every array by the name that it has in the file."""
        named = {PREFIX + key: value for key, value in self.observation.items()}
        flags = {
            "is_first": self.is_first,
            "is_last": self.is_last,
            "is_terminal": self.is_terminal,
        }
        return {**named, "action": self.action, "reward": self.reward, **flags}


class EpisodeWriter:
    """Grows an episode step by step; it copies what it is given, which may then be overwritten."""

    def __init__(self, observation: Mapping[str, Array], info: Json) -> None:
        """Start with the reset's observation; `info` holds `env` and `seed`."""
        self._observations = {key: [np.array(value)] for key, value in observation.items()}
        self._actions: list[Array] = []
        self._rewards: list[float] = []
        self._info = dict(info)
        self._env_steps = 0
        self._ended = (False, False)

    def append(
        self,
        action: Array,
        observation: Mapping[str, Array],
        reward: float,
        terminated: bool,
        truncated: bool,
        env_steps: int,
    ) -> None:
        """Add one step: the executed `action` [A] and its outcome, `env_steps` control steps on."""
        if any(self._ended):
            raise ValueError("the episode has ended; start another writer")
        for key, values in self._observations.items():
            values.append(np.array(observation[key]))
        self._actions.append(np.array(action, np.float32))
        self._rewards.append(float(reward))
        self._env_steps += env_steps
        self._ended = (bool(terminated), bool(truncated))

    def finish(self) -> Episode:
        """Return the episode, which may end here only because its writer stopped.

        Raises:
            PlanetError: not a step was taken, or an array does not fit; see `Episode`.
        """
        if not self._rewards:
            raise PlanetError(
                "episode of one frame: at least one step is needed; let the environment step once"
            )
        observation = {key: np.stack(values) for key, values in self._observations.items()}
        reward = np.array(self._rewards, np.float32)
        terminated, truncated = self._ended
        return Episode.from_transitions(
            observation,
            np.stack(self._actions),
            reward,
            terminated,
            truncated,
            {**self._info, "env_steps": self._env_steps},
        )


def _plain_info(info: Json) -> Json:
    """Return `info` as JSON reads it back, so that an episode equals its file: lists, no tuples."""
    try:
        plain = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PlanetError(
            f"episode info: not JSON ({error}); give numbers, strings, lists and objects"
        ) from None
    for key, kind in INFO.items():
        if not isinstance(plain.get(key), kind):
            given = repr(plain.get(key))
            raise PlanetError(
                f"episode info[{key!r}] = {given}: must be {kind.__name__}; give {', '.join(INFO)}"
            )
    return plain


def _check_arrays(episode: Episode) -> None:
    frames = len(episode.reward)
    if frames < 2 or not episode.observation:
        raise PlanetError(
            f"episode of {frames} frames and {len(episode.observation)} observations: "
            "at least 2 and 1"
        )
    for key, value in episode.arrays().items():
        kinds = _kinds(key)
        if (value.dtype.name, value.ndim) not in kinds:
            allowed = " or ".join(f"{dtype} of rank {rank}" for dtype, rank in kinds)
            raise PlanetError(
                f"episode {key}: {value.dtype} of rank {value.ndim}, must be {allowed}; convert it"
            )
        if len(value) != frames:
            raise PlanetError(
                f"episode {key}: {len(value)} frames, reward has {frames}; give all the same length"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            frame = int(np.argwhere(~np.isfinite(value))[0][0])
            raise PlanetError(
                f"episode {key}: not finite at frame {frame}; "
                "drop the episode or fix the environment"
            )


def _kinds(key: str) -> tuple[tuple[str, int], ...]:
    """Return the allowed (dtype, rank) of an array, rank with the time axis."""
    if key.startswith(PREFIX):
        return ("uint8", 4), ("float32", 2)
    return {"action": (("float32", 2),), "reward": (("float32", 1),)}.get(key, (("bool", 1),))


def _check_alignment(episode: Episode) -> None:
    inner = np.arange(episode.length)
    expected = {
        "is_first must be set at frame 0 only": (episode.is_first == (inner == 0)).all(),
        "is_last must be set at the last frame only": (
            episode.is_last == (inner == episode.length - 1)
        ).all(),
        "is_terminal may be set at the last frame only": not episode.is_terminal[:-1].any(),
        "action must be 0 at frame 0": not episode.action[0].any(),
        "reward must be 0 at frame 0": episode.reward[0] == 0,
    }
    for rule, holds in expected.items():
        if not holds:
            raise PlanetError(
                f"episode of {episode.length} frames: {rule}; "
                "build it with Episode.from_transitions"
            )
