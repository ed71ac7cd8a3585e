"""The tables of `planet eval` as files: CSV, LaTeX, and one CSV row an episode."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from planet_rssm.base.files import write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.evaluation.published import beside

COLUMNS = (
    "task",
    "observation",
    "runs",
    "steps",
    "seeds",
    "episodes",
    "mean",
    "95 % interval",
    "by t",
    "median",
    "IQM",
)
BY_TASK = ("task", "steps", "ours", "95 % interval", "by t", "PlaNet", "Dreamer")
PUBLISHED = ("task", "method", "observation", "steps", "return", "protocol")
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def rows(groups: Sequence[Json]) -> list[list[str]]:
    """Return the table of the groups as `COLUMNS`; intervals of episodes alone are marked."""
    return [
        [
            group["task"],
            group["observation"],
            group["group"],
            _trained(group),
            str(group["seeds"]),
            str(group["episodes"]),
            number(group["mean"]),
            spread(group),
            spread(group, "t95"),
            number(group["median"]),
            number(group["iqm"]),
        ]
        for group in groups
    ]


def published_beside(group: Json) -> str:
    """Return the published score nearest to a group's, with its method and steps; "" for none."""
    trained = group["env_steps"]
    obs = "pixels" if "pixels" in group["observation"] else "state"
    method = "Dreamer" if "actor" in str(group["planner"]) else "PlaNet"
    entry = beside(
        group["task"], obs, trained if isinstance(trained, int) else max(trained), method
    )
    return "" if entry is None else f"{entry.score:g} ({entry.method}, {steps(entry.steps)})"


def _trained(group: Json) -> str:
    """Return how long a group has learned; a selected checkpoint is marked."""
    selected = " (best: selected)" if group["checkpoint"] == "best" else ""
    return steps(group["env_steps"]) + selected


def published_rows(entries: Sequence[Json]) -> list[list[str]]:
    """Return the table of the published scores as `PUBLISHED`."""
    return [
        [
            entry["task"],
            entry["method"],
            entry["obs"],
            steps(entry["steps"]),
            f"{entry['score']:g}",
            entry["protocol"],
        ]
        for entry in entries
    ]


def task_rows(table: Json) -> list[list[str]]:
    """Return one of the `tables` of `planet eval --json` as `BY_TASK`.

    Below the tasks stand mean and interquartile mean over them, divided by 1000.
    """
    body = [
        [
            row["task"],
            steps(row["env_steps"]),
            number(row["mean"]),
            spread(row),
            spread(row, "t95"),
            *map(_beside, row["published"].values()),
        ]
        for row in table["tasks"]
    ]
    over = table["normalised"]
    for name, label in (("mean", "mean"), ("iqm", "IQM")):
        published = [
            "none" if scores is None else number(scores[name])
            for scores in table["normalised_published"].values()
        ]
        prefix = "" if name == "mean" else f"{name}_"
        ends = [spread(over, f"{prefix}{kind}") for kind in ("ci95", "t95")]
        body.append([f"{label} / 1000", "", number(over[name]), *ends, *published])
    return body


def _beside(score: Json | None) -> str:
    return (
        "none"
        if score is None
        else f"{score['score']:g} ({score['method']}, {steps(score['steps'])})"
    )


def spread(summary: Json, kind: str = "ci95") -> str:
    """Return an interval in words: the mean's by the bootstrap, or Student's `t95`.

    Those of another statistic are called as in JSON, `iqm_t95`.
    """
    single = "episode_ci95" in summary
    ends = summary[_of_episodes(kind) if single else kind]
    if ends is None:
        return "none"
    low, high = ends
    return f"{number(low)} to {number(high)}" + (" (episodes)" if single else "")


def number(value: float) -> str:
    """Return a return in four digits, its mean as its interval: 849.3, 12.34, 0.01234."""
    return f"{value:.4g}"


def steps(count: int | Sequence[int]) -> str:
    """Return a number of env_steps, or the least and the most, in thousands."""
    if not isinstance(count, int):
        return " to ".join(map(steps, count))
    if count < 1000:
        return str(count)
    return f"{count / 1000:g}k" if count < 1_000_000 else f"{count / 1_000_000:g}M"


def write_csv(path: Path, result: Json) -> None:
    """Write the groups with all their numbers, a row each."""
    numbers = ("mean", "std", "median", "iqm")
    bootstrap = ("ci95", "median_ci95", "iqm_ci95")
    student = ("t95", "median_t95", "iqm_t95")
    header = [
        "task",
        "observation",
        "group",
        "planner",
        "checkpoint",
        "env_steps",
        "seeds",
        "episodes",
        *numbers,
    ]
    header += [*_ends_of(bootstrap), "interval_resamples", *_ends_of(student)]
    table = []
    for group in result["groups"]:
        single = "episode_ci95" in group
        ends = {
            kind: group[_of_episodes(kind) if single else kind] or ("", "")
            for kind in (*bootstrap, *student)
        }
        table.append(
            [
                *(group[key] for key in header[:8]),
                *(group[key] for key in numbers),
                *(end for kind in bootstrap for end in ends[kind]),
                "episodes" if single else "seeds and episodes",
                *(end for kind in student for end in ends[kind]),
            ]
        )
    _write(path, header, table)


def _ends_of(kinds: Sequence[str]) -> list[str]:
    return [f"{kind}_{end}" for kind in kinds for end in ("low", "high")]


def _of_episodes(kind: str) -> str:
    """Return the name that an interval has where there is a single run."""
    statistic, _, name = kind.rpartition("_")
    return f"{statistic}_episode_{name}" if statistic else f"episode_{name}"


def write_rows(path: Path, result: Json) -> None:
    """Write one row an episode."""
    header = [
        "run",
        "task",
        "seed",
        "planner",
        "observe",
        "renderer",
        "checkpoint",
        "episode_seed",
        "return",
        "env_steps",
    ]
    table = [
        [
            run["run"],
            run["task"],
            run["seed"],
            run["planner"],
            run["observation"]["observe"],
            run["observation"]["renderer"],
            run["checkpoint"],
            episode["seed"],
            episode["return"],
            episode["env_steps"],
        ]
        for run in result["results"]
        for episode in run["episodes"]
    ]
    _write(path, header, table)


def write_latex(path: Path, result: Json) -> None:
    """Write LaTeX tables: the groups, ours by task beside the published ones, and the latter.

    The last has the protocol of each.
    """
    ours = _tabular(COLUMNS, rows(result["groups"]), "lllrrrrllrr")
    for table in result["tables"]:
        ours += f"% {table['group']}, {table['observation']}\n"
        ours += _tabular(BY_TASK, task_rows(table), "lrrllrr")
    others = ""
    if result["published"]:
        others = _tabular(PUBLISHED, published_rows(result["published"]), "lllrrl")
    write_atomic(path, [_bytes(f"% needs \\usepackage{{booktabs}}\n{ours}{others}")])


def _tabular(header: Sequence[str], table: Sequence[Sequence[str]], columns: str) -> str:
    body = [" & ".join(map(_escaped, line)) + r" \\" for line in (header, *table)]
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
    ]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _write(path: Path, header: Sequence[str], table: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [header, *([_cell(value) for value in row] for row in table)]
    )
    write_atomic(path, [_bytes(text.getvalue())])


def _cell(value: object) -> object:
    """Return a cell that a spreadsheet takes for text if it is text.

    A run's name may begin as a formula does.
    """
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _bytes(text: str) -> bytes:
    """Return UTF-8; bytes of a name that are not are written with backslashes."""
    return text.encode(errors="backslashreplace")
