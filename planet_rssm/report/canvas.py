"""Pictures with words and charts, drawn by Pillow at twice their size and then made small."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # smooth edges: everything is drawn this many times as large
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the result


class Look(NamedTuple):
    """The colours of a picture; those of what is drawn stay apart for the colour-blind."""

    ground: Colour = (16, 19, 25)
    panel: Colour = (27, 31, 40)
    line: Colour = (64, 71, 84)
    muted: Colour = (150, 158, 170)
    text: Colour = (232, 235, 239)
    blue: Colour = (86, 180, 233)
    orange: Colour = (240, 165, 20)
    green: Colour = (40, 190, 140)
    purple: Colour = (214, 140, 190)
    yellow: Colour = (240, 228, 66)


LOOK = Look()


class Canvas:
    """A picture of a given size; lengths are in pixels of the result."""

    def __init__(self, width: int, height: int, ground: Colour = LOOK.ground) -> None:
        self.size = width, height
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), ground)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self,
        at: tuple[float, float],
        words: str,
        size: int = 15,
        colour: Colour = LOOK.text,
        anchor: str = "ls",
    ) -> None:
        """Write words; `anchor` as Pillow's: l, m, r by a, m, s (left on the base line)."""
        font = ImageFont.load_default(size * SCALE)
        self._draw.text(
            (at[0] * SCALE, at[1] * SCALE), words, fill=colour, font=font, anchor=anchor
        )

    def box(self, box: Box, fill: Colour | None, outline: Colour | None = None) -> None:
        """Draw a box."""
        self._draw.rectangle(_large(box), fill=fill, outline=outline, width=SCALE)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 2) -> None:
        """Draw a line through points."""
        flat = [value for point in points for value in _large(point)]
        if len(points) > 1:
            self._draw.line(flat, fill=colour, width=round(width * SCALE), joint="curve")

    def dashes(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a dashed line through points, dashes of 6 pixels."""
        ends = np.asarray(points, float)
        lengths = np.r_[0, np.hypot(*np.diff(ends, axis=0).T).cumsum()]
        for begin in np.arange(0, lengths[-1], 11):
            along = np.clip([begin, begin + 6], 0, lengths[-1])
            x, y = (np.interp(along, lengths, ends[:, axis]).tolist() for axis in (0, 1))
            self.line(list(zip(x, y, strict=True)), colour, width)

    def area(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([value for point in points for value in _large(point)], fill=colour)

    def dot(self, at: tuple[float, float], radius: float, colour: Colour) -> None:
        """Draw a disc."""
        x, y = at
        corners = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse(_large(corners), fill=colour)

    def picture(self, box: Box, pixels: np.ndarray) -> None:
        """Draw uint8 [h, w, 3] into a box; its pixels stay squares where they are made larger."""
        left, top, right, bottom = (round(value) for value in _large(box))
        image = Image.fromarray(np.ascontiguousarray(pixels))
        larger = right - left >= image.width
        way = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
        self._image.paste(image.resize((right - left, bottom - top), way), (left, top))

    def pixels(self) -> np.ndarray:
        """Return the picture, uint8 [height, width, 3]."""
        return np.asarray(self._image.reduce(SCALE))


class Axes:
    """A chart's box on a canvas: where a value lies, and its frame."""

    def __init__(
        self, canvas: Canvas, box: Box, x: tuple[float, float], y: tuple[float, float]
    ) -> None:
        """Take the box, and the values at its ends."""
        self.canvas = canvas
        self.box = box
        self._x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self._y = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        canvas.box(box, LOOK.panel)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies; one outside is moved to the edge."""
        left, top, right, bottom = self.box
        across = min(max((x - self._x[0]) / (self._x[1] - self._x[0]), 0.0), 1.0)
        up = min(max((y - self._y[0]) / (self._y[1] - self._y[0]), 0.0), 1.0)
        return left + across * (right - left), bottom - up * (bottom - top)

    def points(self, x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
        """Return where points lie."""
        return [self.at(*point) for point in zip(x, y, strict=True)]

    def ticks_y(self, values: Sequence[float]) -> None:
        """Draw a line and a number at each value."""
        for value in values:
            (left, y), (right, _) = self.at(self._x[0], value), self.at(self._x[1], value)
            self.canvas.line([(left, y), (right, y)], LOOK.line, 1)
            self.canvas.text((left - 5, y), short(value), 13, LOOK.muted, "rm")

    def ticks_x(self, values: Sequence[float], words: Sequence[str] | None = None) -> None:
        """Write a number, or a word, below each value."""
        bottom = self.box[3]
        for value, word in zip(values, words or [short(value) for value in values], strict=True):
            self.canvas.text(
                (self.at(value, self._y[0])[0], bottom + 5), word, 13, LOOK.muted, "ma"
            )


def short(value: float) -> str:
    """Return a number in few signs."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def nice_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Return round numbers within a range, `most` at most and one at least."""
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return [low]
    step = 10.0 ** np.floor(np.log10(span))
    for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        count = np.floor(high / (step * factor)) - np.ceil(low / (step * factor)) + 1
        if 1 <= count <= most:
            first = np.ceil(low / (step * factor))
            return [float((first + i) * step * factor) for i in range(int(count))]
    return [low]


def mixed(one: Colour, two: Colour, share: float) -> Colour:
    """Return `two` laid over `one` with that share."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _large(values: Sequence[float]) -> list[float]:
    return [value * SCALE for value in values]
