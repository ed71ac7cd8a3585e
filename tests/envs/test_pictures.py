"""Many pictures are resized in one call as each is alone."""

import numpy as np
import pytest

from planet_rssm.envs import pictures


@pytest.mark.parametrize("size", [16, 64, 100])
@pytest.mark.parametrize(
    ("count", "height", "width"),
    [(1, 96, 96), (7, 96, 96), (5, 48, 64), (4, 64, 120), (3, 17, 301), (9, 64, 64), (2, 100, 3)],
)
def test_many_are_resized_as_each_is_alone(count, height, width, size, monkeypatch):
    monkeypatch.setattr(pictures, "_PIXELS", 3 * height * width)  # several calls
    rng = np.random.default_rng(count)
    frames = rng.integers(0, 256, (count, height, width, 3), np.uint8)
    frames[0] = np.arange(height, dtype=np.uint8)[:, None, None]
    one_by_one = np.stack([pictures.resized(frame, size) for frame in frames])
    np.testing.assert_array_equal(pictures.all_resized(frames, size), one_by_one)
    flipped = frames[:, ::-1]  # not one piece of memory
    np.testing.assert_array_equal(
        pictures.all_resized(flipped, size),
        np.stack([pictures.resized(np.ascontiguousarray(frame), size) for frame in flipped]),
    )
