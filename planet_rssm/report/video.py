"""Frames to a video file: MP4 with PyAV, GIF without it."""

import importlib.util
import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic

# hundredths of a second that a GIF's frame is shown: viewers slow down what is shorter
SHORTEST = 2

_log = logging.getLogger("planet_rssm")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write frames (uint8 [H, W, 3], all of one size) as MP4 and return the file that was written.

    H.264 with yuv420p, which browsers play; an odd side is made even by repeating its last row or
    column. Without PyAV (extra `report`) it is a GIF, under the same name with `.gif`.

    Raises:
        PlanetError: there is no frame.
        OSError: the file cannot be written; nothing is left behind.
    """
    first, frames = _peek(path, frames)
    if importlib.util.find_spec("av"):
        data = _mp4(first, frames, fps)
    else:
        path = path.with_suffix(".gif")
        _log.warning(
            "PyAV is not installed, so the video is %s; for MP4: pip install 'planet-rssm[report]'",
            path,
        )
        data = _gif(frames, fps)
    write_atomic(path, [data.getbuffer()])
    return path


def _peek(path: Path, frames: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise PlanetError(f"video {path}: no frame to write; render at least one")
    return first, itertools.chain([first], iterator)


def _mp4(first: np.ndarray, frames: Iterator[np.ndarray], fps: float) -> io.BytesIO:
    import av  # an extra

    data = io.BytesIO()
    height, width = (size + size % 2 for size in first.shape[:2])  # yuv420p halves both sides
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "18"}
        )
        stream.width = width
        stream.height = height
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            even = np.pad(
                frame,
                ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)),
                mode="edge",
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
    return data


def _gif(frames: Iterator[np.ndarray], fps: float) -> io.BytesIO:
    """Return a GIF that plays in the time of the video.

    Of frames that come too fast for the format some are left out. It counts in hundredths of a
    second. Each frame begins at the one nearest to its time, so no error adds up.
    """
    shown: list[tuple[int, Image.Image]] = []  # when each begins
    count = 0
    for count, frame in enumerate(frames, 1):
        begin = round(100 * (count - 1) / fps)
        if not shown or begin - shown[-1][0] >= SHORTEST:
            shown.append((begin, Image.fromarray(frame)))
    end = max(round(100 * count / fps), SHORTEST)
    # the last frame is worth more than the one just before it
    if end - shown[-1][0] < SHORTEST and len(shown) > 1:
        begin = shown.pop(-2)[0]
        shown[-1] = begin, shown[-1][1]
    begins = [begin for begin, _ in shown]
    durations = [10 * (after - begin) for begin, after in itertools.pairwise([*begins, end])]
    data = io.BytesIO()
    first, *rest = (image for _, image in shown)
    first.save(data, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return data
