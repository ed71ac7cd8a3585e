"""The tables of scores and baselines on the page of `planet report`."""

from collections.abc import Sequence

from planet_rssm.base.json_types import Json
from planet_rssm.evaluation.published import METHODS, published, published_by
from planet_rssm.report import tables
from planet_rssm.report.page.reading import RunFiles
from planet_rssm.report.page.series import rounded


def score_tables(scores: Json, runs: Sequence[RunFiles]) -> Json:
    """Return the tables of `planet eval`, and the protocols of what stands beside ours."""
    tasks = list(dict.fromkeys(run.task for run in runs if run.settings))
    beside = [score for task in tasks for score in published(task)]
    return {
        "columns": [*tables.COLUMNS, "published"],
        "rows": [
            [*row, tables.published_beside(group)]
            for row, group in zip(tables.rows(scores["groups"]), scores["groups"], strict=True)
        ],
        "by_task": [
            (f"{one['group']}, {one['observation']}", tables.BY_TASK, tables.task_rows(one))
            for one in scores["tables"]
        ],
        "improvement": [
            f"{pair['group']} scores more than {pair['over']} with probability "
            f"{pair['probability']:.2f} ({pair['ci95'][0]:.2f} to {pair['ci95'][1]:.2f}), of "
            f"{pair['of']}"
            for pair in scores["improvement"]
        ],
        "published_columns": tables.PUBLISHED,
        "published": tables.published_rows([score.to_json() for score in beside]),
        "unpublished": sorted(set(tasks) - {score.task for score in beside}),
        "errors": [error["error"] for error in scores["errors"]],
        "raycast": any(run.settings and run.settings.env.renderer == "raycast" for run in runs),
    }


def levels_of(means: Sequence[dict[str, tuple[float, int]]]) -> list[Json]:
    """Return the baselines of the runs of a chart, by name: the mean over those that have it."""
    names = dict.fromkeys(name for one in means for name in one)
    return [
        {"name": name, "value": rounded(sum(values) / len(values))}
        for name in names
        if (values := [one[name][0] for one in means if name in one])
    ]


def published_levels(runs: Sequence[RunFiles]) -> list[Json]:
    """Return the published scores to draw beside the runs of a chart, of PlaNet and of Dreamer."""
    trained = max(int(run.last.get("env_steps") or 0) for run in runs)
    obs = "pixels" if "pixels" in runs[0].observation else "state"
    scores = (published_by(runs[0].task, obs, trained, method) for method in METHODS)
    return [
        {
            "name": f"{score.method} after {tables.steps(score.steps)}",
            "value": score.score,
            "protocol": f"{score.protocol} ({score.source})",
        }
        for score in scores
        if score is not None
    ]


def baseline_rows(levels: dict[str, dict[str, tuple[float, int]]]) -> Json:
    """Return the table of the baselines: a row each run that has some."""
    names = list(dict.fromkeys(name for means in levels.values() for name in means))
    rows = [
        [run, *(round(means[name][0], 1) if name in means else None for name in names)]
        + [max(count for _, count in means.values())]
        for run, means in levels.items()
        if means
    ]
    return {"columns": ["run", *names, "episodes"], "rows": rows}
