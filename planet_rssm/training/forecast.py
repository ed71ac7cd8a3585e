"""What a run would take, calculated from what each of its parts costs once."""

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.blind_baselines import BLIND_ROWS, constant_actions
from planet_rssm.evaluation.protocol import PARALLEL


class Costs(NamedTuple):
    """What one of each costs, in seconds unless it says bytes."""

    env_start: float  # all workers
    env_reset: float  # of all rows, one after the other or side by side as the pool does it
    env_step: float  # an agent step of all rows
    decision: float  # for all rows
    update: float
    checkpoint: float  # written; reading it back is not in it
    fsync: float  # a small file, written durably
    disk: float  # a byte
    checkpoint_bytes: int
    frame_bytes: int  # of an episode's file
    blind_step: float = 0.0  # an agent step of the two rows that the simple baselines are played in
    # the same two while each has its share of the processor's threads: with train.staleness
    update_beside: float = 0.0
    decision_beside: float = 0.0


@dataclass(frozen=True)
class Counts:
    """What a run does."""

    env_steps: int
    episodes: int
    frames: int
    updates: int
    test_episodes: int
    plan_episodes: int


@dataclass(frozen=True)
class Forecast:
    """What a run takes."""

    run: Counts
    padding: float  # share of each batch
    seconds: dict[str, float]  # by part, and `total`
    bytes: dict[str, int]  # on the disk at the end by part, and `total`; no metrics and videos

    def to_json(self) -> Json:
        """Return the part of the object that `planet train --dry-run --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class EarlyEnds:
    """What a run takes if all its episodes end early."""

    steps: float  # env_steps of an episode
    forecast: Forecast

    def to_json(self) -> Json:
        """Return the part of the object that `planet train --dry-run --json` prints."""
        return {"steps": self.steps, **self.forecast.to_json()}


def forecast(
    settings: Settings,
    spec: EnvSpec,
    costs: Costs,
    length: float | None = None,
    plan_episodes: int = 0,
) -> Forecast:
    """Return what a run takes whose episodes all end by time, or after `length` env_steps."""
    length = length or spec.episode_steps
    train = settings.train
    steps = math.ceil(length / spec.action_repeat)
    planned_rounds = max(
        math.ceil((train.env_steps / length - train.seed_episodes) / train.round_episodes), 0
    )
    rounds = 1 + planned_rounds
    episodes = train.seed_episodes + planned_rounds * train.round_episodes
    tests = math.ceil(rounds / train.test_every)
    episode_bytes = (steps + 1) * costs.frame_bytes
    kept = min(episodes, settings.data.capacity // (steps + 1) + train.round_episodes)
    blind = costs.env_reset + steps * costs.env_step  # seconds of one episode in every row
    seeing = blind + steps * costs.decision
    # The second planned round is the first whose episodes are planned while the learner learns.
    beside = max(planned_rounds - 1, 0) if train.staleness else 0
    learning = train.updates * costs.update_beside
    turns = train.collectors  # one after the other, in one process
    waiting = max(turns * (blind + steps * costs.decision_beside) - learning, 0.0)
    seconds = {
        "collect": math.ceil(train.seed_episodes / train.envs) * blind
        + (planned_rounds - beside) * turns * seeing
        + beside * waiting
        + episodes * (costs.fsync + episode_bytes * costs.disk),
        "learn": (rounds - beside) * train.updates * costs.update + beside * learning,
        "test": tests * math.ceil(train.test_episodes / train.envs) * seeing,
        "commit": (rounds + tests) * costs.checkpoint,
        "plan": _planning(costs, spec, train.envs, steps, plan_episodes),
    }
    size = {
        "episodes": kept * episode_bytes,
        "checkpoints": (train.keep + 1) * costs.checkpoint_bytes,
    }
    return Forecast(
        run=Counts(
            env_steps=round(episodes * length),
            episodes=episodes,
            frames=episodes * (steps + 1),
            updates=rounds * train.updates,
            test_episodes=tests * train.test_episodes,
            plan_episodes=plan_episodes,
        ),
        padding=max(1 - (steps + 1) / train.batch_length, 0.0),
        seconds={**seconds, "total": costs.env_start + sum(seconds.values())},
        bytes={**size, "total": sum(size.values())},
    )


def _planning(costs: Costs, spec: EnvSpec, envs: int, steps: int, episodes: int) -> float:
    """Return the seconds of `episodes` of `steps` agent steps, planned and by each baseline."""
    if not episodes:
        return 0.0
    rows = min(episodes, PARALLEL)
    wider = max(rows / envs, 1.0)  # what was measured is for `envs` rows
    seeing = costs.env_reset + steps * wider * (costs.env_step + costs.decision)
    _, constants = constant_actions(spec)
    blind = (2 + len(constants)) * math.ceil(episodes / BLIND_ROWS) * steps * costs.blind_step
    # Planned twice: by the trained model and by an untrained one.
    return 2 * math.ceil(episodes / rows) * seeing + blind
