"""Runs that are seeds of one another, and the statistics of such groups."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeVar

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings, is_dm_control
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation import statistics
from planet_rssm.evaluation.eval_results import (
    Aggregate,
    Comparison,
    GroupResult,
    RunError,
    RunResult,
)
from planet_rssm.evaluation.published import MAX, score_of
from planet_rssm.evaluation.statistics import Summary
from planet_rssm.runs.run import RESUMABLE

# settings of an environment by which runs of one task are set apart; the others, such as the size
# of its pixels, are in the description of its observation
SETS_APART = ("env.kwargs", "env.drop", "env.keys")
# of an EnvSpec: runs of one group may differ in these
MAY_DIFFER = ("renderer", "simulator", "terminates")

_log = logging.getLogger("planet_rssm")

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated; `conditions` see `opened_run.Subject`."""

    settings: Settings
    spec: EnvSpec
    result: RunResult
    conditions: Json

    @property
    def returns(self) -> list[float]:
        """The return of each episode."""
        return self.result.returns

    @property
    def simulated(self) -> bool:
        """Whether it plans in a simulator: no model, so its settings of one mean nothing."""
        return self.result.checkpoint is None

    @property
    def name(self) -> str:
        """What the user called it."""
        return self.result.run


class Place(NamedTuple):
    """What a group of runs does: one task, one kind of observation, one label."""

    task: str
    observation: str  # in words
    label: str


Cells = dict[Place, list[Evaluated]]


def labels(runs: Sequence[Evaluated], key: str | None) -> list[str]:
    """Return the group of each run: by the setting `key`, or by all that returns may depend on.

    Runs that differ in their seed, and in what a resumed run may change, are seeds of one another.
    A setting that differs from task to task alone is the tasks' own, see `warn_of_tasks`.
    Simulators form a separate group.
    """
    learned = iter(labels_of([run.settings for run in runs if not run.simulated], key))
    return [
        f"simulator, {run.settings.planner.label}" if run.simulated else next(learned)
        for run in runs
    ]


def labels_of(settings: Sequence[Settings], key: str | None) -> list[str]:
    """Return the group of each trained run by its settings, see `labels`."""
    flat = [config.flatten(one) for one in settings]
    if not flat:
        return []
    if key is not None:
        return [_named(values, [key]) for values in flat]
    differing = _differing(flat)
    complete = [_named(values, differing) for values in flat]
    for count in range(1, len(differing)):  # as few settings as are needed to distinguish them
        short = [_named(values, differing[:count]) for values in flat]
        if len(set(short)) == len(set(complete)):
            return short
    return [name or one.planner.label for name, one in zip(complete, settings, strict=True)]


def _differing(flat: Sequence[Json]) -> list[str]:
    """Return the settings that distinguish groups: some runs of one task differ in them."""
    tasks: dict[str, list[Json]] = {}
    for values in flat:
        tasks.setdefault(values["env.id"], []).append(values)
    return [
        name
        for name in (*_compared(flat), *SETS_APART)
        if any(values[name] != one[0][name] for one in tasks.values() for values in one)
    ]


def _compared(flat: Sequence[Json]) -> list[str]:
    """Return the settings in which runs of one group must agree, beside SETS_APART."""
    ignored = RESUMABLE | {"seed"}
    return [name for name in flat[0] if name not in ignored and not name.startswith("env.")]


def check_key(key: str | None) -> None:
    """Refuse an unknown setting.

    Raises:
        PlanetError: there is none of that name.
    """
    known = config.flatten(Settings())
    if key is not None and key not in known:
        raise PlanetError(f"--group-by {key}: no such setting{config.nearest(key, known)}")


def cells(runs: Sequence[Evaluated], names: Sequence[str], errors: list[RunError]) -> Cells:
    """Return the runs that are counted together, by task, observation in words and group.

    A run whose environment is not that of its group is left out, and added to `errors`.
    """
    grouped: Cells = {}
    for run, name in zip(runs, names, strict=True):
        place = Place(run.spec.id, run.result.observation.describe(), name)
        members = grouped.setdefault(place, [])
        if members and (line := _misfit(members[0], run)):
            line = (
                f"{run.name}: {line} in group {name}; left out of it: group by another key, "
                "or evaluate it apart"
            )
            _log.error("%s", line)
            errors.append(RunError(run.name, line))
        else:
            members.append(run)
    return grouped


def _misfit(first: Evaluated, other: Evaluated) -> str | None:
    key = first.spec.differs(other.spec, ignoring=MAY_DIFFER)
    if key is None:
        return None
    ours, theirs = (getattr(run.spec, key) for run in (first, other))
    return f"{key} = {theirs}, where {first.name} has {ours},"


def scale_of(normalise: str, spec: EnvSpec) -> float:
    """Return the score that stands for 1: dm_control's highest, or what a method has published.

    Raises:
        PlanetError: nothing is known of that task, or there is no such method.
    """
    if not is_dm_control(spec.id):
        raise PlanetError(
            f"--normalise {normalise}: the range of {spec.id} is not known; "
            "only of dm_control's tasks"
        )
    return float(spec.episode_steps) if normalise == MAX else score_of(normalise, spec.id)


def group_results(grouped: Cells, normalise: str | None) -> list[GroupResult]:
    """Return the statistics of each group."""
    return [
        GroupResult(
            group=place.label,
            task=place.task,
            observation=place.observation,
            planner=_same(run.result.planner for run in members),
            checkpoint=_same(run.result.checkpoint for run in members),
            env_steps=_ends([run.result.training.env_steps for run in members]),
            runs=[run.name for run in members],
            episodes=sum(len(run.returns) for run in members),
            summary=statistics.summary([run.returns for run in members]),
            normalised=_normalised(members, normalise),
            normalised_by=normalise,
        )
        for place, members in grouped.items()
    ]


def improvements(grouped: Cells) -> list[Comparison]:
    """Return for each two groups how probably a run of the first scores more.

    Where both have runs with the same observation, only those are compared; else all runs are.
    """
    compared = []
    for first, second in combinations(dict.fromkeys(place.label for place in grouped), 2):
        ours, theirs = (_returns_by_place(grouped, label) for label in (first, second))
        if not ours.keys() & theirs.keys():
            ours, theirs = (
                _returns_by_place(grouped, label, by_observation=False) for label in (first, second)
            )
        places = [place for place in ours if place in theirs]
        if places:
            improvement = statistics.improvement(
                [ours[place] for place in places], [theirs[place] for place in places]
            )
            tasks = list(dict.fromkeys(task for task, _ in places))
            compared.append(Comparison(first, second, tasks, improvement))
    return compared


def aggregates(grouped: Cells, normalise: str | None) -> list[Aggregate]:
    """Return the normalised scores of each group that has several tasks with one observation."""
    if normalise is None:
        return []
    scores = []
    for observation, label in dict.fromkeys(place[1:] for place in grouped):
        tasks = {
            place.task: members
            for place, members in grouped.items()
            if place[1:] == (observation, label)
        }
        if len(tasks) > 1:
            scaled = [_scaled(members, normalise) for members in tasks.values()]
            summary = statistics.across_tasks(scaled)
            scores.append(Aggregate(label, observation, list(tasks), normalise, summary))
    return scores


def warn_of_twins(grouped: Cells) -> None:
    """Warn of groups in which several runs have the same seed."""
    for place, members in grouped.items():
        seeds = [run.settings.seed for run in members]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            _log.warning(
                "%s, %s: several runs of seed %s are counted as so many seeds; "
                "intervals take them for independent",
                place.task,
                place.label,
                ", ".join(map(str, twice)),
            )


def warn_of_tasks(runs: Sequence[Evaluated]) -> None:
    """Warn of settings that differ from task to task, in groups that have several tasks."""
    flat = [config.flatten(run.settings) for run in runs if not run.simulated]
    if not flat:
        return
    within = _differing(flat)
    own = [
        name
        for name in _compared(flat)
        if name not in within and any(values[name] != flat[0][name] for values in flat)
    ]
    if own:
        _log.warning(
            "%s: %s from task to task; taken for the tasks' own, they make no other groups "
            "(--group-by does)",
            ", ".join(own),
            "differs" if len(own) == 1 else "differ",
        )


def warn_of_few(groups: Sequence[GroupResult]) -> None:
    """Warn of groups with so few seeds that their percentile intervals are too narrow."""
    coverage = statistics.COVERAGE
    few = dict.fromkeys((group.group, group.seeds) for group in groups)
    if several := [
        f"{label}: {seeds} seeds, about {coverage[seeds]} %"
        for label, seeds in few
        if seeds in coverage
    ]:
        _log.warning(
            "ci95 of few seeds contains the true mean less often than in 95 %% of cases (%s); "
            "t95, wider, contains it",
            ", ".join(several),
        )
    if single := [label for label, seeds in few if seeds == 1]:
        _log.warning(
            "one seed (%s): its interval is of its episodes and says nothing about other seeds",
            ", ".join(single),
        )


def _normalised(members: Sequence[Evaluated], normalise: str | None) -> Summary | None:
    return None if normalise is None else statistics.summary(_scaled(members, normalise))


def _scaled(members: Sequence[Evaluated], normalise: str) -> list[list[float]]:
    scale = scale_of(normalise, members[0].spec)
    return [[value / scale for value in run.returns] for run in members]


def _returns_by_place(
    grouped: Cells, label: str, by_observation: bool = True
) -> dict[tuple[str, str], list[list[float]]]:
    """Return the returns of a group's runs by task and, if asked for, by observation."""
    returns: dict[tuple[str, str], list[list[float]]] = {}
    for place, members in grouped.items():
        if place.label == label:
            key = place.task, place.observation if by_observation else ""
            returns.setdefault(key, []).extend(run.returns for run in members)
    return returns


def _named(values: Json, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={_in_words(values[key])}" for key in keys)


def _same(values: Iterable[T]) -> T | list[T]:
    """Return the value that all have, or all that there are."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def _ends(values: Sequence[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else [min(values), max(values)]


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{_in_words(value[name])}" for name in sorted(value)) or "none"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)
