"""The curves of runs as numbers: returns with intervals, and every number of the metrics."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import stdtrit

from planet_rssm.base.json_types import Json
from planet_rssm.config import is_dm_control
from planet_rssm.report.page.reading import RunFiles
from planet_rssm.report.watching import is_number

POINTS = 160  # of a curve at most
AXES = ("env_steps", "updates", "hours")
GRID = 60  # points of a group's curve
LEVEL = 0.95
# keys of a line of metrics that are no measurement of the learning
COUNTERS = {
    "format",
    "env_steps",
    "agent_steps",
    "updates",
    "episodes",
    "seconds",
    "skipped",
    "lost",
    "damaged",
}
DIGITS = 5
MOST = 1000.0  # of an episode of dm_control: its steps, each with a reward from 0 to 1


def return_curves(runs: Sequence[RunFiles], groups: Sequence[str]) -> list[Json]:
    """Return a curve for each run, and before them one for each group of several.

    A curve of a run has the mean return of each test (where there was none: of each round of
    collection) and the interval of its episodes; that of a group the mean over its runs and the
    interval over them, both 95 % by Student's t.
    """
    curves = [_run_curve(run, group) for run, group in zip(runs, groups, strict=True)]
    by_group: dict[str, list[Json]] = {}
    for curve in curves:
        if curve["y"]:
            by_group.setdefault(curve["group"], []).append(curve)
    means = [_group_curve(group, members) for group, members in by_group.items()]
    shown = [curve for curve in means if curve] + [curve for curve in curves if curve["y"]]
    if all(map(_is_of_the_suite, runs)):
        for curve in shown:  # an interval by t reaches further than a return can
            for end in ("low", "high"):
                curve[end] = [
                    value if value is None else min(max(value, 0.0), MOST) for value in curve[end]
                ]
    return shown


def _is_of_the_suite(run: RunFiles) -> bool:
    """Return whether a run's episodes are dm_control's own, whose returns are from 0 to MOST."""
    env = run.settings.env if run.settings else None
    return env is not None and is_dm_control(env.id) and env.time_limit is None


def metric_curves(runs: Sequence[RunFiles], groups: Sequence[str]) -> dict[str, list[Json]]:
    """Return the curves of every number of the lines of phase `train`, by key."""
    keys: dict[str, None] = {}
    for run in runs:
        for line in run.of("train")[-3:]:  # a late line has all keys
            keys |= dict.fromkeys(key for key in line if key not in COUNTERS)
    result = {}
    for key in keys:
        curves = []
        for run, group in zip(runs, groups, strict=True):
            lines = [line for line in run.of("train") if is_number(line.get(key))]
            if lines:
                curves.append(_curve(run, group, lines, [line[key] for line in lines]))
        if curves:
            result[key] = curves
    return result


def _run_curve(run: RunFiles, group: str) -> Json:
    phase = "test" if run.of("test") else "collect"
    lines = [line for line in run.of(phase) if is_number(line.get("return"))]
    curve = _curve(run, group, lines, [line["return"] for line in lines])
    kept = _thinned(lines)
    ends = [t_interval(line.get("returns") or [line["return"]]) for line in kept]
    curve["low"] = [rounded(low) for low, _ in ends]
    curve["high"] = [rounded(high) for _, high in ends]
    curve["what"] = "test episodes" if phase == "test" else "episodes that it learns from"
    return curve


def _group_curve(group: str, members: Sequence[Json]) -> Json:
    """Return the mean over runs where all of them are; nothing for a single run."""
    if len(members) < 2:
        return {}
    axes: Json = {}
    ys: np.ndarray | None = None
    along = members[0]["axis"]
    begin = max(member[along][0] for member in members)
    end = min(member[along][-1] for member in members)
    if end < begin:
        return {}
    inside = {step for member in members for step in member[along] if begin <= step <= end}
    grid = np.array(sorted(inside), float)
    if len(grid) > GRID:
        grid = np.linspace(begin, end, GRID)
    ys = np.stack([np.interp(grid, member[along], member["y"]) for member in members])
    for axis in AXES:
        rows = [np.interp(grid, member[along], member[axis]) for member in members]
        axes[axis] = [rounded(value) for value in np.mean(rows, 0)]
    half = ys.std(0, ddof=1) / math.sqrt(len(ys)) * float(stdtrit(len(ys) - 1, 0.5 + LEVEL / 2))
    mean = ys.mean(0)
    return {
        "name": f"{group}: mean of {len(members)} seeds",
        "group": group,
        "mean": True,
        **axes,
        along: [float(value) for value in grid],
        "axis": along,
        "y": [rounded(value) for value in mean],
        "low": [rounded(value) for value in mean - half],
        "high": [rounded(value) for value in mean + half],
        "what": "95 % interval over seeds, by t",
    }


def _curve(run: RunFiles, group: str, lines: Sequence[Json], values: Sequence[float]) -> Json:
    kept = _thinned(lines)
    return {
        "name": run.name,
        "group": group,
        "axis": run.axis,
        "env_steps": [line.get("env_steps", 0) for line in kept],
        "updates": [line.get("updates", 0) for line in kept],
        "hours": [rounded(line.get("seconds", 0) / 3600) for line in kept],
        "y": [rounded(value) for value in _thinned(values)],
    }


def _thinned(values: Sequence) -> list:
    if len(values) <= POINTS:
        return list(values)
    return [values[at] for at in np.linspace(0, len(values) - 1, POINTS).round().astype(int)]


def t_interval(values: Iterable[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean; of one value the value itself."""
    array = np.asarray(list(values), float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean
    scale = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = scale * float(stdtrit(len(array) - 1, 0.5 + LEVEL / 2))
    return mean - half, mean + half


def stage_shares(runs: Sequence[RunFiles]) -> list[tuple[str, dict[str, float]]]:
    """Return the seconds of each run by stage, the longest first, of its last line of training."""
    rows = []
    for run in runs:
        trained = run.of("train")
        if trained and (seconds := trained[-1].get("stage_seconds")):
            rows.append((run.name, dict(sorted(seconds.items(), key=lambda one: -one[1]))))
    return rows


def rounded(value: float, digits: int = DIGITS) -> float | None:
    """Return a number in few digits, which a page of many runs needs; None if not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
