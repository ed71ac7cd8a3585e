"""Charts and pictures made of characters, for a terminal."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

BRAILLE = 0x2800
# the bit of each dot of a braille sign: four rows, two columns
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
HALF = "▀"


def chart(x: Sequence[float], y: Sequence[float], width: int, height: int) -> list[str]:
    """Return lines of braille signs, `height` of `width`, in which points are joined by lines.

    The ends of the axes are the ends of the values; equal values lie in the middle.
    """
    rows, columns = 4 * height, 2 * width
    dots = np.zeros((rows, columns), bool)
    at_x = _places(np.asarray(x, float), columns)
    at_y = rows - 1 - _places(np.asarray(y, float), rows)
    for one in range(len(at_x)):
        before = max(one - 1, 0)
        count = 1 + max(abs(at_x[one] - at_x[before]), abs(at_y[one] - at_y[before]))
        along = np.linspace(0, 1, count)
        line_x = np.round(at_x[before] + along * (at_x[one] - at_x[before])).astype(int)
        line_y = np.round(at_y[before] + along * (at_y[one] - at_y[before])).astype(int)
        dots[line_y, line_x] = True
    signs = np.full((height, width), BRAILLE)
    for row, bits in enumerate(DOTS):
        for column, bit in enumerate(bits):
            signs += bit * dots[row::4, column::2]
    return ["".join(map(chr, line)) for line in signs.tolist()]


def _places(values: np.ndarray, count: int) -> np.ndarray:
    low, high = values.min(), values.max()
    if high <= low:
        return np.full(len(values), (count - 1) // 2)
    return np.round((values - low) / (high - low) * (count - 1)).astype(int)


def blocks(pixels: np.ndarray, width: int) -> Text:
    """Return uint8 [h, w, 3] as half blocks, `width` columns at most, two rows of pixels a line."""
    columns = min(width, pixels.shape[1])
    rows = max(2, round(pixels.shape[0] * columns / pixels.shape[1] / 2) * 2)
    image = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BOX)
    small = np.asarray(image).tolist()
    text = Text()
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append(HALF, Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    text.right_crop()
    return text
