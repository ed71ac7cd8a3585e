"""Scores of episodes that `planet eval` has kept beside runs, grouped and compared as it does."""

import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import is_sealed, read_regular
from planet_rssm.base.json_types import Json
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation import groups as grouping
from planet_rssm.evaluation.baselines import kept_baselines
from planet_rssm.evaluation.episode_cache import FOLDER
from planet_rssm.evaluation.eval_results import EvalResult, RunError, RunResult, Training
from planet_rssm.evaluation.groups import Evaluated
from planet_rssm.evaluation.opened_run import checksum
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.published import published
from planet_rssm.evaluation.results import ObservationInfo, summary_of
from planet_rssm.evaluation.task_tables import task_tables
from planet_rssm.report.page.reading import RunFiles
from planet_rssm.report.watching import is_number
from planet_rssm.runs import location


class Kept(NamedTuple):
    """The episodes of one file of RUN/eval."""

    conditions: Json
    episodes: list[EpisodeResult]


def kept_scores(runs: Sequence[RunFiles], groups: Sequence[str], key: str | None) -> Json:
    """Return what `planet eval --json` prints, of the episodes that were kept; plays nothing.

    Each file of RUN/eval is a result of its own, where it is of the checkpoint that is the last
    one now. A run without one has a line in its `missing`. The labels are the `groups` of the runs;
    where a run was evaluated in several ways, those that `planet eval` gives by `key`.
    """
    several = [_of_run(run) for run in runs]
    done = [one for kept in several for one in kept]
    labels = [group for group, kept in zip(groups, several, strict=True) for _ in kept]
    if any(len(kept) > 1 for kept in several):
        labels = grouping.labels(done, key)
    errors: list[RunError] = []
    cells = grouping.cells(done, labels, errors)
    tasks = dict.fromkeys(run.spec.id for run in done)
    return EvalResult(
        results=[run.result for run in done],
        groups=grouping.group_results(cells, None),
        improvement=grouping.improvements(cells),
        aggregates=[],
        tables=task_tables(cells),
        published=[entry for task in tasks for entry in published(task)],
        errors=errors,
        seconds={},
    ).to_json()


def baseline_means(run: RunFiles) -> dict[str, tuple[float, int]]:
    """Return the mean return of each baseline that `planet plan` has kept, and its episodes.

    A run without them has a line in its `missing`.
    """
    try:
        kept = kept_baselines(run.outputs) or kept_baselines(run.folder)
        means = {
            str(name): (sum(returns) / len(returns), len(returns))
            for name, returns in kept.items()
            if returns and all(map(is_number, returns))
        }
    except (AttributeError, TypeError):  # the file is somebody else's, or of another version
        means = {}
    if not means:
        run.missing.append(f"no baselines: planet plan {run.word} --episodes 20")
    return means


def _of_run(run: RunFiles) -> list[Evaluated]:
    if run.settings is None:
        return []
    try:
        crc32 = checksum(location.find(run.folder))
    except (PlanetError, OSError):
        return []
    results, older = [], 0
    for kept in _files(run):
        if kept.conditions["checkpoint_crc32"] == crc32:
            results.append(_evaluated(run, kept))
        else:
            older += 1
    if not results:
        also = f" ({older} files are of other checkpoints)" if older else ""
        run.missing.append(f"not evaluated{also}: planet eval {run.word}")
    return results


def _files(run: RunFiles) -> Iterator[Kept]:
    for path in sorted((run.outputs / FOLDER).glob("*.json")):
        try:
            yield _read(path)
        except (PlanetError, OSError, ValueError, KeyError, TypeError, RecursionError):
            run.missing.append(f"{FOLDER}/{path.name}: damaged or of another version")


def _read(path: Path) -> Kept:
    data = read_regular(path)
    record = json.loads(data)
    if not is_sealed(io.BytesIO(data)):
        raise ValueError
    rows = record["rows"]
    made_of = record["made_of"]
    EnvSpec.from_json(made_of["env"])
    PlannerSettings(**made_of["planner"])
    episodes = [EpisodeResult(row["seed"], row["return"], row["env_steps"]) for row in rows]
    if not episodes or not all(is_number(one.episode_return) for one in episodes):
        raise ValueError
    return Kept(made_of, episodes)


def _evaluated(run: RunFiles, kept: Kept) -> Evaluated:
    assert run.settings is not None and run.checkpoint is not None
    planner = PlannerSettings(**kept.conditions["planner"])
    settings = run.settings.model_copy(update={"planner": planner})
    spec = EnvSpec.from_json(kept.conditions["env"])
    offline = settings.data.folder is not None
    env_steps = run.last.get("env_steps", 0) if offline else run.checkpoint
    tests = [line["return"] for line in run.of("test") if "return" in line]
    result = RunResult(
        run=run.name,
        task=spec.id,
        seed=settings.seed,
        planner=planner.label,
        planner_settings=planner.model_dump(mode="json"),
        precision=kept.conditions["precision"],
        observation=ObservationInfo.of(settings.env, spec),
        timing=spec.timing(),
        checkpoint="last",
        training=Training(env_steps=env_steps, updates=run.last.get("updates"), seconds=None),
        test_return=tests[-1] if tests else None,
        episodes=kept.episodes,
        summary=summary_of(kept.episodes),
    )
    crc = zlib.crc32(json.dumps(kept.conditions, sort_keys=True).encode())
    return Evaluated(settings, spec, result, {"file": crc})
