"""Episodes of Minari datasets in our terms."""

import json
import logging
import re
import shlex
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.trust import require
from planet_rssm.config import EnvSettings
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.minari.library import OURS
from planet_rssm.envs.choices import from_places
from planet_rssm.envs.make import make
from planet_rssm.envs.observer import Observer, Spelling
from planet_rssm.envs.pictures import UNBOUNDED
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spaces import Actions, action_map
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.envs.subspaces import subspaces_of

INTERVAL = 1 / 30  # seconds a step, where the environment that would know cannot be made
SPELLING = Spelling(
    lambda names: " ".join(f"--drop {shlex.quote(name)}" for name in names), "--observe {}"
)
_log = logging.getLogger("planet_rssm")


class Wish(NamedTuple):
    """What is taken of a dataset, and how."""

    observe: (
        str | None
    )  # pixels, vectors or both, as far as the dataset has them; None: all that it has
    size: int  # pixels a side of its images
    drop: tuple[str, ...]  # names of observations that are left out
    scale_actions: (
        bool  # actions without bounds become [-1, 1] by the least and greatest of the data
    )


class Ours:
    """The episodes of an exported dataset, as they were."""

    def __init__(self, dataset: Any, spec: EnvSpec) -> None:  # noqa: ANN401
        self.name, self._dataset, self._spec = dataset.id, dataset, spec

    def episode(self, index: int) -> Episode:
        """Return one episode."""
        data, groups = self._dataset[index], self._spec.groups
        told = next(iter(self._dataset.storage.get_episode_metadata([data.id])))
        action = (
            from_places(data.actions.reshape(len(data.actions), -1), groups)
            if groups
            else data.actions
        )
        ends = bool(data.terminations[-1]), bool(data.truncations[-1])
        reward = data.rewards.astype(np.float32)
        return Episode.from_transitions(
            data.observations, action, reward, *ends, json.loads(told[OURS])
        )

    def tell(self) -> None:
        """Say nothing: nothing is otherwise."""


class Foreign:
    """The episodes of anybody's dataset, in our units."""

    def __init__(self, dataset: Any, wish: Wish) -> None:  # noqa: ANN401
        self.name, self._dataset = dataset.id, dataset
        self._observer = _observer(dataset, wish)
        self._actions = _actions(dataset, wish.scale_actions)
        self._spec = _spec(dataset, self._observer, self._actions, wish)
        self._clipped = self._short = self._taken = 0
        if _is_jpeg(dataset, self._observer.spec):
            _log.warning(
                "dataset %s: its images were stored as JPEG, so they are not the bytes that the environment gave; "
                "small and noisy things differ most", dataset.id,
            )  # fmt: skip

    def episode(self, index: int) -> Episode:
        """Return one episode.

        Raises:
            ValueError: it is not whole, or a part does not fit its space.
        """
        data, spec = self._dataset[index], self._spec
        steps = self._steps(data)
        seen = [self._observer(_at(data.observations, time), None) for time in range(steps + 1)]
        observation = {key: np.stack([shown[key] for shown in seen]) for key in spec.observation}
        action = self._actions.inverse(_until(data.actions, steps))
        self._clipped += int((np.abs(action) > 1 + 1e-5).any(1).sum())
        self._taken += steps
        seed = next(iter(self._dataset.storage.get_episode_metadata([data.id]))).get("seed")
        info = {
            "env": spec.to_json(),
            "seed": int(seed or 0),
            "env_steps": steps,
            "dataset": self.name,
        }
        if np.any(data.terminations[:-1]) or np.any(data.truncations[:-1]):
            raise ValueError("goes on after its end")
        whole = steps == len(
            data.rewards
        )  # else it is not known how the last step that is taken ended
        ends = whole and bool(data.terminations[-1]), not whole or bool(data.truncations[-1])
        reward = np.asarray(data.rewards[:steps], np.float32)
        return Episode.from_transitions(observation, np.clip(action, -1, 1), reward, *ends, info)

    def tell(self) -> None:
        """Say what was taken otherwise than it stands in the dataset."""
        if self._clipped:
            _log.warning("dataset %s: %d actions lay beyond their bounds and are clipped to them, of %d", self.name,
                         self._clipped, self._taken)  # fmt: skip
        if self._short:
            _log.warning(
                "dataset %s: %d episodes have as many observations as actions: what the last action led to is not "
                "there, so the last action, its reward and its end are left out", self.name, self._short,
            )  # fmt: skip

    def _steps(self, data: Any) -> int:  # noqa: ANN401
        """Return how many steps of an episode can be taken: those whose outcome was observed."""
        seen, steps = _length(data.observations), len(data.rewards)
        if _length(data.actions) != steps or seen not in (steps, steps + 1):
            raise ValueError(
                f"{seen} observations, {_length(data.actions)} actions and {steps} rewards do not fit together"
            )
        self._short += seen == steps
        if seen < 2:
            raise ValueError("has not one step")
        return seen - 1


def _length(parts: Any) -> int:  # noqa: ANN401 (as nested as the space)
    """Return how many times there are of an episode's observations or actions, by their first leaf."""
    while isinstance(parts, dict | tuple):
        parts = next(iter(parts.values() if isinstance(parts, dict) else parts))
    return len(parts)


def _until(actions: Any, steps: int) -> Any:  # noqa: ANN401 (as nested as the space)
    """Return the first so many actions of an episode."""
    if isinstance(actions, dict):
        return {key: _until(part, steps) for key, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(_until(part, steps) for part in actions)
    return actions[:steps]


def _at(observations: Any, time: int) -> Any:  # noqa: ANN401 (as nested as the space)
    """Return one time's observation of an episode, whose every leaf has a time axis."""
    if isinstance(observations, dict):
        return {key: _at(part, time) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, time) for part in observations)
    return observations[time]


def _is_jpeg(dataset: Any, seen: Collection[str]) -> bool:  # noqa: ANN401
    """Return whether Minari says that it stores images as JPEG, its default, and one of those is `seen`."""
    try:
        from minari.dataset.minari_storage import is_image_space
    except ImportError:  # older than the setting
        return False
    images = {
        part.name for part in subspaces_of(dataset.observation_space) if is_image_space(part.space)
    }
    return bool(getattr(dataset.storage, "jpeg_encoding", False)) and not images.isdisjoint(seen)


def _actions(dataset: Any, scale: bool) -> Actions:  # noqa: ANN401
    """Return what turns the dataset's actions into ours.

    Raises:
        PlanetError: actions of a kind that no environment here takes, or numbers without bounds
            that are not to be scaled.
    """
    space = dataset.action_space
    if isinstance(space, spaces.Box) and not (np.abs([space.low, space.high]) <= UNBOUNDED).all():
        if not scale:
            raise PlanetError(
                f"dataset {dataset.id}: its actions, {space}, have no bounds or are bounded on one side; add "
                "--scale-actions: the least and greatest of its data become -1 and 1"
            )
        space = _measured(dataset, space)
    try:
        return action_map(dataset.id, space)
    except PlanetError as error:
        raise PlanetError(_as_dataset(dataset, error)) from None


def _as_dataset(dataset: Any, error: PlanetError) -> str:  # noqa: ANN401
    """Return the line about an environment as one about a dataset, which no wrapper can be put around."""
    line = re.sub(r"[,;] (or )?give as env\.id=module:Class .*", "", str(error))
    return line.replace(f"env.id = {dataset.id!r}", f"dataset {dataset.id}")


def _measured(dataset: Any, space: spaces.Box) -> spaces.Box:  # noqa: ANN401
    """Return the space with the least and greatest actions of the data as its bounds."""
    low, high = np.full(space.shape, np.inf), np.full(space.shape, -np.inf)
    for data in dataset.iterate_episodes():
        low, high = np.minimum(low, data.actions.min(0)), np.maximum(high, data.actions.max(0))
    if not np.isfinite([low, high]).all():
        raise PlanetError(
            f"dataset {dataset.id}: has actions that are NaN or infinite; leave those episodes out"
        )
    bounded = np.abs([space.low, space.high]).max(0) <= UNBOUNDED  # these keep their own
    low, high = np.where(bounded, space.low, low), np.where(bounded, space.high, high)
    _log.warning("dataset %s: its actions have no bounds; [-1, 1] stands for %s to %s, the least and greatest of its "
                 "data", dataset.id, low.tolist(), high.tolist())  # fmt: skip
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def _observer(dataset: Any, wish: Wish) -> Observer:  # noqa: ANN401
    """Return what takes in the dataset's observations; without a wish, all of them if that can be."""
    refusals = []
    for choice in (wish.observe,) if wish.observe else ("both", "vectors", "pixels"):
        try:
            observer = Observer(
                dataset.id,
                dataset.observation_space,
                choice,
                wish.size,
                wish.drop,
                spelling=SPELLING,
            )
        except PlanetError as error:
            refusals.append(PlanetError(_as_dataset(dataset, error)))
            continue
        if not observer.draws:
            return observer
    raise (
        refusals
        or [PlanetError(f"dataset {dataset.id}: holds no image; import it with --observe vectors")]
    )[0]


def _spec(dataset: Any, observer: Observer, actions: Actions, wish: Wish) -> EnvSpec:  # noqa: ANN401
    """Return the environment as it is here if it can be made and is seen alike, else as far as the dataset tells."""
    made, known = (
        dataset.env_spec,
        {key for key, (shape, _) in observer.spec.items() if len(shape) == 3},
    )
    # With arguments of its own, gym/ID alone would be another environment.
    whole = made is not None and not made.kwargs.keys() - {"render_mode"} and not wish.scale_actions
    observe = "vectors" if not known else "pixels" if known == observer.spec.keys() else "both"
    limit = made.max_episode_steps if made is not None else None
    told = EnvSpec(
        id=f"gym/{made.id}" if whole else f"gym/minari/{dataset.id}",
        observation=observer.spec,
        action_size=actions.size,
        action_repeat=1,
        control_interval=INTERVAL,
        episode_steps=limit or max(len(data) for data in dataset.iterate_episodes()),
        renderer="own" if known else "none",
        simulator=f"minari {dataset.id}",
        discrete=bool(actions.groups),
        terminates=True,
        interval_from="default",
        groups=actions.groups,
    )
    if not whole:
        return told
    wanted: dict[str, Any] = {
        "id": told.id,
        "observe": observe,
        "size": wish.size,
        "time_limit": limit,
    }
    wanted |= {"drop": wish.drop} if wish.drop else {}
    try:
        require(
            {"env.id": told.id}, f"dataset {dataset.id}"
        )  # its id may name a module, which would be imported
        env = make(resolve(EnvSettings.model_validate(wanted)))
    except PlanetError as error:
        _log.info("dataset %s: its environment is not here, %s", dataset.id, error)
        return told
    env.close()
    here = replace(env.env_spec, simulator=told.simulator)
    if (here.observation, here.action_size, here.groups) == (
        told.observation,
        told.action_size,
        told.groups,
    ):
        return here
    _log.info(
        "dataset %s: %s is another environment here, seen or acted in otherwise",
        dataset.id,
        told.id,
    )
    return told
