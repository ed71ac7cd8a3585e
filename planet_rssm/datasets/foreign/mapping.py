"""One episode of another program as one of ours."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.foreign.columns import Roles, roles_of
from planet_rssm.datasets.foreign.ranges import ranges_of
from planet_rssm.datasets.foreign.source import ORDERS, Array, Order, Prepare, Source
from planet_rssm.datasets.foreign.wish import Wish
from planet_rssm.envs.choices import MOST
from planet_rssm.envs.pictures import all_resized, channels_last
from planet_rssm.envs.registry import IMPORTED
from planet_rssm.envs.spaces import action_map
from planet_rssm.envs.spec import EnvSpec

INTERVAL = 1 / 30  # seconds a row where nothing says it
_SLACK = 1e-5  # by which an action may lie beyond 1
_LARGEST = np.finfo(np.float32).max
_KEPT, _EMPTY = 64 << 20, 1 << 10  # bytes of numbers that are kept, and of an episode without any


class Mapping:
    """How the episodes of a set become ours; what each column is, was decided before."""

    def __init__(self, source: Source, wish: Wish) -> None:
        """Decide what each column is.

        Raises:
            PlanetError: see `roles_of`.
        """
        self.source = source
        self.wish = wish
        self.roles: Roles = roles_of(source, wish)
        self.order: Order = wish.order or source.order
        self.pictures = {key: _Pictures(source, key, wish.size) for key in self.roles.images}
        self.guesses = [*self.roles.guesses]
        if wish.fps is None and source.interval is None:
            self.guesses.append(f"rate: {1 / INTERVAL:g} rows a second (--fps)")
        self.interval = 1 / wish.fps if wish.fps else source.interval or INTERVAL
        roles = self.roles
        named = (roles.action, roles.reward, roles.terminal, *roles.vectors)
        self.numbers = tuple(key for key in named if key)  # columns without those of images
        self.ranges = ranges_of(self.numbers)
        self._kept: dict[int, dict[str, Array]] = {}  # numbers that need no second reading
        self._room = _KEPT
        self._actions: Callable[[Array], Array] | None = None
        self.scaled = False  # whether actions are
        self.spec: EnvSpec | None = None
        self._env: Json = {}  # the spec as each episode has it

    def cut(self, key: str, rows: Array) -> Array:
        """Return the rows of a column that are used: of actions and rewards one less than frames.

        See `source.ORDERS`.
        """
        is_action, is_reward = key == self.roles.action, key == self.roles.reward
        if not (is_action or is_reward):
            return rows
        if self.order == "arrived" or (self.order == "taken" and is_reward):
            return rows[1:]
        return rows if self.order == "step" and self.wish.end == "repeat" else rows[:-1]

    def look(self, index: int) -> None:
        """Take in the numbers of an episode, all but its images.

        Raises:
            ValueError: it is one that no episode here can hold.
            PlanetError: its file is damaged.
        """
        if self.source.lengths[index] < 2:
            raise ValueError(f"has {self.source.lengths[index]} frames, at least 2 are needed")
        data = self.source.read(index, dict.fromkeys(self.numbers))
        used = {key: self.cut(key, rows) for key, rows in data.items()}
        for key, rows in used.items():
            if rows.dtype.kind not in "fiub":
                raise ValueError(f"{key} is {rows.dtype}, must be numbers")
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                raise ValueError(f"{key} has NaN or infinity in it")
            if rows.dtype.kind == "f" and np.abs(rows).max(initial=0) > _LARGEST:
                raise ValueError(f"{key} has {np.abs(rows).max():g} in it, beyond float32")
            if key == self.roles.reward and rows.size != len(rows):
                raise ValueError(f"{key} has shape {list(rows.shape)}, must be one number a row")
        if not len(used[self.roles.action]):
            raise ValueError("has not one step")
        self._terminated(data)
        for key, rows in used.items():
            self.ranges[key].add(rows)
        self._room -= _EMPTY + sum(rows.nbytes for rows in data.values())
        if self._room >= 0:
            self._kept[index] = data

    def time_words(self) -> str:
        """Return how time is aligned in the files."""
        words = ORDERS[self.order]
        if self.order == "step":
            last = {
                "drop": "the last action of an episode is left out, for its frame is not there",
                "repeat": "the last frame of an episode is repeated after its last action",
            }
            return f"{words}; {last[self.wish.end]}"
        return words

    def settle(self) -> EnvSpec:
        """Decide, once all numbers were looked at, how actions become ours; return the spec.

        Raises:
            PlanetError: actions beyond [-1, 1] that are not to be scaled, or of no kind that is
                taken.
        """
        groups = self._settle_actions()
        column = self.source.columns[self.roles.action]
        size = sum(groups) if groups else int(np.prod(column.shape, dtype=np.int64))
        observation: dict[str, tuple[tuple[int, ...], str]] = {}
        for key in self.roles.observations:
            shape = self.source.columns[key].shape
            observation[_ours(key)] = (
                ((self.wish.size, self.wish.size, 3), "uint8")
                if key in self.roles.images
                else ((int(np.prod(shape, dtype=np.int64)),), "float32")
            )
        if len(observation) < len(self.roles.observations):
            raise PlanetError(
                f"{self.source.name}: two columns would have one name here, "
                f"{', '.join(self.roles.observations)}; leave one out by --drop"
            )
        repeat = self.wish.action_repeat
        self.spec = EnvSpec(
            id=f"gym/{IMPORTED}{_plain(self.source.name)}",
            observation=observation,
            action_size=size,
            action_repeat=repeat,
            control_interval=self.interval,
            episode_steps=max(self.source.lengths) * repeat,
            renderer="own" if self.roles.images else "none",
            simulator=f"{self.source.format} {_plain(self.source.name)}",
            discrete=bool(groups),
            terminates=self.roles.terminal is not None,
            interval_from=(
                "setting" if self.wish.fps else "dt" if self.source.interval else "default"
            ),
            groups=groups,
        )
        self._env = self.spec.to_json()
        return self.spec

    def episode(self, index: int) -> Episode:
        """Return an episode.

        Raises:
            ValueError: a part of it does not fit: not finite, or it continues after its end.
            PlanetError: its file is damaged.
        """
        assert self.spec is not None and self._actions is not None, "settle first"
        roles = self.roles
        data = self._kept.pop(index, {})
        wanted: dict[str, Prepare | None] = dict.fromkeys(
            key for key in self.numbers if key not in data
        )
        for key, made in self.pictures.items():
            wanted[key] = None if made.fits else made
        data |= self.source.read(index, wanted)
        observation = {_ours(key): self._observed(key, data[key]) for key in roles.observations}
        if self.order == "step" and self.wish.end == "repeat":
            observation = {
                key: np.concatenate([rows, rows[-1:]]) for key, rows in observation.items()
            }
        action = self._actions(self.cut(roles.action, data[roles.action]))
        steps = len(action)
        reward = np.zeros(steps, np.float32)
        if roles.reward:
            rows = self.cut(roles.reward, data[roles.reward])
            reward = rows.astype(np.float32).reshape(steps)
        terminated = self._terminated(data)
        try:
            return Episode.from_transitions(
                observation,
                action,
                reward,
                terminated=terminated,
                truncated=not terminated,
                info={
                    "env": self._env,
                    "seed": 0,
                    "env_steps": steps * self.wish.action_repeat,
                    "dataset": self.source.name,
                    "source": self.source.label(index),
                },
            )
        except PlanetError as error:  # what it advises is no advice for a set
            raise ValueError(str(error).partition(";")[0]) from None

    def _observed(self, key: str, rows: Array) -> Array:
        if key in self.roles.images:
            made = self.pictures[key]
            return made(rows) if made.fits else rows  # a film may be of another size than it says
        return rows.reshape(len(rows), -1).astype(np.float32)

    def _terminated(self, data: dict[str, Array]) -> bool:
        key = self.roles.terminal
        if key is None:
            return False
        rows = data[key].reshape(len(data[key]), -1)
        ended = (rows == 0).all(1) if "discount" in key else (rows != 0).any(1)
        if self.order == "step" and self.wish.end == "drop":
            ended = ended[:-1]
        if ended[:-1].any():
            raise ValueError(f"continues after its end, {key} is set at row {ended.argmax()}")
        # a step whose outcome is not there was left out, so it is not known how it ended
        return bool(ended[-1]) and not (self.order == "step" and self.wish.end == "drop")

    def _settle_actions(self) -> tuple[int, ...]:
        """Decide how actions become ours; return the groups of choices, () of numbers."""
        key, name = self.roles.action, self.source.name
        column, known = self.source.columns[key], self.ranges[key]
        if column.dtype.kind in "iub":
            space = self._choices(known.low, known.high)
            mapped = action_map(f"{name} {key}", space)
            self._actions = mapped.inverse
            return mapped.groups
        if self.wish.choices and not (known.one_hot and known.low.size == self.wish.choices):
            what = f"a single 1 of {known.low.size}" if known.one_hot else str(column.dtype)
            raise PlanetError(
                f"--choices {self.wish.choices}: {key} is {what}, not whole numbers; leave "
                "--choices out, or save the numbers of the choices as integers"
            )
        if known.one_hot:
            self.guesses.append(f"{key}: one-hot in every row, so they are choices")
            self._actions = _flat
            return (known.low.size,)
        if np.abs([known.low, known.high]).max() <= 1 + _SLACK:
            self._actions = lambda rows: np.clip(_flat(rows), -1, 1)
            return ()
        if not self.wish.scale_actions:
            raise PlanetError(
                f"{name}: {key} goes from {known.low.min():g} to {known.high.max():g}, beyond -1 "
                "to 1; add --scale-actions: the least and greatest of each number become -1 and 1"
            )
        bounds = spaces.Box(known.low.astype(np.float32), known.high.astype(np.float32))
        numbers = action_map(name, bounds)
        self.scaled = True
        self._actions = lambda rows: np.clip(numbers.inverse(rows), -1, 1)
        return ()

    def _choices(self, low: Array, high: Array) -> Space[object]:
        """Return the space of whole numbers, as many as the data or the user has."""
        if (low < 0).any():
            raise PlanetError(
                f"{self.source.name}: {self.roles.action} are whole numbers, some below 0; "
                "choices are counted from 0: save them so, or as floats where they are amounts"
            )
        counts = high.astype(np.int64) + 1
        if self.wish.choices:
            if counts.max() > self.wish.choices:
                raise PlanetError(
                    f"--choices {self.wish.choices}: {self.roles.action} goes up to "
                    f"{high.max():g}, so there are {counts.max()} or more; give that, or leave it "
                    "out"
                )
            counts = np.full_like(counts, self.wish.choices)
        else:
            self.guesses.append(
                f"{self.roles.action}: {', '.join(map(str, counts.tolist()))} choices, as many as "
                "the data has (--choices N)"
            )
        if counts.sum() > MOST:
            raise PlanetError(
                f"{self.source.name}: {self.roles.action} would be {counts.sum()} choices, at most "
                f"{MOST} are taken; save it as floats if it is an amount"
            )
        return spaces.Discrete(int(counts[0])) if counts.size == 1 else spaces.MultiDiscrete(counts)


class _Pictures:
    """Frames of a camera as uint8 [n, size, size, 3]: the filter is the environments' own."""

    def __init__(self, source: Source, key: str, size: int) -> None:
        self._name = f"{source.name}: {key}"
        self._size = size
        # whether frames are taken as they are, by what the set says of them
        self.fits = source.columns[key] == ((size, size, 3), np.uint8)
        # floats are 0 to 1 or 0 to 255, decided by the first block and checked in all others
        self.top = 255.0 if source.columns[key].dtype.kind == "u" else 0.0

    def __call__(self, frames: Array) -> Array:
        if frames.dtype != np.uint8:
            frames = self._bytes(frames)
        if frames.shape[1:] == (self._size, self._size, 3):
            return frames
        if frames.ndim != 4 or frames.shape[3] != 3:
            frames = np.stack([channels_last(frame) for frame in frames])
        return all_resized(frames, self._size)

    def _bytes(self, frames: Array) -> Array:
        if frames.dtype.kind == "u":
            raise ValueError(f"{self._name} is {frames.dtype}, must be uint8 or floats")
        low, high = float(frames.min()), float(frames.max())
        self.top = self.top or (1.0 if high <= 1.0 + _SLACK else 255.0)
        if not (low >= -_SLACK * self.top and high <= self.top * (1 + _SLACK)):
            raise ValueError(f"{self._name} goes from {low:g} to {high:g}, not 0 to {self.top:g}")
        return np.rint(frames * (255.0 / self.top)).clip(0, 255).astype(np.uint8)


def _flat(rows: Array) -> Array:
    return rows.reshape(len(rows), -1).astype(np.float32)


def _ours(key: str) -> str:
    """Return a column's name as an observation's: parts of it are named with dots here."""
    return key.removeprefix("observation.").replace("/", ".")


def _plain(name: str) -> str:
    """Return a name as it may stand in the id of an environment."""
    return re.sub(r"[^\w.-]+", "-", Path(name).resolve().name, flags=re.ASCII).strip("-") or "set"
