"""Which columns of a set are actions, rewards, ends and observations."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import nearest
from planet_rssm.datasets.foreign.source import Column, Source
from planet_rssm.datasets.foreign.wish import NONE, Wish

_ACTIONS = ("action", "actions")
_REWARDS = ("reward", "rewards", "next.reward")
_TERMINALS = ("is_terminal", "terminated", "terminal", "terminals", "discount")
# they say that an episode ended, not whether the task or its time did
_UNCLEAR = ("next.done", "done", "dones", "step_type")
_NEVER_OBSERVED = {
    *_ACTIONS, *_REWARDS, *_TERMINALS, *_UNCLEAR,
    "is_first", "is_last", "truncated", "reset", "timestamp", "frame_index", "episode_index",
    "index", "task_index", "step_idx", "ep_idx", "episode_idx", "stepid", "consec", "seed",
    "next.success", "next.truncated", "id",
    "render_time",
}  # fmt: skip
# of an agent, not of an environment: DreamerV3 keeps its latent state beside the steps
_OF_AN_AGENT = ("log_", "log/", "dyn/", "enc/", "dec/", "replay/")
_SMALLEST = 16  # pixels a side
_MOST = 4096  # numbers of a vector


class Roles(NamedTuple):
    """What each column is here; `reward` and `terminal` may be missing."""

    action: str
    reward: str | None
    terminal: str | None
    images: tuple[str, ...]
    vectors: tuple[str, ...]
    left_out: tuple[str, ...]
    guesses: tuple[str, ...]

    @property
    def observations(self) -> tuple[str, ...]:
        """All of them, by name."""
        return tuple(sorted((*self.images, *self.vectors)))


def roles_of(source: Source, wish: Wish) -> Roles:
    """Return the roles of a set's columns.

    Raises:
        PlanetError: there is no action or observation, no reward and the user did not say that
            there is none, or a name that the user gave is not there.
    """
    columns = source.columns
    action = _named(source, "--action", wish.action) or _first(columns, _ACTIONS)
    if action is None:
        raise PlanetError(
            f"{source.name}: which column are the actions? It has {', '.join(sorted(columns))}"
            f"{_unequal(source)}; name one by --action"
        )
    if 0 in columns[action].shape:
        raise PlanetError(f"{source.name}: {action} has no number in a row; name another: --action")
    reward = _named(source, "--reward", wish.reward) or _first(columns, _REWARDS)
    if reward is None and wish.reward != NONE:
        raise PlanetError(
            f"{source.name}: has no rewards{_unequal(source)}; name their column by --reward KEY, "
            "or give --reward none: all are 0, and a model of it plans to a goal image"
        )
    reward = None if wish.reward == NONE else reward
    terminal, guesses = _terminal(source, wish)
    used = {action, reward, terminal} - {None}
    images, vectors = _observations(source, wish, {str(key) for key in used})
    if not images and not vectors:
        raise PlanetError(
            f"{source.name}: none of its columns can be observed: {_listed(columns, columns)}; "
            "give another --observe or --key. An image has 1 or 3 channels and at least "
            f"{_SMALLEST} pixels a side"
        )
    left = set(columns) - used - {*images, *vectors}
    return Roles(action, reward, terminal, images, vectors, tuple(sorted(left)), tuple(guesses))


def is_image(column: Column) -> bool:
    """Return whether frames of a column are pictures: [H, W], or with 1 or 3 channels."""
    shape = column.shape
    if column.dtype.kind not in "uf" or len(shape) not in (2, 3):
        return False
    sides = shape if len(shape) == 2 else shape[:2] if shape[2] in (1, 3) else shape[1:]
    colours = len(shape) == 2 or shape[2] in (1, 3) or shape[0] in (1, 3)
    return colours and min(sides) >= _SMALLEST


def is_vector(column: Column) -> bool:
    """Return whether frames of a column are numbers: one, a row, or a small table."""
    few = len(column.shape) <= 2 and 0 < np.prod(column.shape, dtype=np.float64) <= _MOST
    return column.dtype.kind in "fiu" and bool(few) and not is_image(column)


def _terminal(source: Source, wish: Wish) -> tuple[str | None, list[str]]:
    """Return the column that says that the task ended, and what was guessed."""
    if wish.terminal == NONE:
        return None, []
    if given := _named(source, "--terminal", wish.terminal):
        return given, []
    if known := _first(source.columns, _TERMINALS):
        return known, []
    if unclear := _first(source.columns, _UNCLEAR):
        return None, [
            f"ends: {unclear} does not say whether the task or its time ended; taken as time, "
            f"--terminal {unclear} takes it as the task's end"
        ]
    return None, ["ends: no column says that the task ended; taken as time (--terminal KEY)"]


def _observations(
    source: Source, wish: Wish, used: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for option, names in (("--key", wish.keys), ("--drop", wish.drop)):
        for name in names:
            _named(source, option, name)
    wanted = wish.keys or [
        key
        for key in source.columns
        if key not in _NEVER_OBSERVED | used and not key.startswith(_OF_AN_AGENT)
    ]
    kept = sorted(set(wanted) - set(wish.drop))
    images = tuple(key for key in kept if is_image(source.columns[key]))
    vectors = tuple(key for key in kept if is_vector(source.columns[key]))
    for key in wish.keys:
        if key in kept and key not in (*images, *vectors):
            raise PlanetError(
                f"--key {key}: {_listed(source.columns, [key])} is no image and no vector; "
                "leave it out"
            )
    return (
        () if wish.observe == "vectors" else images,
        () if wish.observe == "pixels" else vectors,
    )


def _named(source: Source, option: str, name: str | None) -> str | None:
    """Return a name that the user gave, if it is there."""
    if name is None or name == NONE:
        return None
    if name not in source.columns:
        raise PlanetError(
            f"{option} {name}: {source.name} has no such column"
            f"{_unequal(source)}{nearest(name, source.columns)}"
        )
    return name


def _unequal(source: Source) -> str:
    """Return which arrays were left out for their length, in words; a user looks for them."""
    names = ", ".join(sorted(source.unequal))
    return f" ({names}: not as long as the episode, so left out)" if names else ""


def _first(columns: Mapping[str, Column], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _listed(columns: Mapping[str, Column], keys: Iterable[str]) -> str:
    return ", ".join(
        f"{key} {np.dtype(columns[key].dtype)} {list(columns[key].shape)}" for key in sorted(keys)
    )
