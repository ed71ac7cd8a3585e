"""Import: the episodes of a Minari dataset as a set of ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planet_rssm.base.errors import PlanetError
from planet_rssm.data import episode_set
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.minari.conversion import Wish
from planet_rssm.datasets.minari.episodes import Foreign, Ours
from planet_rssm.datasets.minari.library import OURS, library
from planet_rssm.datasets.writing import Progress, write_set
from planet_rssm.envs.spec import EnvSpec

if TYPE_CHECKING:
    from minari import MinariDataset


def import_dataset(
    source: str,
    folder: Path,
    observe: str | None,
    size: int,
    download: bool,
    *,
    drop: Sequence[str] = (),
    scale_actions: bool = False,
    skip: bool = False,
    progress: Progress = lambda done, total: None,
) -> Replay:
    """Write the episodes of a Minari dataset, an id or its folder, into `folder`; return them.

    An import that did not end is continued by an equal call, which writes what is missing.

    Args:
        source: id of a dataset, or the folder of one.
        folder: where the episodes are kept, without any before.
        observe: pixels, vectors or both, as far as the dataset has them; None: all that it has.
        size: pixels a side of its images.
        download: fetch the dataset if it is not on this machine.
        drop: names of observations that are left out.
        scale_actions: map actions without bounds onto [-1, 1] by the least and greatest of the
            data.
        skip: leave out the episodes that no episode here can hold, instead of ending at the first.
        progress: is called with how many episodes are written, of how many.

    Raises:
        PlanetError: minari is missing or does not know the dataset, the dataset holds what no
            episode here can, or `folder` holds other episodes, is in use or cannot be written.
    """
    wish = Wish(observe, size, tuple(drop), scale_actions)
    dataset = _loaded(source, download)
    made_by = {"verb": "minari import", "dataset": source, **wish._asdict(), "drop": list(drop)}
    if skip:
        made_by["skip"] = True
    else:
        episode_set.check_free(folder, Part(made_by, len(dataset)))
    taken = _taken(dataset, wish)
    wanted = taken.takable() if skip else range(len(dataset))
    replay = write_set(
        folder,
        Part(made_by, len(wanted)),
        f"dataset {taken.name}",
        taken.episode,
        wanted,
        progress,
    )
    taken.report()
    return replay


def look_at_dataset(
    source: str,
    observe: str | None,
    size: int,
    download: bool,
    *,
    drop: Sequence[str] = (),
    scale_actions: bool = False,
) -> tuple[int, int, EnvSpec]:
    """Return how many episodes and steps a dataset has, and what its environment becomes.

    Nothing is written. Arguments and errors are those of `import_dataset`.
    """
    dataset = _loaded(source, download)
    taken = _taken(dataset, Wish(observe, size, tuple(drop), scale_actions))
    return len(dataset), int(dataset.total_steps), taken.spec


def _loaded(source: str, download: bool) -> "MinariDataset":
    """Return a dataset of at least one episode."""
    dataset = _load(source, download)
    if not len(dataset):
        raise PlanetError(f"dataset {source}: has no episode; give another")
    return dataset


def _taken(dataset: "MinariDataset", wish: Wish) -> Foreign | Ours:
    """Return its episodes in our terms: as they were if it is one of our exports."""
    exported = dataset.storage.metadata.get(OURS)
    if exported is None:
        return Foreign(dataset, wish)
    return Ours(dataset, EnvSpec.from_json(json.loads(exported)))


def _load(source: str, download: bool) -> "MinariDataset":
    minari = library()
    folders = [
        path for path in (Path(source), Path(source) / "data") if (path / "metadata.json").is_file()
    ]
    try:
        return (
            minari.MinariDataset(folders[0]) if folders else minari.load_dataset(source, download)
        )
    except FileNotFoundError:
        if Path(source).is_dir():
            raise PlanetError(
                f"dataset {source}: no Minari dataset, there is no metadata.json in it; "
                f"it {episode_set.no_episode(Path(source))}"
            ) from None
        raise PlanetError(
            f"dataset {source}: not on this machine; add --download, or give its folder"
        ) from None
    except ImportError as error:  # of what it needs to download, or for another file format
        raise PlanetError(f"dataset {source}: {' '.join(str(error).split())}") from error
    except Exception as error:  # its storage, spaces and remotes raise what their libraries do
        raise PlanetError(
            f"dataset {source}: {' '.join(str(error).split())}; give another"
        ) from error
