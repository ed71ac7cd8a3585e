"""Films that episodes are added to, by PyAV (extra `data`): a frame is found by its time."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm.base.json_types import Json
from planet_rssm.datasets.foreign.source import need

_MOST = 200 << 20  # bytes of a film, about: LeRobot's own limit
# A key frame every second frame and none that needs a later one, as LeRobot has it: a frame in the
# middle is read without those before. crf 18 is close to what the eye takes for the same.
_CODING = {"g": "2", "bf": "0", "crf": "18"}


class Film:
    """An mp4 of H.264 with yuv420p; frame i is shown at i / rate seconds."""

    def __init__(self, path: Path, sides: tuple[int, ...], rate: Fraction) -> None:
        """Begin it.

        Args:
            path: a file that is not there; its folder is made.
            sides: pixels, height and width, both even.
            rate: frames a second.

        Raises:
            PlanetError: PyAV is missing.
        """
        try:
            import av
        except ModuleNotFoundError:
            raise need("av", "data") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rate = rate
        self._from_array = av.VideoFrame.from_ndarray
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=_CODING)
        self._stream.height, self._stream.width = sides
        self._stream.pix_fmt = "yuv420p"
        self.frames = 0
        self.bytes = 0  # that have been coded

    def add(self, frames: np.ndarray) -> None:
        """Append frames uint8 [T, H, W, 3]."""
        for picture in frames:
            frame = self._from_array(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            packets = self._stream.encode(frame)
            self._container.mux(packets)
            self.bytes += sum(packet.size for packet in packets)
            self.frames += 1

    def close(self) -> None:
        """Write its end."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


class Films:
    """The films of a camera, each of many episodes one after the other."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        """Write them into `folder`, with `rate` frames a second."""
        self._folder, self._rate = folder, rate
        self._film: Film | None = None
        self._file = -1

    def add(self, frames: np.ndarray) -> Json:
        """Write an episode's frames [T, H, W, 3]; return where they are, by LeRobot's names."""
        if self._film is None or self._film.bytes > _MOST:
            self.close()
            self._file += 1
            name = f"chunk-{self._file // 1000:03d}/file-{self._file % 1000:03d}.mp4"
            self._film = Film(self._folder / name, frames.shape[1:3], self._rate)
        first = self._film.frames
        self._film.add(frames)
        return {
            "chunk_index": self._file // 1000,
            "file_index": self._file % 1000,
            "from_timestamp": float(first / self._rate),
            "to_timestamp": float(self._film.frames / self._rate),
        }

    def close(self) -> None:
        """Write the end of the last one."""
        if self._film is not None:
            self._film.close()


def info_of(shape: tuple[int, ...], rate: Fraction) -> Json:
    """Return what `info.json` says of a camera [H, W, 3]."""
    return {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.channels": 3,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": plain(rate),
        "has_audio": False,
    }


def plain(rate: Fraction) -> int | float:
    """Return a rate as a number of JSON, whole where it is."""
    return rate.numerator if rate.denominator == 1 else float(rate)
