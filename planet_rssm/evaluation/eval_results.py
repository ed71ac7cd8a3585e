"""What `planet eval` returns, and the JSON that `--json` prints of it."""

from dataclasses import dataclass

from planet_rssm.base.json_types import Json
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.published import MAX, PLANET_TASKS, PublishedScore
from planet_rssm.evaluation.results import ObservationInfo
from planet_rssm.evaluation.statistics import Improvement, Summary


@dataclass(frozen=True)
class Training:
    """What a checkpoint has learned from; None: its file does not say."""

    env_steps: int
    updates: int | None
    seconds: float | None

    @classmethod
    def of(cls, progress: Json) -> "Training":
        """Read a checkpoint's counters."""
        get = progress.get
        return cls(env_steps=progress["env_steps"], updates=get("updates"), seconds=get("seconds"))


@dataclass(frozen=True)
class RunResult:
    """How well one run did in `planet eval`."""

    run: str  # as the user called it
    task: str
    seed: int  # of the training
    planner: str
    planner_settings: Json
    precision: str
    observation: ObservationInfo
    timing: dict[str, dict[str, float | str]]  # see EnvSpec.timing
    checkpoint: str | int | None
    training: Training
    test_return: float | None  # the last one that the training itself measured
    episodes: list[EpisodeResult]
    summary: Summary

    @property
    def returns(self) -> list[float]:
        """The return of each episode."""
        return [episode.episode_return for episode in self.episodes]

    def to_json(self) -> Json:
        """Return the entry of `results` in what `planet eval --json` prints."""
        return {
            "run": self.run,
            "task": self.task,
            "seed": self.seed,
            "planner": self.planner,
            "planner_settings": self.planner_settings,
            "precision": self.precision,
            "observation": self.observation.to_json(),
            **self.timing,
            "checkpoint": self.checkpoint,
            "trained": {**vars(self.training), "test_return": self.test_return},
            "episodes": [episode.to_json() for episode in self.episodes],
            **self.summary.to_json(),
        }


@dataclass(frozen=True)
class RunError:
    """Why a run was not evaluated, or left out of its group."""

    run: str
    error: str

    def to_json(self) -> dict[str, str]:
        """Return the entry of `errors` in what `planet eval --json` prints."""
        return dict(vars(self))


@dataclass(frozen=True)
class GroupResult:
    """How well the runs of one group did in one task, with one kind of observation."""

    group: str
    task: str
    observation: str  # in words
    planner: str | list[str]  # a list where runs differ
    checkpoint: str | int | None | list[str | int | None]
    env_steps: int | list[int]  # that they have learned from; least and most where they differ
    runs: list[str]
    episodes: int
    summary: Summary
    normalised: Summary | None
    normalised_by: str | None

    @property
    def seeds(self) -> int:
        """How many runs it has."""
        return len(self.runs)

    def to_json(self) -> Json:
        """Return the entry of `groups` in what `planet eval --json` prints."""
        normalised: Json = {}
        if self.normalised is not None:
            normalised["normalised"] = self.normalised.to_json()
            normalised["normalised_by"] = self.normalised_by
        return {
            "group": self.group,
            "task": self.task,
            "observation": self.observation,
            "planner": self.planner,
            "checkpoint": self.checkpoint,
            "env_steps": self.env_steps,
            "runs": self.runs,
            "seeds": self.seeds,
            "episodes": self.episodes,
            **self.summary.to_json(),
            **normalised,
        }


@dataclass(frozen=True)
class Comparison:
    """How probably a run of `group` scores more than one of `over`, in the tasks of both."""

    group: str
    over: str
    tasks: list[str]
    improvement: Improvement

    def to_json(self) -> Json:
        """Return the entry of `improvement` in what `planet eval --json` prints."""
        names = {"group": self.group, "over": self.over, "tasks": self.tasks}
        return names | self.improvement.to_json()


@dataclass(frozen=True)
class Aggregate:
    """The normalised scores of a group over several tasks, of one kind of observation."""

    group: str
    observation: str  # in words
    tasks: list[str]
    normalised_by: str
    summary: Summary

    def to_json(self) -> Json:
        """Return the entry of `aggregates` in what `planet eval --json` prints."""
        return {
            "group": self.group,
            "observation": self.observation,
            "tasks": self.tasks,
            "normalised_by": self.normalised_by,
            **self.summary.to_json(),
        }


@dataclass(frozen=True)
class TaskRow:
    """The return of a group in one task, and what was published of it."""

    task: str
    env_steps: int | list[int]  # that its runs have learned from; least and most
    summary: Summary
    published: dict[str, PublishedScore | None]  # by METHODS: of the nearest number of steps

    def to_json(self) -> Json:
        """Return the entry of `tasks`."""
        return {
            "task": self.task,
            "env_steps": self.env_steps,
            **self.summary.to_json(),
            "published": {
                name: score and score.to_json() for name, score in self.published.items()
            },
        }


@dataclass(frozen=True)
class TaskTable:
    """A group of runs in several tasks of dm_control, with one kind of observation."""

    group: str
    observation: str  # in words
    rows: list[TaskRow]
    normalised: Summary  # of the returns divided by the highest of the suite
    # mean and iqm over the same tasks by METHODS; None: one of them has no score
    published: dict[str, dict[str, float] | None]

    def to_json(self) -> Json:
        """Return the entry of `tables` in what `planet eval --json` prints."""
        return {
            "group": self.group,
            "observation": self.observation,
            "tasks": [row.to_json() for row in self.rows],
            "normalised_by": MAX,
            "normalised": self.normalised.to_json(),
            "normalised_published": self.published,
            "missing": [task for task in PLANET_TASKS if task not in self._tasks],
        }

    @property
    def _tasks(self) -> set[str]:
        return {row.task for row in self.rows}


@dataclass(frozen=True)
class EvalResult:
    """How well runs and groups of them did. Equal evaluations are equal but for `seconds`."""

    results: list[RunResult]
    groups: list[GroupResult]
    improvement: list[Comparison]
    aggregates: list[Aggregate]
    tables: list[TaskTable]  # of groups in several tasks of dm_control
    published: list[PublishedScore]  # of the tasks of the runs
    errors: list[RunError]
    seconds: dict[str, float]  # by stage, and `total`

    def to_json(self) -> Json:
        """Return the object that `planet eval --json` prints."""
        return {
            "results": [run.to_json() for run in self.results],
            "groups": [group.to_json() for group in self.groups],
            "improvement": [pair.to_json() for pair in self.improvement],
            "aggregates": [scores.to_json() for scores in self.aggregates],
            "tables": [table.to_json() for table in self.tables],
            "published": [entry.to_json() for entry in self.published],
            "errors": [error.to_json() for error in self.errors],
            "seconds": self.seconds,
        }
