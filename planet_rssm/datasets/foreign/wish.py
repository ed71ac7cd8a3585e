"""What the user asked of an import."""

from typing import NamedTuple

from planet_rssm.base.json_types import Json
from planet_rssm.datasets.foreign.source import Order

NONE = "none"  # in place of a column's name: there is none


class Wish(NamedTuple):
    """What is taken of a set of another program, and how; None: as the format has it."""

    observe: str | None = None  # pixels, vectors or both
    size: int = 64  # pixels a side of its images
    keys: tuple[str, ...] = ()  # the only columns that are observations
    drop: tuple[str, ...] = ()  # columns that are none
    action: str | None = None  # column of the actions
    reward: str | None = None  # column of the rewards; `none`: there is none, all are 0
    terminal: str | None = None  # column that says that the task ended; `none`: it never did
    order: Order | None = None  # how actions and rewards stand beside frames
    # rows whose outcome is not there: drop the last action, or repeat the last frame after it
    end: str = "drop"
    scale_actions: bool = False  # the least and greatest of the data become -1 and 1
    choices: int | None = None  # how many there are of a whole number's action
    action_repeat: int = 1  # control steps a row
    fps: float | None = None  # rows a second

    def asked(self) -> Json:
        """Return what differs from the defaults, as JSON."""
        plain = Wish()._asdict()
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._asdict().items()
            if value != plain[key]
        }
