"""Export: a set of ours as a Minari dataset, which gets its name when it is complete."""

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import Space, spaces

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import scratch_folder, sync_file, sync_folder
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.minari.library import OURS, library
from planet_rssm.datasets.writing import CAPACITY
from planet_rssm.envs.choices import places
from planet_rssm.envs.spec import EnvSpec

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

HOME = "MINARI_DATASETS_PATH"  # the variable that says where Minari keeps its datasets
BESIDE = ".planet-export-"  # begins the name of a folder that is not complete yet
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+", re.ASCII)


def export_dataset(folder: Path, name: str) -> Path:
    """Write the episodes in `folder` as the Minari dataset `name`; return its folder.

    That is where Minari keeps its own. It is written in a hidden folder beside and named when it is
    complete.

    Raises:
        PlanetError: minari is missing or refuses the name, there is such a dataset, or `folder`
            holds no episode.
    """
    minari = library()
    if not folder.is_dir():
        raise PlanetError(f"{folder}: {episode_set.no_folder(folder)}")
    replay = Replay(folder, CAPACITY)
    if replay.env is None:
        raise PlanetError(f"{folder}: {episode_set.no_episode(folder)}")
    if not _ID.fullmatch(name):
        raise PlanetError(f"dataset {name}: not an ID of Minari; give one like walker/random-v0")
    home = minari.storage.get_dataset_path()
    target = home / name
    if target.exists():
        raise PlanetError(
            f"dataset {name}: already exists, in {target}; give another name, or delete it"
        )
    try:
        with scratch_folder(home, BESIDE) as beside, _home(beside):
            _export(minari, replay, name)
            _settle(beside, home, name)
    except (ValueError, OSError) as error:
        raise PlanetError(f"dataset {name}: {getattr(error, 'strerror', None) or error}") from None
    return target


def _export(minari: ModuleType, replay: Replay, name: str) -> None:
    """Write all episodes as a dataset where Minari keeps its own just now."""
    spec = EnvSpec.from_json(replay.env or {})
    loaded = (Episode.load(replay.folder / entry.file) for entry in replay.episodes)
    first = next(loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a published dataset should name its author
        dataset = minari.create_dataset_from_buffers(
            name, [_buffer(first, spec)], **_spaces(spec), data_format="hdf5", jpeg_encoding=False
        )
    infos = [first.info]
    for episode in loaded:
        dataset.update_dataset_from_buffer([_buffer(episode, spec)])
        infos.append(episode.info)
    dataset.storage.update_episode_metadata(
        [{OURS: json.dumps(info)} for info in infos], range(len(infos))
    )
    dataset.storage.update_metadata({OURS: json.dumps(spec.to_json())})


def _settle(beside: Path, home: Path, name: str) -> None:
    """Give the complete dataset its name, and its namespace what Minari keeps of that."""
    for path in beside.rglob("*"):
        if path.is_file():
            sync_file(path)
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    for written in beside.rglob("namespace_metadata.json"):
        if not (kept := home / written.relative_to(beside)).exists():
            os.replace(written, kept)
    os.rename(beside / name, home / name)
    sync_folder((home / name).parent)


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Let Minari keep its datasets in `folder`."""
    before = os.environ.get(HOME)
    os.environ[HOME] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(HOME)
        if before is not None:
            os.environ[HOME] = before


def _spaces(spec: EnvSpec) -> dict[str, Space[object]]:
    """Return the spaces of our units."""
    bounds = {"uint8": (0, 255), "float32": (-np.inf, np.inf)}
    observation: dict[str, Space[object]] = {
        key: spaces.Box(*bounds[dtype], shape, np.dtype(dtype).type)
        for key, (shape, dtype) in spec.observation.items()
    }
    action: Space[object] = spaces.Box(-1, 1, (spec.action_size,), np.float32)
    if spec.groups:
        action = (
            spaces.MultiDiscrete(list(spec.groups))
            if len(spec.groups) > 1
            else spaces.Discrete(spec.action_size)
        )
    return {"observation_space": spaces.Dict(observation), "action_space": action}


def _buffer(episode: Episode, spec: EnvSpec) -> "EpisodeBuffer":
    from minari.data_collector import EpisodeBuffer

    steps = episode.to_transitions()
    terminations, truncations = np.zeros((2, len(steps.reward)), bool)
    terminations[-1] = steps.terminated
    truncations[-1] = steps.truncated
    return EpisodeBuffer(
        seed=episode.seed,
        observations=steps.observation,
        actions=_chosen(steps.action, spec) if spec.groups else steps.action,
        rewards=steps.reward,
        terminations=terminations,
        truncations=truncations,
        infos={},
    )


def _chosen(action: np.ndarray, spec: EnvSpec) -> np.ndarray:
    """Return the choices of actions [T, A] as Minari keeps them: [T], or [T, G] of G groups."""
    chosen = places(action, spec.groups)
    return chosen if len(spec.groups) > 1 else chosen[:, 0]
