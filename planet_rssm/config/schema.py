"""What can be set: all sections together, and the loop's own."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from planet_rssm.config.behavior import BehaviorSettings
from planet_rssm.config.env import DataSettings, EnvSettings
from planet_rssm.config.model import (
    KLSettings,
    ModelSettings,
    OptimizerSettings,
    RSSMSettings,
    other_sizes,
    takes,
)
from planet_rssm.config.planner import PlannerSettings, learned_parts, no_actor
from planet_rssm.config.values import (
    Count,
    Integer,
    NonNegative,
    Precision,
    Section,
    Switch,
    Threads,
    number,
)

FORMAT = 1


class TrainSettings(Section):
    """The loop: collect a round of episodes, learn, test, checkpoint."""

    env_steps: Count = 1_000_000  # budget in simulator control steps, action repeats included
    # the budget instead where data.folder is set, in optimiser steps
    offline_updates: Count = 10_000
    seed_episodes: Count = 5  # random, before the first update
    envs: Count = 1  # episodes that a collector plays side by side
    # with `envs` episodes each in a round of collection; in turns, but by --collect-on at once
    collectors: Count = 1
    updates: Count = 100  # optimiser steps a round
    # 1: a process plans the next round's episodes while this one learns, with the weights that the
    # round begins with
    staleness: Annotated[Literal[0, 1], BeforeValidator(number)] = 0
    batch_size: Count = 50
    batch_length: Annotated[Count, Field(ge=2)] = 50  # agent steps a chunk
    # std added to the planned action; of choices, the chance of a random one
    exploration_noise: NonNegative = 0.3
    test_every: Count = 10  # rounds between tests without noise
    test_episodes: Count = 1
    precision: Precision = "auto"  # a run keeps what auto chose when it began, see device.py
    # false: updates by PyTorch's own layers and gradients, as a check: the same up to rounding
    fast: Switch = True
    # for arithmetic on a CPU: of updates, and of decisions while collecting; auto: `planet train`
    # measures as the run begins, which keeps both
    threads: Literal["auto"] | Threads = "auto"
    collect_threads: Literal["auto"] | Threads = "auto"
    # where metrics go too, beside the run folder: wandb and trackio, each its own package
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()
    keep: Count = 2  # newest checkpoints kept beside the best
    max_skipped: Count = 20  # updates in a row with a non-finite loss before the run stops

    @property
    def round_episodes(self) -> int:
        """The episodes of a round of collection."""
        return self.envs * self.collectors


class Settings(Section):
    """Everything that decides a run."""

    format: Annotated[Literal[1], BeforeValidator(number)] = 1
    seed: Annotated[Integer, Field(ge=0, lt=2**64)] = 0
    device: Annotated[str, Field(min_length=1)] = "auto"
    env: EnvSettings = EnvSettings()
    data: DataSettings = DataSettings()
    rssm: RSSMSettings = RSSMSettings()
    kl: KLSettings = KLSettings()
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    behavior: BehaviorSettings = BehaviorSettings()
    planner: PlannerSettings = PlannerSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.behavior.name == "none" and (asked := learned_parts(self.planner)):
            raise ValueError(no_actor(asked))
        images = self.env.observe != "vectors"
        if images and not takes(self.model.conv, self.env.size):
            raise ValueError(other_sizes(self.model.conv, self.env.size))
        batch = self.train.batch_size * self.train.batch_length
        if self.data.capacity < self.train.batch_length:
            raise ValueError(
                f"data.capacity = {self.data.capacity}: at least one chunk of train.batch_length "
                f"= {self.train.batch_length} frames; raise it"
            )
        share = self.model.decode_fraction
        if round(share * batch) < 1:
            raise ValueError(
                f"model.decode_fraction = {share}: decodes none of a batch's {batch} frames; "
                "raise it"
            )
        return self
