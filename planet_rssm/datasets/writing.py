"""The episodes of any other set, written as a set of ours; a write that was killed goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.data import episode_set, manifest
from planet_rssm.data.episode import Episode
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay

CAPACITY = 2**53  # frames: all
Progress = Callable[[int, int], object]  # how many are done, of how many


def write_set(
    folder: Path,
    part: Part,
    name: str,
    read: Callable[[int], Episode],
    wanted: Sequence[int],
    progress: Progress = lambda done, total: None,
) -> Replay:
    """Write episodes into `folder`; return them.

    A write that did not end is continued by an equal call, which writes what is missing.

    Args:
        folder: where the episodes are kept, without any before.
        part: what decides the episodes, and how many there are.
        name: of their set, for error lines.
        read: returns one of them by its number in their set.
        wanted: the numbers of those that are written, in order.
        progress: is called after each.

    Raises:
        PlanetError: an episode that none here can hold, which ends the write and leaves nothing;
            or `folder` holds other episodes, is in use or cannot be written.
    """
    episode_set.check_free(folder, part)
    try:
        with episode_set.claimed(folder):
            replay = Replay(folder, CAPACITY)
            _, missing = episode_set.begin(replay, part)
            replay.commit()  # from now on the set says how many episodes it shall have
            there = len(wanted) - len(missing)
            number = 0
            try:
                with replay.adding() as add:
                    for done, index in enumerate(missing, there + 1):
                        number = wanted[index]
                        add(read(number), index)
                        progress(done, len(wanted))
                replay.commit()
            except (PlanetError, ValueError) as error:  # ValueError: of what the set holds
                replay.truncate(0)
                (replay.folder / manifest.NAME).unlink(missing_ok=True)
                fix = (
                    ""
                    if isinstance(error, PlanetError)
                    else "; add --skip to leave such episodes out"
                )
                raise PlanetError(f"{name}: episode {number}: {error}{fix}") from None
    except OSError as error:
        raise PlanetError(
            f"--out {folder}: {error.strerror or error}; what is there is kept, "
            "and the same command continues"
        ) from error
    return replay
