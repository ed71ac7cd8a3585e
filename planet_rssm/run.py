"""A run folder: its settings, its surroundings, its metrics.

    config.yaml    resolved settings          checkpoints/   see checkpoint.py
    run.json       versions and machine       episodes/      see data/replay.py
    metrics.jsonl  one line a measurement     videos/        what `planet plan --video` filmed

A checkpoint alone is enough to act (agent.py); the folder is what a run needs to go on.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planet_rssm import checkpoint, config
from planet_rssm.config import FORMAT, Settings
from planet_rssm.errors import PlanetError
from planet_rssm.files import write_atomic

CONFIG, RECORD, METRICS, VIDEOS = "config.yaml", "run.json", "metrics.jsonl", "videos"
# What a resumed run may change: nothing that decides what was already learned or is measured.
RESUMABLE = {"device", "env.step_timeout", "train.env_steps", "train.keep", "train.test_every", "train.test_episodes"}
PACKAGES = ("planet_rssm", "torch", "numpy", "mujoco", "dm-control", "gymnasium")


class Run:
    """A run folder that exists, with its settings."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings

    @classmethod
    def create(cls, folder: Path, settings: Settings, device: str) -> "Run":
        """Make a new run folder with resolved settings and a record of the machine.

        Raises:
            PlanetError: the folder is already a run, or it cannot be written.
        """
        if (folder / CONFIG).exists():
            raise PlanetError(f"run folder {folder}: already a run; add --resume to go on, or give another --run-dir")
        try:
            (folder / checkpoint.FOLDER).mkdir(parents=True, exist_ok=True)
            write_atomic(folder / RECORD, [json.dumps(surroundings(device), indent=1).encode()])
            config.save(settings, folder / CONFIG)
        except OSError as error:
            reason = error.strerror
            raise PlanetError(f"run folder {folder}: cannot be written ({reason}); give another --run-dir") from None
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path, overrides: Sequence[str] = ()) -> "Run":
        """Open a run folder; `key=value` overrides may change what RESUMABLE names, and are kept.

        Raises:
            PlanetError: it is no run folder, cannot be written, or an override is refused.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise PlanetError(f"{folder}: not a run folder (no {CONFIG} in it); give the --run-dir of a `planet train`")
        saved = config.load(path)
        wanted = config.override(saved, overrides)
        before, after = config.flatten(saved), config.flatten(wanted)
        changed = [key for key in after if after[key] != before[key]]
        for key in changed:
            if key not in RESUMABLE:
                raise PlanetError(
                    f"-s {key}={after[key]}: the run in {folder} has {before[key]}; a resumed run may change only "
                    f"{', '.join(sorted(RESUMABLE))}"
                )
        if not os.access(folder, os.W_OK):
            raise PlanetError(f"run folder {folder}: cannot be written; change its permissions or copy it")
        if changed:
            config.save(wanted, path)
        return cls(folder, wanted)


def surroundings(device: str) -> dict[str, Any]:
    """Return what a reader needs to judge a run's numbers: versions, code, machine."""
    return {
        "format": FORMAT,
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "commit": _commit(),
        "device": device,
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """Return the checkout's commit, or None where the package is not in a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
