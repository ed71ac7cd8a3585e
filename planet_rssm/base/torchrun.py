"""What torchrun says to each process that it starts."""

import os

from planet_rssm.base.errors import PlanetError

_NUMBERS = ("RANK", "WORLD_SIZE")
LEADER = 0  # of the processes, the one that is the run itself


def team_size() -> int:
    """Return how many processes torchrun has started; 1 where this one was started otherwise.

    Raises:
        PlanetError: what stands in its variables is no number.
    """
    if not {*_NUMBERS, "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return 1
    for name in _NUMBERS:
        if not (value := os.environ[name]).isdecimal():
            raise PlanetError(
                f"{name} = {value!r}: torchrun sets it to a number; unset it, or use torchrun"
            )
    return int(os.environ["WORLD_SIZE"])


def is_leader() -> bool:
    """Return whether this process is the run itself."""
    return team_size() == 1 or int(os.environ["RANK"]) == LEADER


def check_batch(batch_size: int, count: int) -> None:
    """Refuse a batch of which some process would have no row.

    Raises:
        PlanetError: it has fewer rows than there are processes.
    """
    if batch_size < count:
        raise PlanetError(
            f"train.batch_size = {batch_size}: {count} processes learn and each needs a row; start "
            f"at most {batch_size}, or train another run with a larger batch"
        )
