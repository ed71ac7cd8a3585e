"""Episodes of Minari datasets in our terms."""

import json
import logging
import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.envs import registration

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.trust import require
from planet_rssm.config import EnvSettings
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.minari.conversion import Wish, actions_of, observer_of
from planet_rssm.datasets.minari.library import OURS, reading
from planet_rssm.envs.choices import from_places
from planet_rssm.envs.make import make
from planet_rssm.envs.observer import Observer
from planet_rssm.envs.registry import MINARI, resolve
from planet_rssm.envs.spaces import Actions
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.envs.subspaces import subspaces_of

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset

INTERVAL = 1 / 30  # seconds a step, where the environment that would know cannot be made
_log = logging.getLogger("planet_rssm")


class Ours:
    """The episodes of an exported dataset, as they were."""

    def __init__(self, dataset: "MinariDataset", spec: EnvSpec) -> None:
        self.name = dataset.id
        self._dataset = dataset
        self.spec = spec

    def episode(self, index: int) -> Episode:
        """Return one episode."""
        with reading(self.name):
            data = self._dataset[index]
        groups = self.spec.groups
        metadata = next(iter(self._dataset.storage.get_episode_metadata([data.id])))
        action = (
            from_places(data.actions.reshape(len(data.actions), -1), groups)
            if groups
            else data.actions
        )
        return Episode.from_transitions(
            data.observations,
            action,
            data.rewards.astype(np.float32),
            terminated=bool(data.terminations[-1]),
            truncated=bool(data.truncations[-1]),
            info=json.loads(metadata[OURS]),
        )

    def takable(self) -> list[int]:
        """Return the indices of the episodes that can be taken: all."""
        return list(range(len(self._dataset)))

    def report(self) -> None:
        """Log nothing: everything is as in the dataset."""


class Foreign:
    """The episodes of anybody's dataset, in our units."""

    def __init__(self, dataset: "MinariDataset", wish: Wish) -> None:
        self.name = dataset.id
        self._dataset = dataset
        self._observer = observer_of(dataset, wish)
        with reading(dataset.id):  # both look at all episodes
            self._actions = actions_of(dataset, wish.scale_actions)
            self.spec = _spec(dataset, self._observer, self._actions, wish)
        self._clipped = self._short = self._taken = 0
        if _is_jpeg(dataset, self._observer.spec):
            _log.warning(
                "dataset %s: its images were stored as JPEG, so they are not the bytes that the "
                "environment gave; small and noisy things differ most",
                dataset.id,
            )

    def takable(self) -> list[int]:
        """Return the indices of the episodes that can be taken; log how many cannot, and why.

        Raises:
            PlanetError: there is none.
        """
        taken = []
        first = ""
        for index in range(len(self._dataset)):
            try:
                self.episode(index)
                taken.append(index)
            except ValueError as error:
                first = first or f"episode {index}: {error}"
        self._clipped = self._short = self._taken = 0
        if not taken:
            raise PlanetError(f"dataset {self.name}: no episode of it can be taken; {first}")
        if first:
            _log.warning(
                "dataset %s: %d of its %d episodes cannot be taken and are left out, "
                "the first is %s",
                self.name,
                len(self._dataset) - len(taken),
                len(self._dataset),
                first,
            )
        return taken

    def episode(self, index: int) -> Episode:
        """Return one episode.

        Raises:
            ValueError: it is not complete, or a part does not fit its space.
        """
        with reading(self.name):
            data = self._dataset[index]
        spec = self.spec
        steps = self._steps(data)
        frames = [self._observer(_at(data.observations, time), None) for time in range(steps + 1)]
        observation = {key: np.stack([frame[key] for frame in frames]) for key in spec.observation}
        action = self._actions.inverse(_until(data.actions, steps))
        seed = next(iter(self._dataset.storage.get_episode_metadata([data.id]))).get("seed")
        info = {
            "env": spec.to_json(),
            "seed": int(seed or 0),
            "env_steps": steps,
            "dataset": self.name,
        }
        if np.any(data.terminations[:-1]) or np.any(data.truncations[:-1]):
            raise ValueError("continues after its end")
        # else it is not known how the last step that is taken ended
        complete = steps == len(data.rewards)
        try:
            episode = Episode.from_transitions(
                observation,
                np.clip(action, -1, 1),
                np.asarray(data.rewards[:steps], np.float32).reshape(steps),
                terminated=complete and bool(data.terminations[-1]),
                truncated=not complete or bool(data.truncations[-1]),
                info=info,
            )
        except PlanetError as error:  # what it advises is no advice for a dataset
            raise ValueError(str(error).partition(";")[0]) from None
        self._clipped += int((np.abs(action) > 1 + 1e-5).any(1).sum())
        self._short += not complete
        self._taken += steps
        return episode

    def report(self) -> None:
        """Log what was changed on the way from the dataset."""
        if self._clipped:
            _log.warning(
                "dataset %s: %d actions lay beyond their bounds and are clipped to them, of %d",
                self.name,
                self._clipped,
                self._taken,
            )
        if self._short:
            _log.warning(
                "dataset %s: %d episodes have as many observations as actions: what the last "
                "action led to is not there, so the last action, its reward and its end are left "
                "out",
                self.name,
                self._short,
            )

    def _steps(self, data: "EpisodeData") -> int:
        """Return how many steps of an episode can be taken: those whose outcome was observed."""
        space, acted = self._dataset.observation_space, self._dataset.action_space
        kept = [part for part in subspaces_of(space) if part.name in self._observer.spec]
        shown = {len(part.of(data.observations)) for part in kept}
        done = {len(part.of(data.actions)) for part in subspaces_of(acted)}
        rewards = np.shape(data.rewards)
        steps = rewards[0]
        if done != {steps} or not shown <= {steps, steps + 1}:
            raise ValueError(
                f"{_either(shown)} observations, {_either(done)} actions and {steps} rewards "
                "do not fit together"
            )
        if math.prod(rewards) != steps:
            raise ValueError(f"has rewards of shape {list(rewards)}, must be one number a step")
        if min(shown) < 2:
            raise ValueError("has not one step")
        return min(shown) - 1


def _either(lengths: set[int]) -> str:
    return " or ".join(map(str, sorted(lengths)))


def _until(actions: Any, steps: int) -> Any:  # noqa: ANN401 (as nested as the space)
    """Return the first `steps` actions of an episode."""
    if isinstance(actions, dict):
        return {key: _until(part, steps) for key, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(_until(part, steps) for part in actions)
    return actions[:steps]


def _at(observations: Any, time: int) -> Any:  # noqa: ANN401 (as nested as the space)
    """Return one time's observation of an episode, whose every leaf has a time axis.

    A leaf that is left out may be shorter.
    """
    if isinstance(observations, dict):
        return {key: _at(part, time) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, time) for part in observations)
    return observations[time] if time < len(observations) else None


def _is_jpeg(dataset: "MinariDataset", observed: Collection[str]) -> bool:
    """Return whether Minari stores one of the `observed` images as JPEG, its default."""
    try:
        from minari.dataset.minari_storage import is_image_space
    except ImportError:  # older than the setting
        return False
    images = {
        part.name for part in subspaces_of(dataset.observation_space) if is_image_space(part.space)
    }
    encoded = bool(getattr(dataset.storage, "jpeg_encoding", False))
    return encoded and not images.isdisjoint(observed)


def _spec(
    dataset: "MinariDataset",
    observer: Observer,
    actions: Actions,
    wish: Wish,
) -> EnvSpec:
    """Return the spec of the environment made here, if it is the dataset's; else the dataset's."""
    made = dataset.env_spec
    images = {key for key, (shape, _) in observer.spec.items() if len(shape) == 3}
    kwargs = None if made is None or wish.scale_actions else _arguments(made)
    observe = "vectors" if not images else "pixels" if images == observer.spec.keys() else "both"
    limit = made.max_episode_steps if made is not None else None
    recorded = EnvSpec(
        id=f"gym/{MINARI}{dataset.id}" if kwargs is None else _id(made),
        observation=observer.spec,
        action_size=actions.size,
        action_repeat=1,
        control_interval=INTERVAL,
        episode_steps=limit or max(len(data) for data in dataset.iterate_episodes()),
        renderer="own" if images else "none",
        simulator=f"minari {dataset.id}",
        discrete=bool(actions.groups),
        terminates=True,
        interval_from="default",
        groups=actions.groups,
        kwargs=kwargs or {},
    )
    if kwargs is None:
        return recorded
    wanted: dict[str, object] = {
        "id": recorded.id,
        "observe": observe,
        "size": wish.size,
        "time_limit": limit,
        "kwargs": kwargs,
    }
    wanted |= {"drop": wish.drop} if wish.drop else {}
    try:
        # its id may name a module, which would be imported
        require({"env.id": recorded.id}, f"dataset {dataset.id}")
        env = make(resolve(EnvSettings.model_validate(wanted)))
    except PlanetError as error:
        _log.info("dataset %s: its environment is not here, %s", dataset.id, error)
        return recorded
    env.close()
    here = replace(env.env_spec, simulator=recorded.simulator)
    if (here.observation, here.action_size, here.groups) == (
        recorded.observation,
        recorded.action_size,
        recorded.groups,
    ):
        return here
    _log.info(
        "dataset %s: %s is another environment here, with other observations or actions",
        dataset.id,
        recorded.id,
    )
    return recorded


def _arguments(made: registration.EnvSpec) -> dict[str, object] | None:
    """Return what an environment was made with, None if no settings can hold that."""
    given = {key: value for key, value in made.kwargs.items() if key != "render_mode"}
    try:
        return EnvSettings(kwargs=given).kwargs
    except ValueError:
        return None


def _id(made: registration.EnvSpec) -> str:
    """Return our id of an environment: with its package where that is not yet imported."""
    entry = made.entry_point if isinstance(made.entry_point, str) else ""
    package = entry.partition(":")[0].partition(".")[0]
    known = made.id in registration.registry or package in ("", "__main__")
    return f"gym/{made.id}" if known else f"gym/{package}:{made.id}"
