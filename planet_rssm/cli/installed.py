"""What is installed, by its metadata.

Nothing is imported: that is quick, and a broken package does no harm.
"""

import importlib.metadata
import platform
import re
import sys
from dataclasses import dataclass

Version = tuple[int, ...]
# First that works, first that does not; a test compares these with pyproject.toml.
PYTHON = ((3, 11), (3, 14))
PACKAGES: dict[str, tuple[Version, Version | None]] = {
    "torch": ((2, 11), None),
    "numpy": ((2,), None),
    "mujoco": ((3, 17), (4,)),
    "dm-control": ((1, 0, 50), (1, 0, 51)),
    "gymnasium": ((1, 4), (2,)),
}
# What dm-control asks for besides PACKAGES and scipy: all of it but labmaze, which only its maze
# tasks use.
DM_CONTROL_NEEDS = tuple(
    "absl-py dm-env dm-tree glfw lxml protobuf pyopengl pyparsing requests setuptools tqdm".split()
)
# The first Python without a wheel of labmaze, at which an ordinary install stops.
_NO_LABMAZE = (3, 13)
# what version 4 consists of; pip mixes them up with version 3
_MUJOCO_PARTS = "mujoco mujoco-core mujoco-studio"


@dataclass(frozen=True)
class Check:
    """A finding about this machine."""

    name: str
    ok: bool
    value: str | float | None  # None: there is none; a number has its unit in the name
    mend: str = ""  # how to fix it, a command where one does; empty if ok


def python_version() -> list[Check]:
    """Check the Python that runs this."""
    lowest, below = PYTHON
    ok = lowest <= sys.version_info[:2] < below
    fix = f"use Python {_dotted(lowest)} or later, but below {_dotted(below)}"
    return [Check("python", ok, platform.python_version(), "" if ok else fix)]


def packages() -> list[Check]:
    """Check every package that is needed."""
    return [dm_control() if name == "dm-control" else package(name) for name in PACKAGES]


def package(name: str) -> Check:
    """Check the version of one of PACKAGES."""
    version, (lowest, below) = version_of(name), PACKAGES[name]
    numbers = _numbers(version or "")
    if version and numbers >= lowest and (below is None or numbers < below):
        return Check(name, True, version)
    fix = f"pip install '{name}>={_dotted(lowest)}{f',<{_dotted(below)}' if below else ''}'"
    if name == "mujoco" and numbers >= (4,):
        fix = f"dm-control fails on mujoco 4: pip uninstall -y {_MUJOCO_PARTS} && {fix}"
    return Check(name, False, version, fix)


def dm_control() -> Check:
    """Check dm-control and the suite's needs: without labmaze it was installed without any."""
    check = package("dm-control")
    missing = " ".join(name for name in DM_CONTROL_NEEDS if version_of(name) is None)
    if check.ok:
        return (
            Check(check.name, False, f"{check.value} without {missing}", f"pip install {missing}")
            if missing
            else check
        )
    if sys.version_info < _NO_LABMAZE:
        return Check(check.name, False, check.value, "pip install dm-control==1.0.50")
    fix = "pip install --no-deps dm-control==1.0.50"
    fix += f" && pip install {missing}" if missing else ""
    return Check(check.name, False, check.value, fix)


def extra(name: str) -> Check:
    """Check a package that something optional uses, in any version."""
    version = version_of(name)
    return Check(name, version is not None, version, "" if version else f"pip install {name}")


def version_of(name: str) -> str | None:
    """Return the installed version of a distribution, None if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> Version:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def _dotted(version: Version) -> str:
    return ".".join(str(number) for number in version)
