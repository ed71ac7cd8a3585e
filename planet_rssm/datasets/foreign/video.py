"""Frames of a film by their time, by PyAV (extra `data`), one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_regular
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.source import Array, need

_EARLIER = 0.5  # frames by which a film is sought before an episode's first one


class VideoReader:
    """One film of many episodes, read in their order without decoding a frame twice.

    Raises:
        PlanetError: PyAV is missing, or the file is no film.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Open the film, which has `fps` frames a second."""
        try:
            import av
        except ModuleNotFoundError:
            raise need("av", "data") from None
        self.path = path
        self._fps = fps
        self._errors = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError)
        try:
            check_regular(path)
            self._film = av.open(str(path))
            self._stream = self._film.streams.video[0]
            self._stream.thread_type = "AUTO"
        except self._errors as error:
            raise self._damaged(error) from None
        self._decoded = self._film.decode(self._stream)
        self._reformatter = av.video.reformatter.VideoReformatter()  # one for all frames
        self._begun = False
        self._ahead: tuple[float, Any] | None = None  # decoded, of the next episode

    def frames(self, second: float, count: int) -> Iterator[Array]:
        """Yield `count` frames uint8 [H, W, 3], the first of which is shown at `second`.

        Each is the frame nearest to its time, and no frame is shown for two times.

        Raises:
            PlanetError: the film is damaged, or a frame is missing in it.
        """
        try:
            if self._is_beyond(second):
                self._seek(second)
            self._begun = True
            at = 0
            for time, frame in self._following():
                place = round((time - second) * self._fps)
                if place < at:
                    continue
                if place > at:
                    break
                at += 1
                yield self._reformatter.reformat(frame, format="rgb24").to_ndarray()
                if at == count:
                    self._peek()
                    return
        except self._errors as error:
            raise self._damaged(error) from None
        raise PlanetError(
            f"{self.path}: has no frame at {second + at / self._fps:.3f} s, frame {at} of an "
            "episode; get it again"
        )

    def close(self) -> None:
        """Close the film."""
        self._film.close()

    def _is_beyond(self, second: float) -> bool:
        """Return whether the film stands behind `second`, or so far before that it is sought."""
        if not self._begun:
            return second > 1.0
        return self._ahead is None or self._ahead[0] > second + _EARLIER / self._fps

    def _following(self) -> Iterator[tuple[float, Any]]:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            yield ahead
        for frame in self._decoded:
            if frame.time is None:
                raise ValueError("a frame without a time")
            yield frame.time, frame

    def _peek(self) -> None:
        """Decode one frame more, to know where the film stands."""
        frame = next(self._decoded, None)
        self._ahead = None if frame is None or frame.time is None else (frame.time, frame)

    def _seek(self, second: float) -> None:
        """Go to the key frame before `second`."""
        earlier = max(second - _EARLIER / self._fps, 0.0)
        base = self._stream.time_base
        if not base:
            raise ValueError("has no clock")
        self._film.seek(int(earlier / base), stream=self._stream)
        self._decoded = self._film.decode(self._stream)
        self._ahead = None

    def _damaged(self, error: Exception) -> PlanetError:
        return PlanetError(f"{self.path}: not a film, or damaged ({one_line(str(error))})")
