"""The protocol for dm_control runs: fixed reset seeds, no exploration noise, every episode counted; `planet eval`."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import Stages
from planet_rssm.evaluation import groups as grouping
from planet_rssm.evaluation.episode_cache import Kept, row
from planet_rssm.evaluation.groups import Evaluated
from planet_rssm.evaluation.opened_run import OnEpisode, Pools, Subject, open_subject
from planet_rssm.evaluation.protocol import EpisodeResult, batches, seen_by
from planet_rssm.evaluation.published import check_method, published
from planet_rssm.evaluation.statistics import summary
from planet_rssm.runs.run import METRICS, read_metrics

_log = logging.getLogger("planet_rssm")


def evaluate(
    runs: Sequence[str],
    seeds: Sequence[int],
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    device: str = "auto",
    group_by: str | None = None,
    normalise: str | None = None,
    fresh: bool = False,
    on_run: Callable[[str], object] = lambda name: None,
    on_episode: OnEpisode = lambda result: None,
) -> dict[str, Any]:
    """Play the same episodes with every run, and say how well each and each group did.

    What was played is kept beside each run as it ends, and not played again. An episode's noise is
    its seed's own, whatever is played beside it.

    Args:
        runs: run folders, `simulator:TASK`, and policies of your own, `module:Policy@TASK`.
        seeds: of the episodes' resets.
        checkpoint: `last`, `best` or a number of env_steps.
        overrides: `key=value` texts for `planner.…`, `rssm.filter_by` and `rssm.plan_by`, for all
            runs.
        device: where the models run.
        group_by: the dotted setting by which runs are grouped; None: by all in which they differ
            but their seeds.
        normalise: `max` or the method of a published score, by which scores are divided.
        fresh: play again what was kept.
        on_run: told each run's name as it begins.
        on_episode: told each episode as it ends, also those that were kept.

    Returns:
        The object that `planet eval --json` prints. A run that cannot be evaluated has its line in
        `errors`, and the others are evaluated all the same. Equal evaluations are equal but for
        `seconds`.

    Raises:
        PlanetError: a key or a method that there is not.
    """
    grouping.check_key(group_by)
    check_method(normalise)
    stages, wrong = Stages(), list[dict[str, str]]()
    done: list[Evaluated] = []
    with Pools() as pools:
        for run in runs:
            on_run(run)
            try:
                done.append(_evaluated(run, done, seeds, checkpoint, overrides, device, normalise, fresh, pools, stages,
                                       on_episode))  # fmt: skip
            except PlanetError as error:
                pools.drop()
                line = str(error) if run in str(error) else f"{run}: {error}"
                _log.error("%s", line)
                wrong.append({"run": run, "error": line})
    with stages("statistics"):
        told = _told(done, wrong, group_by, normalise)
    return told | {"seconds": stages.report()}


def _evaluated(
    run: str,
    done: Sequence[Evaluated],
    seeds: Sequence[int],
    checkpoint: str,
    overrides: Sequence[str],
    device: str,
    normalise: str | None,
    fresh: bool,
    pools: Pools,
    stages: Stages,
    on_episode: OnEpisode,
) -> Evaluated:
    """Evaluate one run; whatever is wrong with it is one PlanetError."""
    with stages("start"):
        subject = open_subject(run, checkpoint, overrides, device)
        if normalise is not None:
            grouping.scale_of(normalise, subject.spec)
        for other in done:
            if other.made_of == subject.made_of:
                raise PlanetError(
                    f"{run}: the same as {other.name}, no other seed; evaluate it once"
                )
        kept = Kept(subject.folder, f"{subject.checkpoint or 'simulator'}-{subject.settings.planner.name}",
                    subject.made_of)  # fmt: skip
    if fresh:
        kept.rows.clear()
    for seed in seeds:
        if seed in kept.rows:
            on_episode(kept.rows[seed])
    width = min(
        subject.batch, len(seeds)
    )  # the same whatever was kept: other widths round otherwise
    for batch in batches([seed for seed in seeds if seed not in kept.rows], width):
        kept.add(subject.play(batch, width, pools, stages, on_episode))
    return Evaluated(subject.settings, subject.spec, _result(subject, [kept.rows[seed] for seed in seeds]),
                     subject.made_of)  # fmt: skip


def _result(subject: Subject, results: Sequence[EpisodeResult]) -> dict[str, Any]:
    planner = subject.settings.planner
    return {
        "run": subject.name,
        "task": subject.spec.id,
        "seed": subject.settings.seed,
        "planner": planner.label,
        "planner_settings": planner.model_dump(mode="json"),
        "precision": subject.made_of["precision"],
        "observation": subject.observation,
        **subject.spec.timing(),
        "checkpoint": subject.checkpoint,
        "trained": {**subject.trained, "test_return": _last_test(subject)},
        "episodes": [row(result) for result in results],
        **summary([[result.episode_return for result in results]]),
    }


def _last_test(subject: Subject) -> float | None:
    """Return what the run itself measured last, up to the checkpoint; metrics that cannot be read cost a line."""
    if subject.folder is None or not (subject.folder / METRICS).is_file():
        return None
    try:
        tests = [
            line
            for line in read_metrics(subject.folder)
            if line["phase"] == "test" and "return" in line
        ]
    except PlanetError as error:
        _log.warning("%s", error)
        return None
    learned = subject.trained["updates"]
    before = [
        line["return"] for line in tests if learned is None or line.get("updates", 0) <= learned
    ]
    return before[-1] if before else None


def _told(
    done: Sequence[Evaluated],
    wrong: list[dict[str, str]],
    group_by: str | None,
    normalise: str | None,
) -> dict[str, Any]:
    seen = [seen_by(run.result["observation"]) for run in done]
    found = grouping.cells(done, grouping.labels(done, group_by), seen, wrong)
    groups = grouping.told(found, normalise)
    grouping.warn_of_twins(found)
    grouping.warn_of_few(groups)
    return {
        "results": [run.result for run in done],
        "groups": groups,
        "improvement": grouping.improvements(found),
        "aggregates": grouping.aggregates(found, normalise),
        "published": [
            entry
            for task in dict.fromkeys(run.spec.id for run in done)
            for entry in published(task)
        ],
        "errors": wrong,
    }
