"""How long an update of the world model takes, beside a plain one and the machine's products.

The reference is the same model with the same loss, in eager float32 by the plain path
(`train.fast=false`): PyTorch's own layers and gradients, images and convolution weights in its
default layout (NCHW, contiguous) in place of channels_last, and its default Adam in place of the
fused one. What the model itself saves stays in it: only `model.decode_fraction` of the frames is
decoded, and the posterior reads its embeddings in one product.
"""

import ctypes
import gc
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.bench.turns import REFERENCE, Asked, BenchResult, Machine, Say, in_turns, titled
from planet_rssm.config import Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.world_model import untrained_model

MIB = 2**20
PRESETS = ("planet", "dreamer-v3")


class Timed(NamedTuple):
    """What was measured of one learner."""

    seconds: float  # the median update
    peak: int | None  # bytes beyond what the process used before; None: the system does not say
    flops: int  # of the matrix products and convolutions of an update


@dataclass(frozen=True)
class TrainTiming:
    """Updates of a preset in one precision, beside the reference."""

    preset: str
    precision: str
    batch: list[int]  # rows and steps
    ms: float
    reference_ms: float
    speedup: float
    images_per_s: float
    gflop: float  # of an update
    gemm_share: float  # of the time that the products alone would take
    peak_mib: float | None


def bench_train(
    asked: Asked,
) -> BenchResult[TrainTiming]:
    """Time complete updates: the batch in memory, loss, backward, clipping, optimiser step.

    Raises:
        PlanetError: no such preset, setting or device, or too little memory.
    """
    machine = Machine(asked.device, asked.precisions, asked.say)
    measured = []
    for preset in asked.presets:
        settings = config.load(preset, asked.overrides)
        say = titled(asked.say, preset)
        try:
            timed = _time(settings, machine, asked.repeats, say)
        except torch.OutOfMemoryError:
            raise PlanetError(
                f"{preset}: an update does not fit on {machine.device}; add -s train.batch_size=…"
            ) from None
        measured.append((preset, timed, settings))
        machine.look()
    return machine.result(
        [
            _case(preset, name, timed, settings, machine.rates)
            for preset, timed, settings in measured
            for name in machine.precisions
        ]
    )


def _case(
    preset: str,
    precision: str,
    timed: dict[str, Timed],
    settings: Settings,
    rates: dict[str, float],
) -> TrainTiming:
    ours, reference = timed[precision], timed[REFERENCE]
    batch = [settings.train.batch_size, settings.train.batch_length]
    return TrainTiming(
        preset=preset,
        precision=precision,
        batch=batch,
        ms=round(1000 * ours.seconds, 2),
        reference_ms=round(1000 * reference.seconds, 2),
        speedup=round(reference.seconds / ours.seconds, 3),
        images_per_s=round(math.prod(batch) / ours.seconds, 1),
        gflop=round(ours.flops / 1e9, 3),
        gemm_share=round(ours.flops / 1e9 / rates[precision] / ours.seconds, 4),
        peak_mib=None if ours.peak is None else round(ours.peak / MIB, 1),
    )


def spec_of(settings: Settings) -> EnvSpec:
    """Return what the environment of these settings observes and does; nothing is rendered."""
    with EnvPool(settings.env.model_copy(update={"renderer": "none"}), 1) as pool:
        return pool.spec


def _time(settings: Settings, machine: Machine, repeats: int, say: Say) -> dict[str, Timed]:
    """Return what was measured of each precision and of the reference, taken in turns."""
    spec = spec_of(settings)
    device = machine.device
    chunks = random_chunks(spec, settings.train.batch_size, settings.train.batch_length)
    little = _little(settings, spec)
    learners: dict[str, Learner] = {}
    first: dict[str, tuple[int | None, int]] = {}
    for name in (*machine.precisions, REFERENCE):
        say(f"{name}, first updates")
        make = partial(
            _plain if name == REFERENCE else partial(_ours, precision=name), settings, spec, device
        )
        make().update(little, 0)  # loads libraries, which would count as the update's memory
        before = _reset_peak(device)
        learners[name] = make()
        learners[name].update(little, 0)  # makes the optimiser's state
        flops = _flops(learners[name], chunks)  # and warms up
        first[name] = None if before is None else _peak(device) - before, flops
    updates = {name: partial(learner.update, chunks, 0) for name, learner in learners.items()}
    seconds = in_turns(updates, repeats, device, say)
    _, flops = first[REFERENCE]  # what the model asks for; fast forms may compute more, unused
    return {name: Timed(seconds[name], first[name][0], flops) for name in learners}


def _little(settings: Settings, spec: EnvSpec) -> Chunks:
    """Return the shortest batch of which a frame is decoded."""
    length = settings.train.batch_length
    return random_chunks(spec, math.ceil(1 / (settings.model.decode_fraction * length)), length)


def _ours(
    settings: Settings, spec: EnvSpec, device: torch.device, precision: str = "float32"
) -> Learner:
    train = settings.train.model_copy(update={"precision": precision})
    settings = settings.model_copy(update={"train": train})
    return Learner(untrained_model(settings, spec).to(device), settings, device)


def _plain(settings: Settings, spec: EnvSpec, device: torch.device) -> Learner:
    """Return the reference, see the head of this file."""
    train = settings.train.model_copy(update={"fast": False})
    learner = _ours(settings.model_copy(update={"train": train}), spec, device)
    for part in (*learner.model.encoder.images, *learner.model.decoder.images):
        layers = part.layers
        assert isinstance(layers, nn.Sequential)
        layers.register_forward_pre_hook(_contiguous)
    for parameter in learner.model.parameters():
        parameter.data = parameter.data.contiguous()
    if settings.optimizer.name != "laprop":  # which has no other form
        for group in learner.optimizer.param_groups:
            group["fused"] = None
    return learner


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in inputs)


def _flops(learner: Learner, chunks: Chunks) -> int:
    """Count the multiplications and additions of an update's products and convolutions."""
    counts = {torch.ops.mkldnn._linear_pointwise: _linear_flops}
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        learner.update(chunks, 0)
    return counter.get_total_flops()


def _linear_flops(x: list[int], weight: list[int], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


def _reset_peak(device: torch.device) -> int | None:
    """Forget the peak memory so far, and return the bytes in use now; None: unknown."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # not Linux, or not its usual C library
        ctypes.CDLL(None).malloc_trim(0)  # else what an earlier case has freed would count as used
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return None


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
