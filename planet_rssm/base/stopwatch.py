"""Where the time goes: seconds by stage, printed at the end of a command."""

import contextlib
import time
from collections.abc import Iterator, Mapping


class Stages:
    """Seconds by the name of a stage; a stage within another is not counted in the outer one."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        """Begin with none, or add to `seconds`, by stage."""
        self.seconds = {} if seconds is None else seconds
        self._within = 0.0  # seconds that the present stage has left to stages within it
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what happens inside as stage `name`."""
        before, self._within = self._within, 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._within
            self._within = before + spent

    def continue_into(self, seconds: dict[str, float]) -> None:
        """Add to `seconds` from now on, and to them what was counted so far."""
        for name, spent in self.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + spent
        self.seconds = seconds

    def report(self) -> dict[str, float]:
        """Return the seconds of each stage, the longest first, and the `total` since the start."""
        total = time.perf_counter() - self._began
        return by_length(self.seconds) | {"total": round(total, 3)}


def by_length(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return rounded seconds, the longest stage first."""
    return {
        name: round(seconds[name], 3) for name in sorted(seconds, key=lambda name: -seconds[name])
    }


def shares(seconds: Mapping[str, float]) -> str:
    """Return a report of `Stages` as text: shares of `total`; `other` belongs to no stage."""
    stages = {name: spent for name, spent in seconds.items() if name != "total"}
    total = max(seconds["total"], sum(stages.values()), 1e-9)
    parts = stages | {"other": total - sum(stages.values())}
    words = [
        f"{name} {spent / total:.0%}" for name, spent in parts.items() if spent >= 0.005 * total
    ]
    return f"{duration(total)}: {', '.join(words)}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:.1f} h"
        if hours >= 1
        else f"{minutes:.1f} min"
        if minutes >= 1
        else f"{seconds:.1f} s"
    )
