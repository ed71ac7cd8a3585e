"""What of a Minari dataset's spaces is taken, and how it becomes ours."""

import logging
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.observer import Observer, Spelling
from planet_rssm.envs.pictures import UNBOUNDED, is_picture
from planet_rssm.envs.spaces import Actions, action_map
from planet_rssm.envs.spec import chosen
from planet_rssm.envs.subspaces import Subspace, is_empty, subspaces_of

if TYPE_CHECKING:
    from minari import MinariDataset

SPELLING = Spelling(
    lambda names: " ".join(f"--drop {shlex.quote(name)}" for name in names), "--observe {}", False
)
WRAP = "give as env.id=module:Class a wrapper of your own"
REMAKE = "make a dataset of it"
_log = logging.getLogger("planet_rssm")


class Wish(NamedTuple):
    """What is taken of a dataset, and how."""

    # pixels, vectors or both, as far as the dataset has them; None: all that it has
    observe: str | None
    size: int  # pixels a side of its images
    drop: tuple[str, ...]  # names of observations that are left out
    # actions without bounds become [-1, 1] by the least and greatest of the data
    scale_actions: bool


def actions_of(dataset: "MinariDataset", scale: bool) -> Actions:
    """Return what turns the dataset's actions into ours.

    Raises:
        PlanetError: actions of a kind that no environment here takes, or numbers without bounds
            that are not to be scaled.
    """
    space = dataset.action_space
    unbounded = [part for part in subspaces_of(space) if _is_unbounded(part.space)]
    bounded = space
    for part in unbounded:  # with any bounds: is the rest as it can be taken?
        bounded = _replaced(bounded, part.path, spaces.Box(-1, 1, part.space.shape or ()))
    try:
        actions = action_map(dataset.id, bounded)
    except PlanetError as error:
        raise PlanetError(_as_dataset(dataset, error)) from None
    for part in unbounded:
        its = f"its actions {part.name}" if part.path else "its actions"
        if not scale:
            raise PlanetError(
                f"dataset {dataset.id}: {its}, {part.space}, have no bounds or are bounded on one "
                "side; add --scale-actions: the least and greatest of its data become -1 and 1"
            )
        space = _replaced(space, part.path, _measured(dataset, part, its))
    return action_map(dataset.id, space) if unbounded else actions


def _is_unbounded(space: Space[object]) -> bool:
    """Return whether it holds numbers, not all of them between two bounds."""
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return False
    return not (np.abs([space.low, space.high]) <= UNBOUNDED).all()


def _replaced(
    space: Space[object], path: Sequence[str | int], part: Space[object]
) -> Space[object]:
    """Return a space like `space` with `part` where `path` leads to."""
    if not path:
        return part
    if isinstance(space, spaces.Dict):
        return spaces.Dict(
            {
                key: _replaced(one, path[1:], part) if key == path[0] else one
                for key, one in space.items()
            }
        )
    assert isinstance(space, spaces.Tuple)  # for the type checker
    return spaces.Tuple(
        _replaced(one, path[1:], part) if index == path[0] else one
        for index, one in enumerate(space)
    )


def _as_dataset(dataset: "MinariDataset", error: PlanetError) -> str:
    """Return the line about an environment as one about a dataset, which cannot be wrapped."""
    line = re.sub(f", or {WRAP} .*", "", str(error)).replace(WRAP, REMAKE)
    for theirs, ours in {
        f"env.id = {dataset.id!r}": f"dataset {dataset.id}",
        "env.drop": "--drop",
        "env.observe": "--observe",
        "take its frame-stacking wrapper off, the model has a memory of its own": f"{REMAKE} "
        "without the stack",
        "declare its pixels' bounds in observation_space": f"{REMAKE} that declares its bounds",
    }.items():
        line = line.replace(theirs, ours)
    return line


def _measured(dataset: "MinariDataset", part: Subspace, its: str) -> spaces.Box:
    """Return a part of the actions' space with the least and greatest of the data as its bounds."""
    space = part.space
    assert isinstance(space, spaces.Box)  # for the type checker
    low, high = np.full(space.shape, np.inf), np.full(space.shape, -np.inf)
    for data in dataset.iterate_episodes():
        acted = part.of(data.actions)
        low, high = np.minimum(low, acted.min(0)), np.maximum(high, acted.max(0))
    if not np.isfinite([low, high]).all():
        raise PlanetError(
            f"dataset {dataset.id}: has actions that are NaN or infinite; {REMAKE} without them"
        )
    bounded = np.abs([space.low, space.high]).max(0) <= UNBOUNDED  # these keep their own
    low, high = np.where(bounded, space.low, low), np.where(bounded, space.high, high)
    _log.warning(
        "dataset %s: %s have no bounds; [-1, 1] stands for %s to %s, the least and greatest of its "
        "data",
        dataset.id,
        its,
        low.tolist(),
        high.tolist(),
    )
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def observer_of(dataset: "MinariDataset", wish: Wish) -> Observer:
    """Return what takes in the dataset's observations; without a wish, all of them.

    Raises:
        PlanetError: one of them cannot be taken; the line says how it is left out.
    """
    try:
        observer = Observer(
            dataset.id,
            dataset.observation_space,
            wish.observe or _kinds(dataset, wish.drop),
            wish.size,
            wish.drop,
            spelling=SPELLING,
        )
    except PlanetError as error:
        raise PlanetError(_as_dataset(dataset, error)) from None
    if observer.draws:
        raise PlanetError(f"dataset {dataset.id}: holds no image; import it with --observe vectors")
    return observer


def _kinds(dataset: "MinariDataset", drop: Sequence[str]) -> str:
    """Return pixels, vectors or both, whatever there is beside what is left out."""
    parts = {part.name: part.space for part in subspaces_of(dataset.observation_space)}
    kept = [parts[name] for name in chosen(dataset.id, list(parts), drop, ())]
    pictures = [space for space in kept if is_picture(space)]
    others = [space for space in kept if not is_picture(space) and not is_empty(space)]
    return "both" if pictures and others else "pixels" if pictures else "vectors"
