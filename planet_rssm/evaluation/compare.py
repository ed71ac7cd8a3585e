"""`planet compare`: the return of each way to decide, all of them given the same time."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from planet_rssm.base.device import processor
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.stopwatch import Stages
from planet_rssm.config import Settings
from planet_rssm.evaluation import groups as grouping
from planet_rssm.evaluation import statistics
from planet_rssm.evaluation.elsewhere import tasks_on
from planet_rssm.evaluation.equal_time import WAYS, Search, check_overrides
from planet_rssm.evaluation.eval_results import RunError
from planet_rssm.evaluation.evaluate import begin_episodes, episodes_of
from planet_rssm.evaluation.opened_run import Pools, Subject, checksum, run_subject
from planet_rssm.evaluation.own_policy import is_own_policy
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.results import ObservationInfo, checkpoint_name
from planet_rssm.evaluation.simulator_settings import PREFIX
from planet_rssm.evaluation.statistics import Summary
from planet_rssm.evaluation.timed_ways import TimedWays, made_of
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import OpenedRun

_log = logging.getLogger("planet_rssm")


@dataclass(frozen=True)
class Cell:
    """One way to decide, given so much time, with the runs of one group."""

    way: str
    ms: float  # that a decision may take
    search: Search | None  # None: none fits
    least: Search  # the smallest that there is
    episodes: dict[str, list[EpisodeResult]]  # by run
    summary: Summary | None

    def to_json(self) -> Json:
        """Return the entry of `cells` in what `planet compare --json` prints."""
        search = self.search
        fitted: Json = {
            "candidates": search and search.candidates,
            "rounds": search and search.rounds,
            "fitted_ms": search and round(search.ms, 3),
            "precision": search and search.precision,
            "latency_ms": search and search.latency_ms,
            "least_ms": round(self.least.ms, 3),
        }
        played = {
            run: [episode.to_json() for episode in episodes]
            for run, episodes in self.episodes.items()
        }
        numbers = {"mean": None} if self.summary is None else self.summary.to_json()
        return {"way": self.way, "ms": self.ms, **fitted, **numbers, "episodes": played}


@dataclass(frozen=True)
class Compared:
    """The ways to decide of the runs of one group: seeds of one another."""

    task: str
    observation: str  # in words
    group: str  # in which settings it differs from the other groups; "" where in none
    runs: list[str]
    env_steps: list[int]
    cells: list[Cell]
    left_out: dict[str, str]  # ways that these runs do not have, and why

    def to_json(self) -> Json:
        """Return the entry of `groups` in what `planet compare --json` prints."""
        return {
            "task": self.task,
            "observation": self.observation,
            "group": self.group,
            "runs": self.runs,
            "env_steps": self.env_steps,
            "cells": [cell.to_json() for cell in self.cells],
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class CompareResult:
    """What each way to decide returns in the same time."""

    ms: list[float]
    seeds: list[int]  # of the episodes
    checkpoint: str | int
    groups: list[Compared]
    errors: list[RunError]
    device: str
    threads: int
    processor: str
    seconds: dict[str, float]  # by stage, and `total`

    def to_json(self) -> Json:
        """Return the object that `planet compare --json` prints."""
        return {
            "ms": self.ms,
            "ways": list(WAYS),
            "seeds": self.seeds,
            "checkpoint": self.checkpoint,
            "groups": [group.to_json() for group in self.groups],
            "errors": [error.to_json() for error in self.errors],
            "device": self.device,
            "threads": self.threads,
            "processor": self.processor,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class _Run:
    name: str
    opened: OpenedRun
    facts: Any  # see made_of
    ways: TimedWays

    @property
    def settings(self) -> Settings:
        return self.opened.checkpoint.settings


# by way and size of its search
Played = dict[tuple[Any, ...], list[EpisodeResult]]
Subjects = dict[tuple[Any, ...], Subject]


def compare(
    runs: Sequence[str],
    budgets: Sequence[float],
    seeds: Sequence[int],
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    device: str = "auto",
    fresh: bool = False,
    on: str | None = None,
    on_stage: Callable[[str], object] = lambda name: None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> CompareResult:
    """Measure how long the ways to decide take, choose what fits, and play the same episodes.

    First the times of all runs are measured, which wants the machine for itself; what was chosen
    is fixed from then on. Then the episodes are played, side by side. Both are kept beside each
    run, and not done again.

    Args:
        runs: run folders, or `pretrained:NAME`. Those that differ in their seed alone form a group,
            whose first run is timed.
        budgets: milliseconds of one decision, each above 0.
        seeds: of the episodes' resets.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`; each
            counts for the ways that read it.
        device: where the models run.
        fresh: measure and play again what was kept.
        on: `ray` or `ray:ADDRESS`, a cluster that plays the episodes; times are measured here.
        on_stage: given what is done next.
        on_progress: given the episodes that are played, and all that there are.

    Returns:
        The result. A run that cannot be compared has a line in `errors`.

    Raises:
        PlanetError: an override of what is chosen by the time, or a cluster that cannot be reached.
    """
    check_overrides(overrides)
    stages = Stages()
    opened: list[_Run] = []
    played: dict[str, Played] = {}
    errors: list[RunError] = []

    def fail(run: str, error: PlanetError) -> None:
        line = str(error) if run in str(error) else f"{run}: {error}"
        _log.error("%s", line)
        errors.append(RunError(run, line))

    with Pools() as pools:
        for name in runs:
            try:
                with stages("times"):
                    run = _opened(name, checkpoint, overrides, device, fresh, budgets, opened)
                    run.ways.measure(budgets, seeds[0], pools, on_stage)
                opened.append(run)
            except PlanetError as error:
                pools.drop()
                fail(name, error)
        total = len(seeds) * sum(len(set(_searches(run))) for run in opened)
        done = 0

        def count(episode: EpisodeResult) -> None:
            nonlocal done
            done += 1
            on_progress(done, total)

        with tasks_on(on) as tasks:
            ready: dict[str, Subjects] = {}
            if tasks is not None:
                for run in opened:
                    ready[run.name] = dict(_subjects(run, checkpoint))
                    for subject in ready[run.name].values():
                        begin_episodes(subject, seeds, fresh, tasks)
            for run in list(opened):
                on_stage(f"play: {run.name}")
                subjects = iter(ready[run.name].items()) if ready else _subjects(run, checkpoint)
                try:
                    played[run.name] = {
                        key: episodes_of(subject, seeds, fresh, pools, stages, count, tasks)
                        for key, subject in subjects
                    }
                except PlanetError as error:
                    pools.drop()
                    fail(run.name, error)
                    opened.remove(run)
    with stages("statistics"):
        groups = _groups(opened, budgets, played)
    return CompareResult(
        ms=list(budgets),
        seeds=list(seeds),
        checkpoint=checkpoint_name(checkpoint),
        groups=groups,
        errors=errors,
        device=str(opened[0].opened.device) if opened else device,
        threads=torch.get_num_threads(),
        processor=processor(),
        seconds=stages.report(),
    )


def _opened(
    name: str,
    checkpoint: str,
    overrides: Sequence[str],
    device: str,
    fresh: bool,
    budgets: Sequence[float],
    before: Sequence[_Run],
) -> _Run:
    """Open a run; the times of one of the same kind `before` are its own."""
    if name.startswith(PREFIX) or is_own_policy(name):
        raise PlanetError(
            f"{name}: has no learned model to search in; give a run folder or pretrained:NAME"
        )
    opened = checkpoints.open_run(name, checkpoint, device=device)
    facts = made_of(opened, budgets, overrides)
    for other in before:
        if checksum(other.opened.path) == checksum(opened.path):
            raise PlanetError(f"{name}: the same as {other.name}, no other seed; compare it once")
    folder = location.outputs(Path(name))
    ways = TimedWays(name, opened, facts, folder, overrides=overrides, fresh=fresh)
    alike = next((other for other in before if other.facts == facts), None)
    if alike is not None:
        ways.timings = alike.ways.timings
    return _Run(name, opened, facts, ways)


def _searches(run: _Run) -> list[tuple[Any, ...]]:
    """Return what a run plays with, as the keys of `Played`: one for each way and time."""
    return [
        (way, *search.size)
        for way, timing in run.ways.timings.items()
        if timing
        for search in timing.searches.values()
        if search
    ]


def _subjects(run: _Run, checkpoint: str) -> Iterator[tuple[tuple[Any, ...], Subject]]:
    """Yield each search of a run once; those that fit into several times are the same."""
    done: set[tuple[Any, ...]] = set()
    for way, timing in run.ways.timings.items():
        for search in timing.searches.values() if timing else ():
            if search is None or (way, *search.size) in done:
                continue
            done.add((way, *search.size))
            acting = run.opened._replace(checkpoint=run.ways.settings(way, search))
            yield (way, *search.size), run_subject(run.name, checkpoint, acting)


def _groups(
    runs: Sequence[_Run], budgets: Sequence[float], played: dict[str, Played]
) -> list[Compared]:
    kinds: list[list[_Run]] = []
    for run in runs:
        alike = next((kind for kind in kinds if kind[0].facts == run.facts), None)
        if alike is None:
            kinds.append([run])
        else:
            alike.append(run)
    labels = grouping.labels_of([kind[0].settings for kind in kinds], None) if kinds else []
    groups = []
    for label, kind in zip(labels, kinds, strict=True):
        first = kind[0]
        loaded = first.opened.checkpoint
        groups.append(
            Compared(
                task=loaded.spec.id,
                observation=ObservationInfo.of(first.settings.env, loaded.spec).describe(),
                group=label if "=" in label else "",
                runs=[run.name for run in kind],
                env_steps=[run.opened.checkpoint.progress["env_steps"] for run in kind],
                cells=[
                    _cell(kind, way, ms, played)
                    for way, timing in first.ways.timings.items()
                    if timing
                    for ms in budgets
                ],
                left_out=first.ways.left_out,
            )
        )
    return groups


def _cell(kind: Sequence[_Run], way: str, ms: float, played: dict[str, Played]) -> Cell:
    timing = kind[0].ways.timings[way]
    assert timing is not None
    search = timing.searches[ms]
    if search is None:
        return Cell(way, ms, None, timing.least, {}, None)
    episodes = {run.name: played[run.name][way, *search.size] for run in kind}
    returns = [[episode.episode_return for episode in of_run] for of_run in episodes.values()]
    return Cell(way, ms, search, timing.least, episodes, statistics.summary(returns))
