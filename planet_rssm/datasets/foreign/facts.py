"""What an import would write, and what was guessed: as JSON and as lines."""

from collections.abc import Sequence

from planet_rssm.base.json_types import Json
from planet_rssm.datasets.foreign.mapping import Mapping


def facts_of(mapping: Mapping, wanted: Sequence[int], left: Sequence[str]) -> Json:
    """Return it as JSON; `left` has a line for each episode that is left out."""
    source, roles, spec = mapping.source, mapping.roles, mapping.spec
    assert spec is not None, "settle first"
    columns, ranges = source.columns, mapping.ranges
    return {
        "source": source.name,
        "format": source.format,
        "episodes": len(wanted),
        "frames": sum(source.lengths[index] for index in wanted),
        "left_out_episodes": list(left),
        "images": {
            key: {"shape": list(columns[key].shape), "dtype": str(columns[key].dtype)}
            for key in roles.images
        },
        "vectors": {
            key: {"shape": list(columns[key].shape), "range": ranges[key].words()}
            for key in roles.vectors
        },
        "observation": {key: list(shape) for key, (shape, _) in spec.observation.items()},
        "action": {
            "column": roles.action,
            "size": spec.action_size,
            "groups": list(spec.groups),
            "low": ranges[roles.action].low.tolist(),
            "high": ranges[roles.action].high.tolist(),
            "scaled": mapping.scaled,
        },
        "reward": {
            "column": roles.reward,
            "range": ranges[roles.reward].words() if roles.reward else "0",
        },
        "terminal": roles.terminal,
        "order": mapping.order,
        "time": mapping.time_words(),
        "control_interval": spec.control_interval,
        "action_repeat": spec.action_repeat,
        "left_out_columns": list(roles.left_out),
        "guessed": [*source.notes, *mapping.guesses],
    }


def lines_of(mapping: Mapping, facts: Json) -> list[str]:
    """Return the same as text."""
    size = mapping.wish.size
    action = facts["action"]
    kind = (
        f"{' and '.join(map(str, action['groups']))} choices"
        if action["groups"]
        else f"{action['size']} numbers, {mapping.ranges[action['column']].words()}"
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
        (
            facts["terminal"] or "ends",
            "says whether the task ended" if facts["terminal"] else "taken as time alone",
        ),
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
    if left := facts["left_out_episodes"]:
        lines.append(f"  {len(left)} episodes are left out, the first: {left[0]}")
    return lines
