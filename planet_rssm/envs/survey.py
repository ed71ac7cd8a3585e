"""Which of Gymnasium's registered environments run here: `python -m planet_rssm.envs.survey`.

They are tried in a child process. To know an environment's spaces one must make it, and some, made
without what they need, crash their process.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs.gym_env import GymEnv
from planet_rssm.envs.process import environment

_TIMEOUT = 60.0  # seconds in which a child gets through its environments
_OBSERVE: tuple[tuple[Literal["pixels", "vectors"], Literal["own", "none"]], ...]
_OBSERVE = (("pixels", "own"), ("vectors", "none"))  # what to try, and who draws then


@dataclass(frozen=True)
class Finding:
    """How one environment can be observed here."""

    id: str  # gym/ID
    observe: list[str]  # what works of pixels and vectors
    why: str  # why the rest does not

    def to_json(self) -> dict[str, str | list[str]]:
        """Return the line that the child process prints."""
        return dict(vars(self))


def registered() -> list[str]:
    """Return the ids `gym/ID`, sorted, of the latest versions that gymnasium itself registers."""
    from gymnasium.envs.registration import registry

    by_version = sorted(registry.values(), key=lambda spec: spec.version or 0)
    latest = {(spec.namespace, spec.name): spec.id for spec in by_version}
    return sorted(f"gym/{name}" for name in latest.values())


def survey(ids: list[str]) -> list[Finding]:
    """Make each environment and draw it once, in a child process.

    One that kills the child costs only its own row.
    """
    findings: list[Finding] = []
    while len(findings) < len(ids):
        left = ids[len(findings) :]
        lines, death = _child(left)
        findings += [Finding(**json.loads(line)) for line in lines[: len(left)]]
        if len(lines) < len(left):
            findings.append(Finding(left[len(lines)], [], death))
    return findings


def _child(ids: list[str]) -> tuple[list[str], str]:
    """Return the findings that a child printed, and what ended it if they are too few."""
    command = [sys.executable, "-P", "-m", "planet_rssm.envs.survey", *ids]
    variables = environment(EnvSettings(id=ids[0], renderer="own"))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    ) as child:
        try:
            out, err = child.communicate(timeout=_TIMEOUT)
            death = (
                err.strip().splitlines() or [f"its process died with exit code {child.returncode}"]
            )[-1]
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
            death = f"no answer within {_TIMEOUT:g} s"
    return [line for line in out.splitlines() if line.startswith("{")], death


def _try(task: str) -> Finding:
    works: list[str] = []
    faults: list[str] = []
    for observe, renderer in _OBSERVE:
        try:
            GymEnv(EnvSettings(id=task, observe=observe, renderer=renderer)).close()
            works.append(observe)
        except PlanetError as error:
            faults.append(str(error).removeprefix(f"env.id = {task!r}: "))
    return Finding(task, works, faults[0] if faults else "")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(_try(name).to_json()), flush=True)
