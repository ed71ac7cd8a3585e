"""Import: a set of another program as a set of ours, looked at before anything is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.foreign.facts import facts_of, lines_of
from planet_rssm.datasets.foreign.mapping import Mapping
from planet_rssm.datasets.foreign.own import Own
from planet_rssm.datasets.foreign.source import Source
from planet_rssm.datasets.foreign.wish import Wish
from planet_rssm.datasets.writing import Progress, write_set


@dataclass(frozen=True)
class Survey:
    """A set of another program, looked at: what would be written, in facts and in lines."""

    source: Source
    part: Part  # what decides the episodes, and how many there are
    wanted: Sequence[int]  # the source's numbers of those that are taken
    episode: Callable[[int], Episode]
    facts: Json
    lines: Sequence[str]


def survey(
    source: Source,
    wish: Wish,
    *,
    skip: bool = False,
    progress: Progress = lambda done, total: None,
) -> Survey:
    """Look at all numbers of a set, images aside; nothing is written.

    Args:
        source: the set.
        wish: what is taken of it.
        skip: leave out the episodes that no episode here can hold, instead of refusing the set.
        progress: is called after each episode.

    Raises:
        PlanetError: it cannot be taken so; the line says what to change.
    """
    if source.ours is not None:
        own = Own(source, wish)
        wanted = range(len(source.lengths))
        facts, lines = own.facts(), own.lines()
        return Survey(source, _part(source, wish, wanted, False), wanted, own.episode, facts, lines)
    mapping = Mapping(source, wish)
    taken, left = [], []
    for index in range(len(source.lengths)):
        try:
            mapping.look(index)
            taken.append(index)
        except (ValueError, PlanetError) as error:
            line = f"{source.label(index)}: {error}"
            if not skip:
                more = "; add --skip to leave such episodes out"
                raise PlanetError(f"{source.name}: {line}{more}") from None
            left.append(line)
        progress(index + 1, len(source.lengths))
    if not taken:
        raise PlanetError(f"{source.name}: no episode of it can be taken, {left[0]}")
    mapping.settle()
    facts = facts_of(mapping, taken, left)
    lines = lines_of(mapping, facts)
    return Survey(source, _part(source, wish, taken, skip), taken, mapping.episode, facts, lines)


def write(looked: Survey, folder: Path, progress: Progress = lambda done, total: None) -> Replay:
    """Write the episodes that were looked at into `folder`; see `writing.write_set`.

    Raises:
        PlanetError: see there.
    """
    episode_set.check_free(folder, looked.part)
    name = looked.source.name
    return write_set(folder, looked.part, name, looked.episode, looked.wanted, progress)


def _part(source: Source, wish: Wish, wanted: Sequence[int], skip: bool) -> Part:
    """Return what decides the episodes of an import."""
    made_by = {"verb": "data import", "source": source.name, "format": source.format}
    return Part(made_by | wish.asked() | ({"skip": True} if skip else {}), len(wanted))
