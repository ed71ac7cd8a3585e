"""What a run would take: each part done once, in a folder that is removed, and a forecast."""

import errno
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import scratch_folder
from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings
from planet_rssm.evaluation.results import ObservationInfo
from planet_rssm.precision import training_precision
from planet_rssm.training.forecast import Costs, EarlyEnds, Forecast, forecast
from planet_rssm.training.part_times import blind_step, measure

PREFIX = ".planet-dry-run-"  # of the folder that is removed


@dataclass(frozen=True)
class DryRun:
    """What `dry_run` measured, and what the complete run would take."""

    task: str
    observation: ObservationInfo
    device: str
    batch_length: int
    precision: str
    forecast: Forecast
    short_episodes: EarlyEnds | None  # where episodes may end early: if all do as random ones did
    measured: Costs
    free: dict[str, int | None]  # bytes of disk, memory and device_memory; None: unknown
    peak_memory: int  # bytes of this process; its workers are not in it

    def to_json(self) -> Json:
        """Return the object that `planet train --dry-run --json` prints."""
        return {
            "task": self.task,
            "observation": self.observation.to_json(),
            "device": self.device,
            "batch_length": self.batch_length,
            "precision": self.precision,
            **self.forecast.to_json(),
            "short_episodes": self.short_episodes and self.short_episodes.to_json(),
            "measured": self.measured._asdict(),
            "free": self.free,
            "peak_memory": self.peak_memory,
        }


def dry_run(
    settings: Settings,
    device: torch.device,
    run: Path,
    say: Callable[[str], object],
    plan_episodes: int = 0,
) -> DryRun:
    """Do each part of a run once, and forecast the complete run.

    Args:
        settings: resolved, see `envs.registry.resolve`.
        device: where the model runs.
        run: the planned run folder; files are written beside it, on the same disk, and removed.
        say: called with each part as it begins.
        plan_episodes: played with the trained model at the end, and by each baseline.

    Raises:
        PlanetError: a part does not work: environment, disk, device memory, checkpoint.
    """
    beside = place_of(run)
    fix = "lower train.batch_size, train.batch_length or planner.candidates"
    try:
        with (
            scratch_folder(beside, PREFIX) as folder,
            within_memory(device, "one update and one decision", fix),
        ):
            spec, costs, short = measure(settings, device, folder, say)
            if plan_episodes:
                say("baselines: 2 environments that draw nothing")
                costs = costs._replace(blind_step=blind_step(settings))
        free_disk = _free_disk(beside)
    except OSError as error:
        raise PlanetError(
            f"{beside}: {error.strerror or error}; fix that, or give another --run-dir"
        ) from None
    early = None
    if short is not None:
        early = EarlyEnds(short, forecast(settings, spec, costs, short, plan_episodes))
    return DryRun(
        task=spec.id,
        observation=ObservationInfo.of(settings.env, spec),
        device=str(device),
        batch_length=settings.train.batch_length,
        precision=training_precision(settings, device),
        forecast=forecast(settings, spec, costs, plan_episodes=plan_episodes),
        short_episodes=early,
        measured=costs,
        free={"disk": free_disk, "memory": _free_memory(), "device_memory": _free_on(device)},
        peak_memory=_peak_memory(),
    )


def place_of(run: Path) -> Path:
    """Return the existing folder that decides on which disk a run folder would lie.

    Raises:
        PlanetError: what exists there is no folder.
    """
    beside = next(parent for parent in run.absolute().parents if parent.exists())
    if not beside.is_dir():
        raise PlanetError(
            f"{beside}: {os.strerror(errno.ENOTDIR)}; fix that, or give another --run-dir"
        )
    return beside


def _free_disk(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _free_memory() -> int | None:
    """Return the bytes that programs can still have, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None
    )


def _free_on(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _peak_memory() -> int:
    """Return the most bytes that this process has used; its workers are not in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else
