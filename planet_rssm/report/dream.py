"""What a model imagines as frames of a film: truth, prediction and error side by side."""

from collections.abc import Iterator

import numpy as np

PANEL = 192  # pixels a side at least
STRIP = 8  # pixels above a row, coloured by whether the model sees
GAP = 4  # pixels between panels
SEEN, IMAGINED = (60, 160, 80), (225, 120, 30)  # green, orange


def panels(truth: np.ndarray, prediction: np.ndarray, context: int) -> Iterator[np.ndarray]:
    """Yield one film frame, uint8 [height, width, 3], a time step: truth | prediction | absolute error.

    The strip above the pictures is green while the model sees the truth and orange from where it only imagines.

    Args:
        truth: float [R, T, size, size, 3] in 0 to 1; each of the R sequences is a row of the picture.
        prediction: of the same shape.
        context: how many of the T frames the model sees.
    """
    for time in range(truth.shape[1]):
        colour = SEEN if time < context else IMAGINED
        rows = zip(truth[:, time], prediction[:, time], strict=True)
        yield np.concatenate([_row(real, foretold, colour) for real, foretold in rows])


def _row(truth: np.ndarray, prediction: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    pictures = [_scaled(image) for image in (truth, prediction, np.abs(truth - prediction))]
    gap = np.zeros((pictures[0].shape[0], GAP, 3), np.uint8)
    row = np.concatenate([pictures[0], gap, pictures[1], gap, pictures[2]], 1)
    strip = np.full((STRIP, row.shape[1], 3), colour, np.uint8)
    return np.concatenate([strip, row])


def _scaled(image: np.ndarray) -> np.ndarray:
    """Return 0 to 1 as 0 to 255, every pixel repeated until the picture is large enough to look at."""
    times = -(-PANEL // image.shape[0])
    return np.round(image * 255).astype(np.uint8).repeat(times, 0).repeat(times, 1)
