"""`planet eval`: fixed reset seeds, no exploration noise, every episode counted."""

import contextlib
import logging
from collections.abc import Callable, Sequence

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import Stages
from planet_rssm.evaluation import groups as grouping
from planet_rssm.evaluation.elsewhere import Tasks, tasks_on
from planet_rssm.evaluation.episode_cache import EpisodeCache
from planet_rssm.evaluation.eval_results import EvalResult, RunError, RunResult
from planet_rssm.evaluation.groups import Evaluated
from planet_rssm.evaluation.opened_run import OnEpisode, Pools, Subject, open_subject
from planet_rssm.evaluation.protocol import EpisodeResult, batches
from planet_rssm.evaluation.published import check_method, published
from planet_rssm.evaluation.results import summary_of
from planet_rssm.evaluation.task_tables import task_tables
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
    on: str | None = None,
    on_run: Callable[[str], object] = lambda name: None,
    on_episode: OnEpisode = lambda result: None,
) -> EvalResult:
    """Play the same episodes with every run, and measure how well each run and each group does.

    Episodes are kept beside each run as they end, and not played again. The noise of an episode
    depends on its seed alone, whatever is played beside it.

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
        on: `ray` or `ray:ADDRESS`, a cluster that plays; the numbers are the same. None: here.
        on_run: given each run's name as it begins.
        on_episode: given each episode as it ends, also those that were kept.

    Returns:
        The result. A run that cannot be evaluated has a line in `errors`, and the other runs are
        evaluated all the same.

    Raises:
        PlanetError: an unknown key or method, or a cluster that cannot be reached.
    """
    grouping.check_key(group_by)
    check_method(normalise)
    stages = Stages()
    done: list[Evaluated] = []
    errors: list[RunError] = []

    def asked(run: str) -> tuple[str, str, Sequence[str], str]:
        return run, checkpoint, overrides, device

    with tasks_on(on) as tasks, Pools() as pools:
        ready: dict[str, Subject] = {}  # whose episodes are being played elsewhere
        if tasks is not None:
            with stages("start"):
                for run in runs:
                    with contextlib.suppress(PlanetError):  # raised again when it is its turn
                        subject = open_subject(*asked(run))
                        begin_episodes(subject, seeds, fresh, tasks)
                        ready[run] = subject
        for run in runs:
            on_run(run)
            try:
                with stages("start"):
                    subject = ready[run] if run in ready else open_subject(*asked(run))
                    _check(subject, done, normalise)
                episodes = episodes_of(subject, seeds, fresh, pools, stages, on_episode, tasks)
            except PlanetError as error:
                pools.drop()
                line = str(error) if run in str(error) else f"{run}: {error}"
                _log.error("%s", line)
                errors.append(RunError(run, line))
            else:
                result = _run_result(subject, episodes)
                done.append(Evaluated(subject.settings, subject.spec, result, subject.conditions))
    with stages("statistics"):
        cells = grouping.cells(done, grouping.labels(done, group_by), errors)
        groups = grouping.group_results(cells, normalise)
        if group_by is None:
            grouping.warn_of_tasks(done)
        grouping.warn_of_twins(cells)
        grouping.warn_of_few(groups)
        improvement = grouping.improvements(cells)
        aggregates = grouping.aggregates(cells, normalise)
        tables = task_tables(cells)
    names = dict.fromkeys(run.spec.id for run in done)
    return EvalResult(
        results=[run.result for run in done],
        groups=groups,
        improvement=improvement,
        aggregates=aggregates,
        tables=tables,
        published=[entry for name in names for entry in published(name)],
        errors=errors,
        seconds=stages.report(),
    )


def _check(subject: Subject, done: Sequence[Evaluated], normalise: str | None) -> None:
    """Refuse a run that cannot be normalised, or one that was evaluated under another name."""
    if normalise is not None:
        grouping.scale_of(normalise, subject.spec)
    for other in done:
        if other.conditions == subject.conditions:
            raise PlanetError(
                f"{subject.name}: the same as {other.name}, no other seed; evaluate it once"
            )


def episodes_of(
    subject: Subject,
    seeds: Sequence[int],
    fresh: bool,
    pools: Pools,
    stages: Stages,
    on_episode: OnEpisode,
    tasks: Tasks | None = None,
) -> list[EpisodeResult]:
    """Return an episode a seed: those that were kept, and the others played now.

    With `tasks` a cluster plays those, see `begin_episodes`.
    """
    with stages("start"):
        cache = _kept(subject, fresh)
    for seed in seeds:
        if seed in cache.episodes:
            on_episode(cache.episodes[seed])
    # the same width whatever was kept: batches of other widths round otherwise
    width = min(subject.batch, len(seeds))
    for batch in batches([seed for seed in seeds if seed not in cache.episodes], width):
        if tasks is None:
            cache.add(subject.play(batch, width, pools, stages, on_episode))
        else:
            with stages("environment"):
                cache.add(tasks.finish(subject, batch, width, on_episode))
    return [cache.episodes[seed] for seed in seeds]


def begin_episodes(subject: Subject, seeds: Sequence[int], fresh: bool, tasks: Tasks) -> None:
    """Have a cluster play the episodes that `episodes_of` will want.

    Raises:
        PlanetError: see `Tasks.begin`.
    """
    kept = _kept(subject, fresh).episodes
    width = min(subject.batch, len(seeds))
    for batch in batches([seed for seed in seeds if seed not in kept], width):
        tasks.begin(subject, batch, width)


def _kept(subject: Subject, fresh: bool) -> EpisodeCache:
    """Return what was kept of a subject's episodes, nothing of it if they are to be `fresh`."""
    name = f"{subject.checkpoint or 'simulator'}-{subject.settings.planner.name}"
    cache = EpisodeCache(subject.folder, name, subject.conditions)
    if fresh:
        cache.episodes.clear()
    return cache


def _run_result(subject: Subject, episodes: list[EpisodeResult]) -> RunResult:
    planner = subject.settings.planner
    return RunResult(
        run=subject.name,
        task=subject.spec.id,
        seed=subject.settings.seed,
        planner=planner.label,
        planner_settings=planner.model_dump(mode="json"),
        precision=subject.conditions["precision"],
        observation=subject.observation,
        timing=subject.spec.timing(),
        checkpoint=subject.checkpoint,
        training=subject.training,
        test_return=_last_test(subject),
        episodes=episodes,
        summary=summary_of(episodes),
    )


def _last_test(subject: Subject) -> float | None:
    """Return what the training itself measured last, up to the checkpoint.

    Metrics that cannot be read cost a warning.
    """
    if subject.folder is None or not (subject.folder / METRICS).is_file():
        return None
    try:
        metrics = read_metrics(subject.folder)
    except PlanetError as error:
        _log.warning("%s", error)
        return None
    tests = [line for line in metrics if line["phase"] == "test" and "return" in line]
    updates = subject.training.updates
    before = [
        line["return"] for line in tests if updates is None or line.get("updates", 0) <= updates
    ]
    return before[-1] if before else None
