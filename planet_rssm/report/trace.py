"""The arrays of explained decisions as a file that NumPy reads without pickle."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm.agent import Decision
from planet_rssm.base.files import write_atomic

# of a Decision; each is stacked over the T decisions
ARRAYS = (
    "sequence",
    "value",
    "reward",
    "critic",
    "elites",
    "elite_reward",
    "actor",
    "steps",
    "belief",
    "imagined",
    "spread",
    "vectors",
    "vector_spread",
)


def write_trace(
    path: Path,
    title: str,
    interval: float,
    frames: Sequence[np.ndarray],
    decisions: Sequence[Decision],
    rewards: Sequence[float],
) -> Path:
    """Write T decisions as .npz and return the file; the arguments are those of `xray_frames`.

    Its arrays have the names and shapes of a `Decision`'s, with T in front: absent are those that
    the planner or the run does not have. `returns` is [T, rounds, N]; NaN stands where a round was
    smaller, -inf where a return was not finite. `frame` and `brought` are the real frames and
    rewards. Where decisions have unequal numbers of best plans, NaN fills them up.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    arrays: dict[str, Any] = {
        "frame": np.stack(frames),
        "brought": np.asarray(rewards, np.float64),
        "interval": np.float64(interval),
        "proposals": np.asarray([one.proposals for one in decisions]),
        "counts_critic": np.asarray([one.counts_critic for one in decisions]),
        "title": np.array(title),
    }
    for name in ARRAYS:
        values = [getattr(one, name) for one in decisions]
        if all(value is not None for value in values):
            arrays[name] = _stacked([np.asarray(value) for value in values])
    if any(one.returns for one in decisions):
        arrays["returns"] = _stacked([_stacked(one.returns) for one in decisions])
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **arrays)
    write_atomic(path, [data.getbuffer()])
    return path


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays; those of floats that are smaller than others are filled up with NaN."""
    shapes = {array.shape for array in arrays}
    if len(shapes) <= 1:
        return np.stack(arrays) if arrays else np.zeros(0, np.float32)
    most = np.max([array.shape for array in arrays], 0)
    result = np.full((len(arrays), *most), np.nan, np.float32)
    for row, array in zip(result, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return result
