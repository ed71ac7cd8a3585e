"""The tables of `planet eval` as files: CSV for a spreadsheet, LaTeX for a paper, one line an episode for your own."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from planet_rssm.files import write_atomic

COLUMNS = ("task", "observation", "runs", "steps", "seeds", "episodes", "mean", "95 % interval", "median", "IQM")
PUBLISHED = ("task", "method", "observation", "steps", "return", "protocol")
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def rows(groups: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the table of the groups as `COLUMNS`; the interval is named where it is of episodes alone."""
    return [
        [
            group["task"], group["observation"], group["group"], _trained(group), str(group["seeds"]),
            str(group["episodes"]), f"{group['mean']:.1f}", spread(group),
            f"{group['median']:.1f}", f"{group['iqm']:.1f}",
        ]
        for group in groups
    ]  # fmt: skip


def _trained(group: Mapping[str, Any]) -> str:
    """Return how long a group has learned; a checkpoint that was selected is never taken for the last."""
    return steps(group["env_steps"]) + (" (best: selected)" if group["checkpoint"] == "best" else "")


def published_rows(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the table of the published scores as `PUBLISHED`."""
    return [
        [entry["task"], entry["method"], entry["obs"], steps(entry["steps"]), f"{entry['score']:g}", entry["protocol"]]
        for entry in entries
    ]


def spread(told: Mapping[str, Any]) -> str:
    """Return the interval of the mean in words."""
    if "ci95" in told:
        return "{:.4g} to {:.4g}".format(*told["ci95"])
    return "{:.4g} to {:.4g} (episodes)".format(*told["episode_ci95"])


def steps(count: int | Sequence[int]) -> str:
    """Return a number of env_steps, or the least and the most, in thousands."""
    if not isinstance(count, int):
        return " to ".join(map(steps, count))
    if count < 1000:
        return str(count)
    return f"{count / 1000:g}k" if count < 1_000_000 else f"{count / 1_000_000:g}M"


def write_csv(path: Path, result: Mapping[str, Any]) -> None:
    """Write the groups with all their numbers, a row each."""
    numbers = ("mean", "std", "median", "iqm")
    kinds = ("ci95", "median_ci95", "iqm_ci95")
    header = ["task", "observation", "group", "planner", "checkpoint", "env_steps", "seeds", "episodes", *numbers]
    header += [f"{kind}_{end}" for kind in kinds for end in ("low", "high")] + ["interval_resamples"]
    table = []
    for group in result["groups"]:
        single = "episode_ci95" in group
        ends = [end for kind in kinds for end in group[kind.replace("ci95", "episode_ci95") if single else kind]]
        table.append([group[key] for key in header[:8]] + [group[key] for key in numbers] + ends
                     + ["episodes" if single else "seeds and episodes"])  # fmt: skip
    _write(path, header, table)


def write_rows(path: Path, result: Mapping[str, Any]) -> None:
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
    _write(path, header, [
        [run["run"], run["task"], run["seed"], run["planner"], run["observation"]["observe"],
         run["observation"]["renderer"], run["checkpoint"], episode["seed"], episode["return"], episode["env_steps"]]
        for run in result["results"] for episode in run["episodes"]
    ])  # fmt: skip


def write_latex(path: Path, result: Mapping[str, Any]) -> None:
    """Write the groups, and the published scores of their tasks with their protocols, as two LaTeX tables."""
    ours = _tabular(COLUMNS, rows(result["groups"]), "lllrrrrlrr")
    theirs = _tabular(PUBLISHED, published_rows(result["published"]), "lllrrl") if result["published"] else ""
    write_atomic(path, [f"% needs \\usepackage{{booktabs}}\n{ours}{theirs}".encode()])


def _tabular(header: Sequence[str], table: Sequence[Sequence[str]], columns: str) -> str:
    body = [" & ".join(map(_escaped, line)) + r" \\" for line in (header, *table)]
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _write(path: Path, header: Sequence[str], table: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *table])
    write_atomic(path, [text.getvalue().encode()])
