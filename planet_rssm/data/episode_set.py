"""A set of episodes while it is made: how many it shall have, and which command makes it.

What `planet collect` and `planet data import` begin is written into the manifest before the first
episode: a `Part`. A set whose maker was killed is therefore known as such, and the same command
makes what is missing, no more.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import claim
from planet_rssm.data import manifest
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.data.header import DamagedFileError
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay

_RUN = ("config.yaml", "checkpoints")  # of a run, beside its episodes
_OTHERS = frozenset(".npz .hdf5 .h5 .parquet .pkl .npy .tfrecord .zarr .mcap .bag".split())

_GIVE = (
    f"give a folder that `planet collect` wrote, RUN/{EPISODES}, or one that `planet data import` "
    "makes of another program's episodes; anything else becomes one by "
    "planet_rssm.data.episode.Episode.from_transitions and save"
)
_LOOKED_AT = 10_000  # names of a folder: it may be somebody's home


def check_free(folder: Path, part: Part, *, add: bool = False) -> None:
    """Refuse a folder in which `part` can neither begin nor continue, before anything is written.

    Args:
        folder: of the set, which need not exist.
        part: what is to be made; where it would begin (`first`) does not matter.
        add: whether other episodes may be there.

    Raises:
        PlanetError: it belongs to a run, holds other episodes, or cannot be written.
    """
    where = folder.resolve()
    if where.name == EPISODES and any((where.parent / name).exists() for name in _RUN):
        raise PlanetError(
            f"--out {folder}: holds the episodes of the run in {folder.parent}, which would delete "
            "others; give another folder"
        )
    if (where / _RUN[0]).is_file():
        raise PlanetError(f"--out {folder}: is the folder of a run; give another folder")
    existing = next(path for path in (where, *where.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise PlanetError(f"--out {folder}: cannot be written; give another folder")
    parts = _parts(folder)
    if add or any(
        other.made_by == part.made_by and other.episodes == part.episodes for other in parts
    ):
        return  # what is complete is refused once the episodes are counted
    if episode := next(folder.glob("*.safetensors*"), None):
        begun = f", begun by {_words(parts[-1])}" if parts else ""
        raise PlanetError(
            f"--out {folder}: holds {episode.name} already{begun}; give a folder without episodes"
        )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make `folder` if it is not there, and keep other makers out; if it stays empty, remove it.

    Raises:
        PlanetError: another process makes episodes in it.
        OSError: it cannot be made.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    taken = f"--out {folder}: another process writes episodes into it; wait, or give another folder"
    with claim(folder, taken):
        try:
            yield
        finally:
            if new:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only an empty one


def begin(replay: Replay, part: Part, *, add: bool = False) -> tuple[Part, list[int]]:
    """Note what is to be made, for the next commit; return it, and the missing episodes' indices.

    A part that the same command has begun, and that is not complete, is continued.

    Raises:
        PlanetError: the part is complete, or without `add` the folder holds episodes of another.
    """
    there = {entry.index for entry in replay.episodes}
    if not there:
        replay.parts = []
    same = [
        old for old in replay.parts if (old.made_by, old.episodes) == (part.made_by, part.episodes)
    ]
    for old in same:
        if missing := [index for index in old.indices if index not in there]:
            return old, missing
    if there and not add:
        adds = same and part.made_by.get("verb") == "collect"  # the only command with --add
        more = "; add --add for others beside them" if adds else ""
        raise PlanetError(
            f"--out {replay.folder}: holds {len(there)} episodes already{more}, "
            "or give another folder"
        )
    ends = [old.first + old.episodes for old in replay.parts] + [index + 1 for index in there]
    part = part._replace(first=max(ends, default=0))
    replay.parts = [*replay.parts, part]
    return part, list(part.indices)


def shortfall(replay: Replay) -> str | None:
    """Return the line that says that a set lacks some of its episodes; None where it lacks none."""
    there = {entry.index for entry in replay.episodes}
    unfinished = [part for part in replay.parts if not there.issuperset(part.indices)]
    if not unfinished:
        return None
    wanted = sum(part.episodes for part in replay.parts)
    lacking = sum(len(set(part.indices) - there) for part in unfinished)
    return (
        f"{replay.folder}: holds {wanted - lacking} of the {wanted} episodes that it was to have; "
        f"the command that began it makes the rest: {_words(unfinished[0])}"
    )


def no_episode(folder: Path) -> str:
    """Return what is wrong with a folder that has no episode of ours, and what to do."""
    looked_at = itertools.islice(folder.rglob("*"), _LOOKED_AT)
    others = sorted({path.suffix for path in looked_at if path.suffix in _OTHERS})
    if (folder / "metadata.json").is_file() or (folder / "data" / "metadata.json").is_file():
        return (
            "holds a Minari dataset; make episodes of it first: "
            f"planet data import {folder} --out DIR"
        )
    foreign = f" but {', '.join(others)} files, which are another program's" if others else ""
    if folder.suffix in _OTHERS:
        foreign = f": it is a {folder.suffix} folder, which is another program's"
    return f"holds no episode{foreign}; {_GIVE}"


def no_folder(path: Path) -> str:
    """Return what is wrong with a path that is no folder, and what to do."""
    if not path.exists():
        return f"no such folder; give one that `planet collect` wrote, or RUN/{EPISODES}"
    kind = (
        f"a {path.suffix} file, which is another program's" if path.suffix in _OTHERS else "a file"
    )
    return f"{kind}, not a folder of episodes; {_GIVE}"


def _parts(folder: Path) -> list[Part]:
    try:
        return manifest.load(folder / manifest.NAME)[1]
    except DamagedFileError:
        return []


def _words(part: Part) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in [*part.made_by.items(), ("episodes", part.episodes)]
    )
