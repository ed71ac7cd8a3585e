"""The least and greatest of each column that is used, gathered an episode at a time."""

from collections.abc import Iterable

import numpy as np

from planet_rssm.datasets.foreign.source import Array


class Range:
    """Of one column: the least and greatest of each of its numbers, and what kind they are."""

    def __init__(self) -> None:
        """Begin without any."""
        self.low: Array = np.zeros(0)
        self.high: Array = np.zeros(0)
        self.one_hot = True  # every row has one 1 and else zeros

    def add(self, rows: Array) -> None:
        """Look at finite rows [T, ...]."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        low, high = flat.min(0), flat.max(0)
        fits = self.low.shape == low.shape
        self.low = np.minimum(self.low, low) if fits else low
        self.high = np.maximum(self.high, high) if fits else high
        ones = ((flat == 1).sum(1) == 1) & ((flat != 0).sum(1) == 1)
        self.one_hot &= flat.shape[1] > 1 and bool(ones.all())

    def words(self) -> str:
        """Return `-1 to 1`, over all its numbers."""
        return f"{self.low.min():g} to {self.high.max():g}" if self.low.size else "nothing"


def ranges_of(keys: Iterable[str]) -> dict[str, Range]:
    """Return an empty range for each column."""
    return {key: Range() for key in keys}
