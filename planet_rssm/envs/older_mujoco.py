"""Whether what an environment stumbled over is the MuJoCo here: its package was written for an older one."""

import importlib.metadata
import re

_WAY = (
    "record in a virtual environment of its own and import the episodes, see docs/environments.md"
)


def older_mujoco(module: str, fault: str) -> str:
    """Return that a package needs an older MuJoCo than this one, and the way; empty if nothing says so.

    Args:
        module: that the environment's class or id comes from, "metaworld".
        fault: the error in one line.
    """
    here = importlib.metadata.version("mujoco")
    if (
        "AssertionError" in fault and "mujoco.mjt" in fault
    ):  # number == member is true, member == number is not
        return f"; this is code for an older mujoco than {here}: {_WAY}"
    for name in importlib.metadata.packages_distributions().get(module.partition(".")[0], ()):
        for wish in importlib.metadata.requires(name) or ():
            asked = re.fullmatch(r"mujoco\s*\(?([<>=!~][^;()]*)\)?\s*", wish)
            if asked and not _allows(asked[1], here):
                return f"; {name} asks for mujoco{asked[1].strip()}, here is {here}: {_WAY}"
    return ""


def _allows(wish: str, version: str) -> bool:
    """Return whether a version is within the upper bounds of a requirement, the only ones that are looked at."""
    for sign, bound in re.findall(r"(==|<=|<)\s*([\d.]+)", wish):
        here, there = _numbers(version), _numbers(bound)
        if not {"==": here == there, "<=": here <= there, "<": here < there}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
