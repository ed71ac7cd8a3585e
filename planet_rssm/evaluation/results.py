"""What `planet plan` returns, and the parts that results of several verbs share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planet_rssm.base.json_types import Json
from planet_rssm.config import EnvSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.evaluation.statistics import Summary, summary

if TYPE_CHECKING:
    from planet_rssm.types import Planner


@dataclass(frozen=True)
class ObservationInfo:
    """What a policy observes."""

    observe: str  # pixels, vectors, both or state (the simulator's own)
    renderer: str  # see EnvSpec
    size: int  # pixels a side
    simulator: str  # name and version

    @classmethod
    def of(cls, env: EnvSettings, spec: EnvSpec) -> "ObservationInfo":
        """Return what is observed of an environment with these settings."""
        return cls(env.observe, spec.renderer, env.size, spec.simulator)

    @classmethod
    def of_state(cls, env: EnvSettings, spec: EnvSpec) -> "ObservationInfo":
        """Return what a planner in the simulator observes: the state itself."""
        return cls("state", "none", env.size, spec.simulator)

    def to_json(self) -> dict[str, str | int]:
        """Return the object that `--json` prints."""
        return dict(vars(self))

    def describe(self) -> str:
        """Return it in words, as tables name it."""
        return describe_observation(self.to_json())


def describe_observation(observation: Json) -> str:
    """Return in words what is observed, of `observation` as the verbs print it in JSON."""
    pixels = "{renderer} {size}x{size} pixels".format(**observation)
    words = {
        "pixels": pixels,
        "vectors": "vectors",
        "both": f"{pixels} and vectors",
        "state": "the simulator's state",
    }
    return words[observation["observe"]]


def checkpoint_name(checkpoint: str) -> str | int:
    """Return a checkpoint as it was asked for: `last`, `best` (a selected one), or a number."""
    return int(checkpoint) if checkpoint.isdecimal() else checkpoint


def sequences_of(planner: "Planner[Any, Any]") -> int | None:
    """Return how many sequences a decision scores; None where the planner is no search."""
    from planet_rssm.planners import SearchPlanner  # torch: not for a set of random episodes

    return sum(planner.populations) if isinstance(planner, SearchPlanner) else None


def summary_of(episodes: Sequence[EpisodeResult]) -> Summary:
    """Return the statistics of the returns of episodes of one run."""
    return summary([[episode.episode_return for episode in episodes]])


def summaries_of(returns: Mapping[str, Sequence[float]]) -> dict[str, Summary | None]:
    """Return the statistics of each baseline's returns, by its name."""
    return {name: summary([values]) for name, values in returns.items()}


@dataclass(frozen=True)
class PlanResult:
    """How well a planner did in its own episodes, beside the baselines."""

    task: str
    planner: str
    planner_settings: Json
    sequences: int | None  # that a decision scores; None: the planner is no search
    precision: str
    observation: ObservationInfo
    checkpoint: str | int | None  # None: a simulator has none
    env_steps: int  # that the checkpoint has learned from
    timing: dict[str, dict[str, float | str]]  # see EnvSpec.timing
    batch: int  # environments side by side
    episodes: list[EpisodeResult]
    returns: Summary
    baselines: dict[str, Summary | None]  # by name; None: there is none of that name
    latency_ms: dict[str, float]  # p50, p95 and p99 of a decision for the batch
    seconds: dict[str, float]  # by stage, and `total`
    video: str | None  # file
    written: dict[str, str | None] = field(default_factory=dict)  # other files, by their kind
    goal: str | None = None  # the picture that was planned to, in place of rewards

    def to_json(self) -> Json:
        """Return the object that `planet plan --json` prints."""
        measured = {name: of for name, of in self.baselines.items() if of is not None}
        return {
            "task": self.task,
            "planner": self.planner,
            "episodes": [episode.to_json() for episode in self.episodes],
            "return": self.returns.to_json(),
            "baselines": {name: of and of.mean for name, of in self.baselines.items()},
            "baselines_ci95": {name: of.ci95["mean"] for name, of in measured.items()},
            "latency_ms": self.latency_ms,
            **self.timing,
            "batch": self.batch,
            "planner_settings": self.planner_settings,
            "sequences": self.sequences,
            "precision": self.precision,
            "video": self.video,
            **self.written,
            "observation": self.observation.to_json(),
            "checkpoint": self.checkpoint,
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            **({"goal": self.goal} if self.goal else {}),
        }
