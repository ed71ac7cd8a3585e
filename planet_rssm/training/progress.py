"""What a run counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import Settings
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.training.metrics import COUNTERS

# A checkpoint without these is none that a run can continue from.
NEEDED = ("rounds", "env_steps", "agent_steps", "updates", "episodes", "metrics_offset")


@dataclass
class Progress:
    """All counts of a run. Every checkpoint holds them, and they alone decide what comes next."""

    rounds: int = 0  # completed
    env_steps: int = 0  # simulator control steps of committed training episodes
    agent_steps: int = 0
    updates: int = 0
    episodes: int = 0
    lost: int = 0  # episodes dropped because their worker died
    damaged: int = 0  # committed episodes set aside because their file had changed
    skipped: int = 0  # updates with a non-finite loss
    skipped_in_a_row: int = 0
    best_return: float | None = None
    best_env_steps: int | None = None  # of the checkpoint that got it
    seconds: float = 0.0  # spent in all processes of this run
    metrics_offset: int = 0  # bytes of metrics.jsonl that this state has written
    metrics_crc: int | None = None  # their CRC-32
    ranks: int = 1  # processes that learned together
    data_crc: int = 0  # offline: of the episodes that are learned from
    meter: dict[str, list[float]] = field(default_factory=dict)  # means of the round's updates
    stage_seconds: dict[str, float] = field(default_factory=dict)  # where `seconds` went, by stage

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> "Progress":
        """Return what a checkpoint's run had counted.

        Raises:
            PlanetError: a count is missing or of another kind; beginning at 0 instead would delete
                episodes.
        """
        counted = checkpoint.progress
        known = {one.name: one for one in fields(cls)}
        odd = [f"lacks {name}" for name in NEEDED if name not in counted]
        odd += [f"has {name}" for name in counted if name not in known]
        counts = [
            name for name, one in known.items() if one.type in ("int", int) and name in counted
        ]
        odd += [
            f"has {name} = {counted[name]!r}"
            for name in counts
            if type(counted[name]) is not int or counted[name] < 0
        ]
        progress = cls(**{name: value for name, value in counted.items() if name in known})
        pairs = [
            isinstance(pair, list) and len(pair) == 2 for pair in dict(progress.meter).values()
        ]
        odd += [] if all(pairs) else ["has another meter"]
        if odd:
            raise PlanetError(
                f"{checkpoint.name}: its progress {odd[0]}: not as this version of planet_rssm "
                "wrote it; go on with the version that did, or from another checkpoint"
            )
        return progress

    def counters(self) -> dict[str, int]:
        """Return the counts that every metrics line carries."""
        return {name: getattr(self, name) for name in COUNTERS}


def is_complete(settings: Settings, counted: Mapping[str, int]) -> bool:
    """Return whether a run with these counts of a checkpoint has spent its budget."""
    if settings.data.folder is not None:
        return counted["updates"] >= settings.train.offline_updates
    spent = counted["env_steps"] >= settings.train.env_steps
    counts = Progress(
        rounds=counted["rounds"], episodes=counted["episodes"], updates=counted["updates"]
    )
    return spent and not round_begun(settings, counts)


def round_begun(settings: Settings, progress: Progress) -> bool:
    """Return whether a round has collected or learned something and is not complete."""
    done = episodes_after(settings, progress.rounds - 1), progress.rounds * settings.train.updates
    return (progress.episodes, progress.updates) != done


def episodes_after(settings: Settings, rounds: int) -> int:
    """Return how many episodes there are once round number `rounds` (from 0) has collected."""
    if rounds < 0:
        return 0
    return settings.train.seed_episodes + rounds * settings.train.round_episodes
