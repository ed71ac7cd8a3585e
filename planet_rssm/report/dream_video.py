"""What a model imagines as frames of a video: truth, prediction and error side by side."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PANEL = 192  # pixels a side at least
STRIP = 8  # pixels above a row, coloured by whether the model observes
HEAD = 40  # pixels above all, for two lines of words
NAMES = ("truth", "prediction", "absolute error")
GAP = 4  # pixels between panels
OBSERVED = (60, 160, 80)  # green
IMAGINED = (225, 120, 30)  # orange


def panels(truth: np.ndarray, prediction: np.ndarray, context: int) -> Iterator[np.ndarray]:
    """Yield one video frame, uint8 [height, width, 3], a time step: truth | prediction | error.

    Words above the pictures name them, and say whether the model sees the truth or only imagines;
    so does the colour of the strip above each row, green while it sees and orange from then on.

    Args:
        truth: float [R, T, size, size, 3] in 0 to 1; each of the R sequences is a row of the
            picture.
        prediction: of the same shape.
        context: how many of the T frames the model sees.
    """
    for time in range(truth.shape[1]):
        colour = OBSERVED if time < context else IMAGINED
        rows = [
            _row(true, predicted, colour)
            for true, predicted in zip(truth[:, time], prediction[:, time], strict=True)
        ]
        doing = "sees the truth" if time < context else "only imagines"
        words = f"frame {time + 1}: the model {doing}"
        yield np.concatenate([_head(rows[0].shape[1], words, colour), *rows])


def _head(width: int, words: str, colour: tuple[int, int, int]) -> np.ndarray:
    """Return what stands above the pictures, uint8 [HEAD, width, 3]."""
    image = Image.new("RGB", (width, HEAD))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(HEAD // 3)
    draw.text((GAP, 2), words, fill=colour, font=font)
    for place, name in enumerate(NAMES):
        draw.text((GAP + place * width // len(NAMES), HEAD // 2), name, fill="white", font=font)
    return np.asarray(image)


def _row(truth: np.ndarray, prediction: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    pictures = [_scaled(image) for image in (truth, prediction, np.abs(truth - prediction))]
    gap = np.zeros((pictures[0].shape[0], GAP, 3), np.uint8)
    row = np.concatenate([pictures[0], gap, pictures[1], gap, pictures[2]], 1)
    strip = np.full((STRIP, row.shape[1], 3), colour, np.uint8)
    return np.concatenate([strip, row])


def _scaled(image: np.ndarray) -> np.ndarray:
    """Return 0 to 1 as 0 to 255, every pixel repeated until the picture is large enough."""
    times = -(-PANEL // image.shape[0])
    return np.round(image * 255).astype(np.uint8).repeat(times, 0).repeat(times, 1)
