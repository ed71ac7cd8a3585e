"""Our returns task by task beside PlaNet's and Dreamer's published ones, and means over tasks."""

from collections.abc import Sequence

import numpy as np

from planet_rssm.config import is_dm_control
from planet_rssm.evaluation import statistics
from planet_rssm.evaluation.eval_results import TaskRow, TaskTable
from planet_rssm.evaluation.groups import Cells, scale_of
from planet_rssm.evaluation.published import (
    MAX,
    METHODS,
    PLANET_TASKS,
    PublishedScore,
    published_by,
)


def task_tables(grouped: Cells) -> list[TaskTable]:
    """Return a table for each group that has several tasks of dm_control with one observation.

    Tasks come in the order of PlaNet's table, others after them. Returns are divided by the highest
    that the suite gives, 1000 for an episode of full length.
    """
    tables = []
    for observation, label in dict.fromkeys(place[1:] for place in grouped):
        tasks = {
            place.task: members
            for place, members in grouped.items()
            if place[1:] == (observation, label) and is_dm_control(place.task)
        }
        if len(tasks) < 2:
            continue
        order = sorted(tasks, key=_place)
        rows, scaled = [], []
        for task in order:
            members = tasks[task]
            steps = sorted({run.result.training.env_steps for run in members})
            obs = "pixels" if "pixels" in observation else "state"
            rows.append(
                TaskRow(
                    task=task,
                    env_steps=steps[0] if len(steps) == 1 else [steps[0], steps[-1]],
                    summary=statistics.summary([run.returns for run in members]),
                    published={name: published_by(task, obs, steps[-1], name) for name in METHODS},
                )
            )
            scale = scale_of(MAX, members[0].spec)
            scaled.append([[value / scale for value in run.returns] for run in members])
        beside = {name: _over_tasks([row.published[name] for row in rows]) for name in METHODS}
        summary = statistics.across_tasks(scaled)
        tables.append(TaskTable(label, observation, rows, summary, beside))
    return tables


def _place(task: str) -> tuple[int, str]:
    known = task in PLANET_TASKS
    return (PLANET_TASKS.index(task) if known else len(PLANET_TASKS)), task


def _over_tasks(scores: Sequence[PublishedScore | None]) -> dict[str, float] | None:
    """Return mean and interquartile mean of published scores, each a task's, divided by 1000."""
    known = [score.score / 1000 for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    values = np.array(known)
    return {"mean": float(values.mean()), "iqm": float(statistics.iqm(values))}
