"""Export: a set of ours in another program's format, without loss; named when it is complete."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import scratch_folder, sync_file, sync_folder
from planet_rssm.base.json_types import Json
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.header import PREFIX
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.foreign.npz import OURS
from planet_rssm.datasets.writing import CAPACITY, Progress
from planet_rssm.envs.spec import EnvSpec

_BESIDE = ".planet-export-"  # begins the name of a folder that is not complete yet


def opened(folder: Path) -> tuple[Replay, EnvSpec]:
    """Open a set that is to be exported.

    Raises:
        PlanetError: it holds no episode.
    """
    if not folder.is_dir():
        raise PlanetError(f"{folder}: {episode_set.no_folder(folder)}")
    replay = Replay(folder, CAPACITY)
    if replay.env is None:
        raise PlanetError(f"{folder}: {episode_set.no_episode(folder)}")
    return replay, EnvSpec.from_json(replay.env)


def noted_of(episode: Episode) -> Json:
    """Return what an export notes of an episode, for what its format has no place for."""
    return {"info": episode.info, "terminated": bool(episode.is_terminal[-1])}


def export(
    folder: Path,
    target: Path,
    write: Callable[[Path, EnvSpec, Iterator[Episode]], None],
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the episodes in `folder` as `target`; return how many.

    Args:
        folder: of the set.
        target: what is written, and is not there yet.
        write: writes all episodes into a folder of its own, which gets the name `target` once it
            is complete.
        progress: is called before each episode.

    Raises:
        PlanetError: `folder` holds no episode, `target` is there or cannot be written, or the
            format cannot hold them.
    """
    replay, spec = opened(folder)
    if target.exists() or target.is_symlink():
        raise PlanetError(f"{target}: is there already; give another, or delete it")

    def episodes() -> Iterator[Episode]:
        for done, entry in enumerate(replay.episodes):
            progress(done, len(replay))
            yield Episode.load(replay.folder / entry.file)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent, _BESIDE) as beside:
            made = beside / target.name
            made.mkdir()
            write(made, spec, episodes())
            for path in made.rglob("*"):
                if path.is_file():
                    sync_file(path)
            os.rename(made, target)
        sync_folder(target.parent)
    except OSError as error:
        raise PlanetError(f"{target}: {error.strerror or error}; give another place") from None
    return len(replay)


def write_npz(folder: Path, spec: EnvSpec, episodes: Iterator[Episode]) -> None:
    """Write one `.npz` an episode, as Dreamer V2 keeps them: its readers take it as it is."""
    columns = {key: key for key in spec.observation}
    described = {"env": spec.to_json(), "columns": columns, "reward": "reward"}
    for index, episode in enumerate(episodes):
        if taken := {"action", "reward", "discount", OURS} & columns.keys():
            raise PlanetError(
                f"an observation is called {min(taken)}, as a column of the format is"
            )
        noted = json.dumps({"set": described, **noted_of(episode)}).encode()
        arrays: dict[str, Any] = {
            key: value for key, value in episode.arrays().items() if not key.startswith(PREFIX)
        }
        arrays |= episode.observation
        arrays["discount"] = 1 - episode.is_terminal.astype(np.float32)
        arrays[OURS] = np.frombuffer(noted, np.uint8)
        np.savez_compressed(folder / f"episode-{index:06d}-{episode.length}.npz", **arrays)
