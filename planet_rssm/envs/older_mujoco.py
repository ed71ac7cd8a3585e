"""Whether an environment fails because its package was written for an older MuJoCo."""

import importlib.metadata
import re

_ADVICE = (
    "record in a virtual environment of its own and import the episodes, see docs/environments.md"
)


def older_mujoco(module: str, fault: str) -> str:
    """Return that a package needs an older MuJoCo than this one, and advice; empty if it does not.

    Args:
        module: that the environment's class or id comes from, "metaworld".
        fault: the error in one line.
    """
    here = importlib.metadata.version("mujoco")
    # the enums of newer versions: number == member is true, member == number is not
    if "AssertionError" in fault and "mujoco.mjt" in fault:
        return f"; this is code for an older mujoco than {here}: {_ADVICE}"
    for name in importlib.metadata.packages_distributions().get(module.partition(".")[0], ()):
        for wish in importlib.metadata.requires(name) or ():
            asked = re.fullmatch(r"mujoco\s*\(?([<>=!~][^;()]*)\)?\s*", wish)
            if asked and not _allows(asked[1], here):
                return f"; {name} asks for mujoco{asked[1].strip()}, here is {here}: {_ADVICE}"
    return ""


def _allows(wish: str, version: str) -> bool:
    """Return whether a version is within a requirement's upper bounds; lower ones are ignored."""
    here = _numbers(version)
    for sign, bound in re.findall(r"(==|<=|<)\s*([\d.]+)", wish):
        there = _numbers(bound)
        if not {"==": here == there, "<=": here <= there, "<": here < there}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
