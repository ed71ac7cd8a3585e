"""What `precision: auto` stands for: the one in which this machine's matrix products are fast.

Processors differ by two orders of magnitude: those with bfloat16 products (AVX-512 BF16, AMX, GPUs)
do them two to four times as fast as in float32, the others ten to a hundred times as slowly.
"""

import functools
import logging
import time
from math import inf
from typing import NamedTuple

import torch
from torch.nn.functional import linear

from planet_rssm.base.device import DTYPES
from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings

AUTO, EXACT, FAST = "auto", "float32", "bfloat16"
GAIN = 0.8  # bfloat16 must take at most this share of float32's time: a nearer race is noise
SLOW = 2.0  # times float32's time: a precision that was asked for and is slower gets a warning
LONGEST = 512  # of a timed product's sides: rates change no more beyond it
TIMED_SECONDS, TIMED_CALLS = 0.01, 30  # of each precision at most, after a first call that warms up
TRIALS = 2  # calls more, before a precision counts as much slower

_log = logging.getLogger("planet_rssm")


class Product(NamedTuple):
    """The shape of a matrix product [rows, inner] x [inner, outer]."""

    rows: int
    inner: int
    outer: int


LARGE = Product(LONGEST, LONGEST, LONGEST)


def training_precision(settings: Settings, device: torch.device) -> str:
    """Return the precision of updates on `device`: `train.precision`, or what `auto` stands for.

    A choice of the user's that is slow here is kept and logged as a warning.
    """
    train = settings.train
    product = _product(settings, train.batch_size * train.batch_length)
    return _chosen("train.precision", train.precision, device, product)


def collecting_precision(settings: Settings, device: torch.device) -> str:
    """Return the precision of decisions while a run trains: `auto` is that of its updates.

    So a run that is resumed on another machine goes on with the same numbers.
    """
    asked = settings.planner.precision
    return training_precision(settings, device) if asked == AUTO else asked


def planning_precision(settings: Settings, device: torch.device) -> str:
    """Return the precision of a trained model's decisions: `auto` is what is fast on `device`.

    What the model was trained in does not matter: parameters are float32 always.
    """
    product = _product(settings, settings.planner.candidates)
    return _chosen("planner.precision", settings.planner.precision, device, product)


def timed_precisions(device: torch.device) -> tuple[str, ...]:
    """Return the precisions that a benchmark times by default: none that is slow."""
    return (EXACT,) if relative_time(FAST, device, LARGE) > SLOW else (EXACT, FAST)


def summary(device: torch.device) -> Json:
    """Return what `auto` stands for with large products on `device`, and bfloat16's time."""
    times = relative_time(FAST, device, LARGE)
    chosen = FAST if times <= GAIN else EXACT
    return {"auto_precision": chosen, "bfloat16_time": round(times, 2) if times < inf else None}


@functools.cache
def relative_time(precision: str, device: torch.device, product: Product) -> float:
    """Return the time of a product in `precision`, in units of float32's; takes milliseconds.

    The two are timed in turns, and the fastest call of each counts. Infinite where the device has
    no products of that precision, or is neither a CPU nor a CUDA device.
    """
    if device.type not in ("cpu", "cuda"):
        return inf
    rows, inner, outer = (min(side, LONGEST) for side in product)
    fast, plain = (
        (torch.ones(rows, inner, dtype=dtype, device=device),
         torch.ones(outer, inner, dtype=dtype, device=device))
        for dtype in (DTYPES[precision], DTYPES[EXACT])
    )  # fmt: skip
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            first = _seconds(device, fast), _seconds(device, plain)
            for _ in range(TRIALS):  # the first makes the kernel, and others may have the core
                if _close(first):
                    break
                again = _seconds(device, fast), _seconds(device, plain)
                first = min(first[0], again[0]), min(first[1], again[1])
            if not _close(first):
                return first[0] / first[1]
            calls = max(2, min(TIMED_CALLS, int(TIMED_SECONDS / max(first))))
            turns = [(_seconds(device, fast), _seconds(device, plain)) for _ in range(calls)]
    except RuntimeError:  # the device has no such product
        return inf
    return min(fastest for fastest, _ in turns) / min(exact for _, exact in turns)


def _product(settings: Settings, rows: int) -> Product:
    """Return the product that the recurrence makes most of: the gates of `rows` states."""
    return Product(rows, settings.rssm.hidden, 3 * settings.rssm.deter)


def _chosen(key: str, asked: str, device: torch.device, product: Product) -> str:
    if asked == AUTO:
        return FAST if relative_time(FAST, device, product) <= GAIN else EXACT
    if asked != EXACT and (times := relative_time(asked, device, product)) > SLOW:
        _warn(f"{key} = {asked}: its products take {times:.1f} times as long as float32's on this "
              f"machine; set {key}=auto")  # fmt: skip
    return asked


@functools.cache
def _warn(line: str) -> None:
    """Log a warning, once in a process."""
    _log.warning("%s", line)


def _close(seconds: tuple[float, float]) -> bool:
    """Return whether more calls of a precision and of float32 are affordable, and tell more."""
    return seconds[0] <= max(TIMED_SECONDS, 4 * seconds[1])


def _seconds(device: torch.device, pair: tuple[torch.Tensor, torch.Tensor]) -> float:
    matrix, weight = pair
    begin = time.perf_counter()
    linear(matrix, weight)
    if device.type == "cuda":  # this stream alone: another thread may be capturing a graph
        torch.cuda.current_stream(device).synchronize()
    return time.perf_counter() - begin
