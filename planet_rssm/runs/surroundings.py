"""What a run's numbers depend on besides its settings: versions, code, machine."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path

from planet_rssm.base.device import processor
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import FORMAT, Settings
from planet_rssm.envs import gl
from planet_rssm.envs.registry import GL_BACKENDS

PACKAGES = ("planet_rssm", "torch", "numpy", "mujoco", "dm-control", "gymnasium")


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on, by package."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache  # what runs is what was there at first
def code_checksum() -> str:
    """Return the CRC-32 of this package's own code: versions of a checkout are all alike."""
    root = Path(__file__).parents[1]
    crc = 0
    for path in sorted(root.rglob("*.py")):
        crc = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), crc))
    return f"{crc:08x}"


def own_versions() -> dict[str, str]:
    """Return what must be the same on all machines that work on one result, by name."""
    return versions() | {"its own code": code_checksum()}


def check_versions(option: str, host: str, there: Mapping[str, str]) -> None:
    """Refuse a machine that would compute other numbers than this one.

    Raises:
        PlanetError: it has other versions; the line begins with `option`.
    """
    for name, here in own_versions().items():
        if there.get(name) != here:
            raise PlanetError(
                f"{option}: node {host} has {name} {there.get(name)}, this machine {here}; "
                "install the same on all"
            )


def surroundings(settings: Settings, device: str) -> Json:
    """Return what a reader needs to judge a run's numbers: versions, code, machine."""
    return {
        "format": FORMAT,
        "versions": versions() | {"python": platform.python_version()},
        "commit": _commit(),
        "device": device,
        "renderer": {"backend": settings.env.renderer, "gl": _gl_renderer(settings)},
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "processor": processor(),
        },
    }


def _gl_renderer(settings: Settings) -> str | None:
    """Return GL's own name, which shows hardware or software; None where no GL is used here."""
    backend = settings.env.renderer
    offline = settings.data.folder is not None
    return gl.probe(backend).renderer if backend in GL_BACKENDS and not offline else None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """Return the checkout's commit, or None where the package is not in a checkout."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
