"""What plays a run's episodes: random ones, planned ones, and those of a test.

An order names everything that its episodes depend on, so the same order on the same weights gives
the same episodes, in this process or in another.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from planet_rssm.base.seeding import Stream
from planet_rssm.behavior import Behavior
from planet_rssm.config import TrainSettings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs.checkpoint import fill
from planet_rssm.world_model import WorldModel


@dataclass(frozen=True)
class Order:
    """Episodes to play."""

    stream: Stream  # RANDOM_ACTIONS, COLLECT (with exploration noise) or TEST (without)
    round: int
    seeds: Sequence[int]  # of the resets, an episode each
    threads: int  # for arithmetic on the CPU
    part: int | None = None  # of an order that several collectors share, which draws by itself
    first: int = 0  # index in the complete order of a part's first seed

    def parts(self, collectors: int) -> list["Order"]:
        """Return each collector's part, as equal as they can be; one without a seed has none.

        The same numbers come of them wherever and in whichever order they are played.
        """
        if self.part is not None:
            return [self]
        count = min(collectors, len(self.seeds))
        ends = [len(self.seeds) * part // count for part in range(count + 1)]
        return [
            replace(self, seeds=self.seeds[begin:end], part=part, first=begin)
            for part, (begin, end) in enumerate(itertools.pairwise(ends))
        ]

    @property
    def draws(self) -> tuple[int, ...]:
        """What names the agent's draws beside the stream."""
        return (self.round, self.part) if self.part else (self.round,)


class Threads(NamedTuple):
    """How many threads learn and how many plan on a CPU."""

    learn: int
    collect: int

    @classmethod
    def of(cls, count: int) -> "Threads":
        """Share `count`: the same machine always shares them alike, or its sums would differ."""
        return cls(max(count - count // 2, 1), max(count // 2, 1))

    @classmethod
    def asked(cls, train: TrainSettings) -> "Threads":
        """Return what the settings say; `auto` is all threads, with `staleness` a half of them."""
        count = torch.get_num_threads()
        learn, collect = cls.of(count) if train.staleness else (count, count)
        return cls(
            learn if train.threads == "auto" else train.threads,
            collect if train.collect_threads == "auto" else train.collect_threads,
        )

    def in_turns(self, train: TrainSettings) -> "Threads":
        """Return those of a stage beside which nothing runs: with `staleness` both shares."""
        if not train.staleness:
            return self
        both = min(sum(self), max(*self, torch.get_num_threads()))
        return Threads(both, both)


class Networks(NamedTuple):
    """The networks that plan."""

    model: WorldModel
    behavior: Behavior | None

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of all weights on the CPU, by part and name."""
        return {
            f"{part}/{name}": tensor.detach().to("cpu", copy=True)
            for part, module in self._parts().items()
            for name, tensor in module.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, Tensor], what: str) -> None:
        """Take what `weights` gave; `what` names it in error lines.

        Raises:
            PlanetError: it is not of networks like these.
        """
        for part, module in self._parts().items():
            own = {
                key.removeprefix(f"{part}/"): tensor
                for key, tensor in weights.items()
                if key.startswith(f"{part}/")
            }
            fill(module, own, f"{what}: {part}")

    def _parts(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"model": self.model}
        return parts if self.behavior is None else parts | {"behavior": self.behavior}


@dataclass(frozen=True)
class Played:
    """The episodes of an order."""

    episodes: list[Episode]  # in the order of the seeds
    lost: int = 0  # environments that died meanwhile
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage, of another process


class Watch(NamedTuple):
    """What is called while episodes are played; either may raise, which abandons them all."""

    tick: Callable[[], object]  # a few times a second at least
    ended: Callable[[int, Episode], object]  # with its index in the order


def joined(played: Sequence[Played]) -> Played:
    """Return the episodes of all parts of an order, given in their order."""
    seconds: dict[str, float] = {}
    for part in played:
        for stage, spent in part.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    episodes = [episode for part in played for episode in part.episodes]
    return Played(episodes, sum(part.lost for part in played), seconds)


class Collector(Protocol):
    """Plays one order at a time."""

    spec: EnvSpec

    def begin(self, order: Order, networks: Networks) -> None:
        """Take an order, which is played with the weights of this moment or of `finish`."""
        ...

    def finish(self, watch: Watch) -> Played:
        """Return the episodes of the order.

        Raises:
            PlanetError: the environment does not work, or memory is short.
        """
        ...


class BesideCollector(Collector, Protocol):
    """Plays its order while this process learns."""

    weights: dict[str, Tensor]  # that plan what is under way

    def begin_with(self, order: Order, weights: dict[str, Tensor]) -> None:
        """Take an order, which is played with `weights`; see Networks.weights."""
        ...
