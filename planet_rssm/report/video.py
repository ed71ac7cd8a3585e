"""Frames to a film file: MP4 with PyAV, GIF without it."""

import importlib.util
import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from planet_rssm.errors import PlanetError
from planet_rssm.files import write_atomic

_log = logging.getLogger("planet_rssm")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write frames (uint8 [H, W, 3], all of one size) as MP4 and return the file that was written.

    H.264 with yuv420p, which browsers play; an odd side is made even by repeating its last row or column. Without PyAV
    (extra `report`) it is a GIF, under the same name with `.gif`.

    Raises:
        PlanetError: there is no frame.
        OSError: the file cannot be written; nothing is left behind.
    """
    first, frames = _peek(path, frames)
    if importlib.util.find_spec("av"):
        data = _mp4(first, frames, fps)
    else:
        path = path.with_suffix(".gif")
        _log.warning("PyAV is not installed, so the video is %s; for MP4: pip install 'planet-rssm[report]'", path)
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
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            even = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode(None))
    return data


def _gif(frames: Iterator[np.ndarray], fps: float) -> io.BytesIO:
    data = io.BytesIO()
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(data, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return data
