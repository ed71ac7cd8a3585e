"""Import: a set of another program as a set of ours, looked at before anything is written."""

from collections.abc import Sequence
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.data import episode_set
from planet_rssm.data.manifest import Part
from planet_rssm.data.replay import Replay
from planet_rssm.datasets.foreign.mapping import Mapping
from planet_rssm.datasets.foreign.source import Source
from planet_rssm.datasets.foreign.wish import Wish
from planet_rssm.datasets.writing import Progress, write_set


class Survey:
    """A set of another program, with all its numbers looked at."""

    def __init__(self, mapping: Mapping, wanted: Sequence[int], left: Sequence[str]) -> None:
        """Take which episodes are taken, and why others are not."""
        self.mapping = mapping
        self.wanted = wanted
        self.left = left  # a line each

    def to_json(self) -> Json:
        """Return what would be written, and what was guessed."""
        mapping, source = self.mapping, self.mapping.source
        roles, spec = mapping.roles, mapping.spec
        assert spec is not None
        frames = sum(source.lengths[index] for index in self.wanted)
        column = source.columns
        return {
            "source": source.name,
            "format": source.format,
            "episodes": len(self.wanted),
            "frames": frames,
            "left_out_episodes": list(self.left),
            "images": {
                key: {"shape": list(column[key].shape), "dtype": str(column[key].dtype)}
                for key in roles.images
            },
            "vectors": {
                key: {
                    "shape": list(column[key].shape),
                    "range": mapping.ranges[key].words(),
                }
                for key in roles.vectors
            },
            "observation": {key: list(shape) for key, (shape, _) in spec.observation.items()},
            "action": {
                "column": roles.action,
                "size": spec.action_size,
                "groups": list(spec.groups),
                "low": mapping.ranges[roles.action].low.tolist(),
                "high": mapping.ranges[roles.action].high.tolist(),
                "scaled": mapping.scaled,
            },
            "reward": {
                "column": roles.reward,
                "range": mapping.ranges[roles.reward].words() if roles.reward else "0",
            },
            "terminal": roles.terminal,
            "order": mapping.order,
            "time": mapping.time_words(),
            "control_interval": spec.control_interval,
            "action_repeat": spec.action_repeat,
            "left_out_columns": list(roles.left_out),
            "guessed": [*source.notes, *mapping.guesses],
        }

    def lines(self) -> list[str]:
        """Return the same as text."""
        facts = self.to_json()
        size = self.mapping.wish.size
        action = facts["action"]
        kind = (
            f"{' and '.join(map(str, action['groups']))} choices"
            if action["groups"]
            else f"{action['size']} numbers, {self.mapping.ranges[action['column']].words()}"
            + (", scaled to -1 to 1" if action["scaled"] else "")
        )
        rows = [
            *(
                (key, f"image {image['dtype']} {image['shape']}, becomes {[size, size, 3]}")
                for key, image in facts["images"].items()
            ),
            *(
                (key, f"vector {vector['shape']}, {vector['range']}")
                for key, vector in facts["vectors"].items()
            ),
            (action["column"], f"actions: {kind}"),
            (facts["reward"]["column"] or "rewards", f"rewards: {facts['reward']['range']}"),
            (facts["terminal"] or "ends", self._ends()),
            ("time", facts["time"]),
            (
                "rate",
                f"{1 / facts['control_interval']:g} rows a second, action repeat "
                f"{facts['action_repeat']}",
            ),
        ]
        width = max(len(name) for name, _ in rows)
        head = (
            f"{facts['source']}: {facts['format']}, {facts['episodes']} episodes, "
            f"{facts['frames']} frames"
        )
        lines = [head, *(f"  {name:{width}}  {text}" for name, text in rows)]
        if facts["left_out_columns"]:
            lines.append(f"  not used: {', '.join(facts['left_out_columns'])}")
        lines += [f"  guessed: {guess}" for guess in facts["guessed"]]
        if self.left:
            lines.append(f"  {len(self.left)} episodes are left out, the first: {self.left[0]}")
        return lines

    def _ends(self) -> str:
        return (
            "says whether the task ended" if self.mapping.roles.terminal else "taken as time alone"
        )


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
    mapping = Mapping(source, wish)
    wanted, left = [], []
    for index in range(len(source.lengths)):
        try:
            mapping.look(index)
            wanted.append(index)
        except (ValueError, PlanetError) as error:
            line = f"{source.label(index)}: {error}"
            if not skip:
                more = "; add --skip to leave such episodes out"
                raise PlanetError(f"{source.name}: {line}{more}") from None
            left.append(line)
        progress(index + 1, len(source.lengths))
    if not wanted:
        raise PlanetError(f"{source.name}: no episode of it can be taken, {left[0]}")
    mapping.settle()
    return Survey(mapping, wanted, left)


def part_of(source: Source, wish: Wish, episodes: int, skip: bool) -> Part:
    """Return what decides the episodes of an import."""
    made_by = {"verb": "data import", "source": source.name, "format": source.format}
    return Part(made_by | wish.asked() | ({"skip": True} if skip else {}), episodes)


def write(
    looked: Survey, folder: Path, skip: bool, progress: Progress = lambda done, total: None
) -> Replay:
    """Write the episodes that were looked at into `folder`; see `writing.write_set`.

    Raises:
        PlanetError: see there.
    """
    mapping = looked.mapping
    part = part_of(mapping.source, mapping.wish, len(looked.wanted), skip)
    episode_set.check_free(folder, part)
    return write_set(
        folder, part, mapping.source.name, mapping.episode, list(looked.wanted), progress
    )
