"""Runs that are seeds of one another, and what is said of them together."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation import statistics
from planet_rssm.evaluation.published import MAX, score_of
from planet_rssm.runs.run import RESUMABLE

_log = logging.getLogger("planet_rssm")


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated: `result` is its entry in the JSON; `made_of` see `subject.Subject`."""

    settings: Settings
    spec: EnvSpec
    result: dict[str, Any]
    made_of: dict[str, Any]

    @property
    def returns(self) -> list[float]:
        """The returns of its episodes."""
        return [episode["return"] for episode in self.result["episodes"]]

    @property
    def simulated(self) -> bool:
        """Whether it is a planner in a simulator, which has no model: what its settings say of one means nothing."""
        return self.result["checkpoint"] is None

    @property
    def name(self) -> str:
        """What the user called it."""
        return self.result["run"]


def labels(runs: Sequence[Evaluated], key: str | None) -> list[str]:
    """Return what group each run belongs to: by the setting `key`, or by all that its returns may depend on.

    Runs that differ in their seed, and in what a resumed run may change, are seeds of one another.
    Simulators are a group of their own.
    """
    learned = iter(_labels([run.settings for run in runs if not run.simulated], key))
    return [
        f"simulator, {run.settings.planner.label}" if run.simulated else next(learned)
        for run in runs
    ]


def _labels(settings: Sequence[Settings], key: str | None) -> list[str]:
    flat = [config.flatten(one) for one in settings]
    if key is not None:
        return [_named(values, [key]) for values in flat]
    ignored = RESUMABLE | {"seed"}
    keys = (
        [name for name in flat[0] if name not in ignored and not name.startswith("env.")]
        if flat
        else []
    )
    differing = [name for name in keys if any(values[name] != flat[0][name] for values in flat)]
    whole = [_named(values, differing) for values in flat]
    for count in range(1, len(differing)):  # called by as few settings as tell them apart
        short = [_named(values, differing[:count]) for values in flat]
        if len(set(short)) == len(set(whole)):
            return short
    return [name or one.planner.label for name, one in zip(whole, settings, strict=True)]


def check_key(key: str | None) -> None:
    """Refuse a setting that there is not.

    Raises:
        PlanetError: there is none of that name.
    """
    known = config.flatten(Settings())
    if key is not None and key not in known:
        raise PlanetError(f"--group-by {key}: no such setting{config.nearest(key, known)}")


Cells = dict[tuple[str, str, str], list[Evaluated]]  # by task, observation and label


def cells(
    runs: Sequence[Evaluated],
    names: Sequence[str],
    seen: Sequence[str],
    wrong: list[dict[str, str]],
) -> Cells:
    """Return the runs that are counted together, by task, observation in words and group.

    A run whose actions or rates are not those of its group is left out, and its line added to
    `wrong`.
    """
    found: Cells = {}
    for run, name, observation in zip(runs, names, seen, strict=True):
        members = found.setdefault((run.spec.id, observation, name), [])
        if members and (line := _misfit(members[0], run)):
            line = f"{run.name}: {line} in group {name}; left out of it: group by another key, or evaluate it apart"
            _log.error("%s", line)
            wrong.append({"run": run.name, "error": line})
        else:
            members.append(run)
    return found


def _misfit(first: Evaluated, other: Evaluated) -> str | None:
    for key in ("action_size", "discrete", "groups", "action_repeat", "episode_steps"):
        ours, theirs = getattr(first.spec, key), getattr(other.spec, key)
        if ours != theirs:
            return f"{key} = {theirs}, where {first.name} has {ours},"
    return None


def scale_of(normalise: str, spec: EnvSpec) -> float:
    """Return the score that stands for 1: the most that dm_control gives, or what a method has published.

    Raises:
        PlanetError: nothing is known of that task, or there is no such method.
    """
    if not spec.id.startswith("dmc/"):
        raise PlanetError(
            f"--normalise {normalise}: the range of {spec.id} is not known; only of dm_control's tasks"
        )
    return float(spec.episode_steps) if normalise == MAX else score_of(normalise, spec.id)


def told(found: Cells, normalise: str | None) -> list[dict[str, Any]]:
    """Return the JSON of each group."""
    return [
        {
            "group": label,
            "task": task,
            "observation": observation,
            "planner": _same(run.result["planner"] for run in members),
            "checkpoint": _same(run.result["checkpoint"] for run in members),
            "env_steps": _ends([run.result["trained"]["env_steps"] for run in members]),
            "runs": [run.name for run in members],
            "seeds": len(members),
            "episodes": sum(len(run.returns) for run in members),
            **statistics.summary([run.returns for run in members]),
            **_normalised(members, normalise),
        }
        for (task, observation, label), members in found.items()
    ]


def improvements(found: Cells) -> list[dict[str, Any]]:
    """Return for each two groups how probably a run of the first scores more than one of the second.

    Where both have runs that saw the same, those are compared; else what they saw is what sets them
    apart.
    """
    compared = []
    for first, second in combinations(dict.fromkeys(label for _, _, label in found), 2):
        sides = [_by_place(found, label) for label in (first, second)]
        if not sides[0].keys() & sides[1].keys():
            sides = [_by_place(found, label, observed=False) for label in (first, second)]
        places = [place for place in sides[0] if place in sides[1]]
        if places:
            told = statistics.improvement(*([side[place] for place in places] for side in sides))
            tasks = list(dict.fromkeys(task for task, _ in places))
            compared.append({"group": first, "over": second, "tasks": tasks, **told})
    return compared


def aggregates(found: Cells, normalise: str | None) -> list[dict[str, Any]]:
    """Return the normalised scores of each group over its tasks, where it has several that it saw alike."""
    scores = []
    for observation, label in dict.fromkeys(key[1:] for key in found):
        members = {key[0]: runs for key, runs in found.items() if key[1:] == (observation, label)}
        if normalise is not None and len(members) > 1:
            tasks = [_scaled(runs, normalise) for runs in members.values()]
            scores.append({"group": label, "observation": observation, "tasks": list(members),
                           "normalised_by": normalise, **statistics.across_tasks(tasks)})  # fmt: skip
    return scores


def warn_of_twins(found: Cells) -> None:
    """Say of which groups runs of one seed are counted as several."""
    for (task, _, label), members in found.items():
        seeds = [run.settings.seed for run in members]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            line = "%s, %s: several runs of seed %s are counted as so many seeds; intervals take them for independent"
            _log.warning(line, task, label, ", ".join(map(str, twice)))


def warn_of_few(groups: Sequence[Mapping[str, Any]]) -> None:
    """Say in one line which groups have so few seeds that their percentile intervals are too narrow, and how much."""
    held = statistics.COVERAGE
    few = dict.fromkeys((group["group"], group["seeds"]) for group in groups)
    if several := [
        f"{label}: {seeds} seeds, about {held[seeds]} %" for label, seeds in few if seeds in held
    ]:
        line = "ci95 of few seeds holds the true mean less often than in 95 %% of cases (%s); t95, wider, holds it"
        _log.warning(line, ", ".join(several))
    if single := [label for label, seeds in few if seeds == 1]:
        line = "one seed (%s): its interval is of its episodes and says nothing about other seeds"
        _log.warning(line, ", ".join(single))


def _normalised(members: Sequence[Evaluated], normalise: str | None) -> dict[str, Any]:
    if normalise is None:
        return {}
    return {
        "normalised": statistics.summary(_scaled(members, normalise)),
        "normalised_by": normalise,
    }


def _scaled(members: Sequence[Evaluated], normalise: str) -> list[list[float]]:
    scale = scale_of(normalise, members[0].spec)
    return [[value / scale for value in run.returns] for run in members]


def _by_place(
    found: Cells, label: str, observed: bool = True
) -> dict[tuple[str, str], list[list[float]]]:
    """Return the returns of a group's runs by task and, if `observed`, what was seen."""
    places: dict[tuple[str, str], list[list[float]]] = {}
    for (task, observation, name), members in found.items():
        if name == label:
            places.setdefault((task, observation if observed else ""), []).extend(
                run.returns for run in members
            )
    return places


def _named(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={_shown(values[key])}" for key in keys)


def _same(values: Any) -> Any:  # noqa: ANN401 (an iterable of JSON values)
    """Return the value that all have, or all that there are."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def _ends(values: Sequence[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else [min(values), max(values)]


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
