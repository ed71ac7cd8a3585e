"""A policy of the user's own, measured by the same protocol: `planet eval mine:Policy@TASK`."""

import re
from collections.abc import Sequence

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.plugins import FORM, find, naming_errors
from planet_rssm.collect import Policy
from planet_rssm.config import Settings
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spec import EnvSpec

_RUN = re.compile(rf"({FORM.pattern})@(.+)")


def is_own_policy(run: str) -> bool:
    """Return whether RUN is of the form `module:Policy@TASK`."""
    return _RUN.fullmatch(run) is not None


def settings_of(run: str, overrides: Sequence[str]) -> tuple[str, Settings]:
    """Return the name of the policy of `module:Policy@TASK`, and settings in which it acts.

    Raises:
        PlanetError: no such task, or an override that is not of `env`.
    """
    match = _RUN.fullmatch(run)
    assert match is not None
    name = match[1]
    task = match[2]
    values = config.parse_overrides(overrides)
    for key, value in values.items():
        if not key.startswith("env.") or key == "env.id":
            raise PlanetError(
                f"-s {key}={value}: {run} takes env.… settings alone, and the task is {task}"
            )
    settings = config.resolve({**values, "env.id": task, "planner.name": name})
    return name, settings.model_copy(update={"env": resolve(settings.env)})


def own_policy(key: str, name: str, spec: EnvSpec, rows: int) -> Policy:
    """Return the policy called `module:NAME` for `rows` episodes at once, see `collect.Policy`.

    Args:
        key: the option that names it, for error lines.
        name: a class, which is made as Class(spec, rows), or a function that is the policy itself.
        spec: what is observed and done.
        rows: B of its arguments.

    Raises:
        PlanetError: there is no such module or name, it cannot be called, or making it fails.
    """
    maker = find(key, name)
    with naming_errors(key, name):
        policy = maker(spec, rows) if isinstance(maker, type) else maker
        if not callable(policy):
            raise TypeError(
                f"a {type(policy).__name__} cannot be called as (observation, action, is_first)"
            )
    return policy
