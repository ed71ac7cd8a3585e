"""Sets of episodes from and to Minari (https://minari.farama.org), the exchange format of offline learning.

A Minari dataset holds what an environment gave and took, in its own units. Here it becomes what `envs.gym_env` would
have made of it: the same names of observations, actions in [-1, 1] or one-hot by group. What is exported is in our
units, without loss, and says so: importing it again gives the same episodes.
"""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.config import EnvSettings
from planet_rssm.data.episode import Episode
from planet_rssm.data.manifest import check_free
from planet_rssm.data.replay import Replay
from planet_rssm.envs.choices import from_places, places
from planet_rssm.envs.observer import Observer
from planet_rssm.envs.registry import make, resolve
from planet_rssm.envs.spaces import Actions, action_map
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.errors import PlanetError

Array = np.ndarray
INTERVAL = 1 / 30  # seconds a step, where the environment that would know cannot be made
OURS = "planet_rssm"  # key of what is told of an exported dataset, and of each of its episodes
CAPACITY = 2**53  # frames: all
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+", re.ASCII)
_log = logging.getLogger("planet_rssm")


def import_dataset(source: str, folder: Path, observe: str | None, size: int, download: bool) -> Replay:
    """Write the episodes of a Minari dataset, an id or its folder, into `folder`; return them.

    Args:
        source: id of a dataset, or the folder of one.
        folder: where the episodes are kept, without any before.
        observe: pixels, vectors or both, as far as the dataset has them; None: all that it has.
        size: pixels a side of its images.
        download: fetch the dataset if it is not on this machine.

    Raises:
        PlanetError: minari is missing or does not know the dataset, or the dataset holds what no episode here can.
    """
    check_free(folder)
    dataset = _load(source, download)
    told = dataset.storage.metadata.get(OURS)
    episodes = _foreign(dataset, observe, size) if told is None else _ours(dataset, EnvSpec.from_json(json.loads(told)))
    replay = Replay(folder, CAPACITY)
    try:
        for index, episode in enumerate(episodes):
            replay.add(episode, index)
        replay.commit()
    except BaseException as error:  # half a dataset looks like a whole one
        for path in folder.glob("*.safetensors"):
            path.unlink()
        if isinstance(error, OSError):
            raise PlanetError(f"--out {folder}: {error.strerror or error}; give another folder") from error
        if isinstance(error, ValueError):  # from the conversions of envs
            raise PlanetError(
                f"dataset {source}: episode {len(replay)}: {error}; leave it out of the dataset"
            ) from None
        raise
    if not len(replay):
        raise PlanetError(f"dataset {source}: has no episode; give another")
    return replay


def export_dataset(folder: Path, name: str) -> Path:
    """Write the episodes in `folder` as the Minari dataset `name` where Minari keeps its own; return its folder.

    Raises:
        PlanetError: minari is missing or refuses the name, there is such a dataset, or `folder` holds no episode.
    """
    minari = _minari()
    if not folder.is_dir():
        raise PlanetError(f"{folder}: no such folder; give one that `planet collect` wrote, or RUN/episodes")
    replay = Replay(folder, CAPACITY)
    if replay.env is None:
        raise PlanetError(f"{folder}: holds no episode; give one that `planet collect` wrote, or RUN/episodes")
    spec = EnvSpec.from_json(replay.env)
    loaded = (Episode.load(folder / entry.file) for entry in replay.episodes)
    first = next(loaded)
    if not _ID.fullmatch(name):
        raise PlanetError(f"dataset {name}: not an ID of Minari; give one like walker/random-v0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a published dataset should tell of its author
            dataset = minari.create_dataset_from_buffers(
                name, [_buffer(first, spec)], **_spaces(spec), data_format="hdf5", jpeg_encoding=False
            )
    except (ValueError, OSError) as error:  # there is one of that name
        raise PlanetError(f"dataset {name}: {error}") from None
    root = Path(dataset.storage.data_path).parent
    try:
        infos = [first.info]
        for episode in loaded:
            dataset.update_dataset_from_buffer([_buffer(episode, spec)])
            infos.append(episode.info)
        dataset.storage.update_episode_metadata([{OURS: json.dumps(info)} for info in infos], range(len(infos)))
        dataset.storage.update_metadata({OURS: json.dumps(spec.to_json())})
    except BaseException:  # half a dataset looks like a whole one
        shutil.rmtree(root, ignore_errors=True)
        raise
    return root


def _minari() -> Any:  # noqa: ANN401 (an extra)
    try:
        import h5py  # noqa: F401 (minari's storage needs it, and says so late)
        import minari
    except ModuleNotFoundError as error:
        raise PlanetError(f"{error.name} is not installed; pip install 'planet-rssm[minari]'") from None
    return minari


def _load(source: str, download: bool) -> Any:  # noqa: ANN401
    minari = _minari()
    folders = [path for path in (Path(source), Path(source) / "data") if (path / "metadata.json").is_file()]
    try:
        return minari.MinariDataset(folders[0]) if folders else minari.load_dataset(source, download)
    except FileNotFoundError:
        raise PlanetError(f"dataset {source}: not on this machine; add --download, or give its folder") from None
    except ImportError as error:  # of what it needs to download, or for another file format
        raise PlanetError(f"dataset {source}: {' '.join(str(error).split())}") from error
    except Exception as error:  # its storage, its spaces and its remotes raise whatever their libraries do
        raise PlanetError(f"dataset {source}: {' '.join(str(error).split())}; give another") from error


def _ours(dataset: Any, spec: EnvSpec) -> Iterator[Episode]:  # noqa: ANN401
    """Return the episodes of an exported dataset, as they were."""
    infos = dataset.storage.get_episode_metadata(dataset.episode_indices)
    for data, told in zip(dataset.iterate_episodes(), infos, strict=True):
        action = from_places(data.actions.reshape(len(data.actions), -1), spec.groups) if spec.groups else data.actions
        ends = bool(data.terminations[-1]), bool(data.truncations[-1])
        info = json.loads(told[OURS])
        yield Episode.from_transitions(data.observations, action, data.rewards.astype(np.float32), *ends, info)


def _foreign(dataset: Any, observe: str | None, size: int) -> Iterator[Episode]:  # noqa: ANN401
    """Return the episodes of anybody's dataset, in our units."""
    observer = _observer(dataset, observe, size)
    actions = action_map(dataset.id, dataset.action_space)
    spec = _spec(dataset, observer, actions, size)
    clipped = 0
    for data in dataset.iterate_episodes():
        steps = len(data.rewards)
        seen = [observer(_at(data.observations, time), None) for time in range(steps + 1)]
        observation = {key: np.stack([shown[key] for shown in seen]) for key in spec.observation}
        action = actions.inverse(data.actions)
        clipped += int((np.abs(action) > 1 + 1e-5).any(1).sum())
        seed = next(iter(dataset.storage.get_episode_metadata([data.id]))).get("seed")
        info = {"env": spec.to_json(), "seed": int(seed or 0), "env_steps": steps, "dataset": dataset.id}
        if np.any(data.terminations[:-1]) or np.any(data.truncations[:-1]):
            raise ValueError("goes on after its end")
        ends = bool(data.terminations[-1]), bool(data.truncations[-1])
        action = np.clip(action, -1, 1)
        yield Episode.from_transitions(observation, action, np.asarray(data.rewards, np.float32), *ends, info)
    if clipped:
        _log.warning("dataset %s: %d actions lay beyond their bounds and are clipped to them", dataset.id, clipped)


def _at(observations: Any, time: int) -> Any:  # noqa: ANN401 (as nested as the space)
    """Return one time's observation of an episode, whose every leaf has a time axis."""
    if isinstance(observations, dict):
        return {key: _at(part, time) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, time) for part in observations)
    return observations[time]


def _observer(dataset: Any, observe: str | None, size: int) -> Observer:  # noqa: ANN401
    """Return what takes in the dataset's observations; without a wish, all of them if that can be."""
    refusal = PlanetError(f"dataset {dataset.id}: holds no image; import it with --observe vectors")
    for choice in (observe,) if observe else ("both", "vectors", "pixels"):
        try:
            observer = Observer(dataset.id, dataset.observation_space, choice, size)
        except PlanetError as error:
            refusal = error
            continue
        if not observer.draws:
            return observer
    raise refusal


def _spec(dataset: Any, observer: Observer, actions: Actions, size: int) -> EnvSpec:  # noqa: ANN401
    """Return the environment as it is here if it can be made and is seen alike, else as far as the dataset tells."""
    made, known = dataset.env_spec, {key for key, (shape, _) in observer.spec.items() if len(shape) == 3}
    # With arguments of its own, gym/ID alone would be another environment.
    whole = made is not None and not made.kwargs.keys() - {"render_mode"}
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
    wanted = {"id": told.id, "observe": observe, "size": size, "time_limit": limit}
    try:
        env = make(resolve(EnvSettings.model_validate(wanted)))
    except PlanetError as error:
        _log.info("dataset %s: its environment is not here, %s", dataset.id, error)
        return told
    env.close()
    here = replace(env.env_spec, simulator=told.simulator)
    if (here.observation, here.action_size, here.groups) == (told.observation, told.action_size, told.groups):
        return here
    _log.info("dataset %s: %s is another environment here, seen or acted in otherwise", dataset.id, told.id)
    return told


def _spaces(spec: EnvSpec) -> dict[str, Space[Any]]:
    """Return the spaces of our units."""
    bounds = {"uint8": (0, 255), "float32": (-np.inf, np.inf)}
    seen: dict[str, Space[Any]] = {
        key: spaces.Box(*bounds[dtype], shape, np.dtype(dtype).type) for key, (shape, dtype) in spec.observation.items()
    }
    action: Space[Any] = spaces.Box(-1, 1, (spec.action_size,), np.float32)
    if spec.groups:
        action = spaces.MultiDiscrete(list(spec.groups)) if len(spec.groups) > 1 else spaces.Discrete(spec.action_size)
    return {"observation_space": spaces.Dict(seen), "action_space": action}


def _buffer(episode: Episode, spec: EnvSpec) -> Any:  # noqa: ANN401
    from minari.data_collector import EpisodeBuffer

    held = episode.to_transitions()
    terminations, truncations = np.zeros((2, len(held.reward)), bool)
    terminations[-1], truncations[-1] = held.terminated, held.truncated
    return EpisodeBuffer(
        seed=episode.seed,
        observations=held.observation,
        actions=_chosen(held.action, spec) if spec.groups else held.action,
        rewards=held.reward,
        terminations=terminations,
        truncations=truncations,
        infos={},
    )


def _chosen(action: Array, spec: EnvSpec) -> Array:
    """Return the choices of actions [T, A] as Minari keeps them: [T], or [T, G] of several groups."""
    chosen = places(action, spec.groups)
    return chosen if len(spec.groups) > 1 else chosen[:, 0]
