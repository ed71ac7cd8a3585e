"""What plays the episodes of a recorded set: a simple policy; a run's agent is in agent_player.py.

Nothing here needs torch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.plugins import FORM, find
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.base.trust import own
from planet_rssm.collect import ConstantPolicy, Policy, RandomPolicy
from planet_rssm.config import EnvSettings, is_dm_control
from planet_rssm.envs.choices import from_places
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.own_policy import own_policy

# called with the spec, the number of rows and the indices of the episodes
MakePolicy = Callable[[EnvSpec, int, Sequence[int]], Policy]


class Recipe(NamedTuple):
    """What a process of a cluster makes the policy from."""

    policy: str  # of `simple_policy`; of an agent the run
    seed: int
    noise: float = 0.0
    device: str = "cpu"
    threads: int = 1
    checkpoint: bytes = b""  # of an agent


class Player(NamedTuple):
    """What plays the episodes of a set, and in which environment."""

    env: EnvSettings  # resolved
    policy: MakePolicy
    made_by: Json  # what distinguishes it from others, as JSON
    recipe: Callable[[], Recipe]
    draws_together: bool = False  # what is drawn depends on which episodes are played together


def simple_player(task: str, overrides: Sequence[str], policy: str, seed: int) -> Player:
    """Return one without a model: `random`, `constant:VALUE` or a policy `module:Class`.

    Raises:
        PlanetError: no such task or policy, an override that is not of `env`, or one that leaves
            nothing to observe.
    """
    settings = config.resolve({"env.id": task} | env_overrides(overrides))
    own(config.flatten(settings))  # a run that learns from the set has the same environment
    if settings.env.renderer == "none" and settings.env.observe != "vectors":
        raise PlanetError(
            "env.renderer = 'none': the episodes would show nothing; use auto, or "
            "env.observe=vectors"
        )
    make = simple_policy(policy, seed)  # before an environment is started
    env = resolve(settings.env)
    if policy.startswith("constant:"):
        check_constant(env, _numbers(policy))
    return Player(env, make, {"policy": policy}, lambda: Recipe(policy, seed))


def simple_policy(policy: str, seed: int) -> MakePolicy:
    """Return what makes a policy without a model.

    Raises:
        PlanetError: there is none of that name.
    """
    if FORM.fullmatch(policy) and not policy.startswith(("random:", "constant:")):
        find("--policy", policy)
        return lambda spec, rows, _: own_policy("--policy", policy, spec, rows)
    if policy == "random":
        actions_seed = stream_seed(seed, Stream.DATA_ACTIONS)
        return lambda spec, rows, indices: RandomPolicy(
            spec.action_size, actions_seed, spec.groups, indices
        )
    numbers = _numbers(policy)
    return lambda spec, rows, _: ConstantPolicy(_constant_action(spec, numbers))


def _numbers(policy: str) -> list[float]:
    kind, _, value = policy.partition(":")
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = [np.nan]
    if kind != "constant" or not np.isfinite(numbers).all():
        raise PlanetError(
            f"--policy {policy}: neither random, constant:VALUE with VALUE in [-1, 1] or the "
            "number of a choice (2,0,1 in three groups), nor a run folder, nor module:Policy"
        )
    return numbers


def check_constant(env: EnvSettings, numbers: Sequence[float]) -> None:
    """Refuse a constant that is no action, before all environments of a set are started.

    Raises:
        PlanetError: it is none.
    """
    if is_dm_control(env.id):  # whose actions are all in [-1, 1]
        if not (len(numbers) == 1 and -1 <= numbers[0] <= 1):
            raise PlanetError(
                f"--policy constant:{_listed(numbers)}: in {env.id} it must be in [-1, 1]"
            )
    else:
        with EnvPool(env.model_copy(update={"renderer": "none"}), 1) as pool:
            _constant_action(pool.spec, numbers)


def _constant_action(spec: EnvSpec, numbers: Sequence[float]) -> np.ndarray:
    """Return the action of one number in [-1, 1] for every joint, or of a choice a group.

    Raises:
        PlanetError: it is neither.
    """
    if not spec.groups:
        if len(numbers) == 1 and -1 <= numbers[0] <= 1:
            return np.full(spec.action_size, numbers[0], np.float32)
        allowed = "in [-1, 1]"
    else:
        if len(numbers) == len(spec.groups) and all(
            n in range(size) for n, size in zip(numbers, spec.groups, strict=True)
        ):
            return from_places(np.array(numbers, int), spec.groups)
        most = [size - 1 for size in spec.groups]
        allowed = (
            f"a choice, 0 to {most[0]}"
            if len(most) == 1
            else f"{len(most)} choices, 0,0,… to {_listed(most)}"
        )
    raise PlanetError(f"--policy constant:{_listed(numbers)}: in {spec.id} it must be {allowed}")


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def env_overrides(overrides: Sequence[str]) -> dict[str, object]:
    """Return the settings that -s names, all of the environment.

    Raises:
        PlanetError: one is not, or names the task.
    """
    values = config.parse_overrides(overrides)
    for key, value in values.items():
        if key in config.flatten(config.Settings()) and (
            not key.startswith("env.") or key == "env.id"
        ):
            raise PlanetError(
                f"-s {key}={value}: `planet collect` changes only env.… settings, and the task is "
                "TASK"
            )
    return values
