"""What would end a run before it has learned anything, tried before there is a run folder."""

from typing import TYPE_CHECKING

import click
import numpy as np

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json

if TYPE_CHECKING:
    import torch

    from planet_rssm.envs.pool import EnvPool
    from planet_rssm.envs.spec import EnvSpec


def checked(
    settings: config.Settings, *, collects_elsewhere: bool = False
) -> tuple[config.Settings, "torch.device"]:
    """Return the settings as resolved here, and the device; raise what would end the run now.

    Where a run collects on other machines, all threads of this one learn.
    """
    from planet_rssm.base.device import resolve_device  # torch: not for `planet train --help`
    from planet_rssm.envs.registry import resolve
    from planet_rssm.precision import training_precision

    device = resolve_device(settings.device)
    train = settings.train.model_copy(update={"precision": training_precision(settings, device)})
    changed: Json = {"train": train}
    if settings.data.folder is None:
        changed["env"] = resolve(settings.env)
    settings = settings.model_copy(update=changed)
    if settings.data.folder is None:
        spec = _check_learnable(settings, device)
    else:
        from planet_rssm.training.offline import spec_of_episodes

        spec = spec_of_episodes(settings)
    return _with_threads(settings, spec, device, collects_elsewhere), device


def _with_threads(
    settings: config.Settings, spec: "EnvSpec", device: "torch.device", collects_elsewhere: bool
) -> config.Settings:
    """Return the settings with the threads that a run on this CPU keeps, and say how chosen."""
    from planet_rssm.training.threads import choose_threads

    if device.type != "cpu":
        return settings
    asked = settings
    if collects_elsewhere:  # as if in turns
        alone = settings.train.model_copy(update={"staleness": 0})
        asked = settings.model_copy(update={"train": alone})
    threads, why = choose_threads(asked, spec, device)
    if why:
        click.echo(why, err=True)
    chosen = {"threads": threads.learn, "collect_threads": threads.collect}
    return settings.model_copy(update={"train": settings.train.model_copy(update=chosen)})


def _check_learnable(settings: config.Settings, device: "torch.device") -> "EnvSpec":
    from planet_rssm.agent import check_noise
    from planet_rssm.behavior import check_objective
    from planet_rssm.envs.pool import EnvPool
    from planet_rssm.planners import planner_from_settings
    from planet_rssm.planners.limits import require_search
    from planet_rssm.training.sizes import check_sizes

    env = settings.env
    if env.renderer == "none" and env.observe != "vectors":
        raise PlanetError(
            "env.renderer = 'none': there would be nothing to see; use auto, or env.observe=vectors"
        )
    with EnvPool(env, 1) as pool:  # only the environment itself knows of a missing package, say
        spec = pool.spec
        _try_out(pool)
    check_sizes(settings, spec, device)
    check_objective(settings, spec)
    if settings.planner.name != "actor":
        require_search(settings.planner, device)
        planner_from_settings(settings.planner, spec.action_size, spec.groups)
    check_noise("train.exploration_noise =", settings.train.exploration_noise, spec)
    _say_if_random_alone(settings, spec.episode_steps)
    return spec


def _say_if_random_alone(settings: config.Settings, episode_steps: int) -> None:
    """Say that the random episodes use up the budget, so that nothing is collected by planning."""
    train = settings.train
    random = train.seed_episodes * episode_steps
    if random > train.env_steps:
        click.echo(
            f"train.env_steps = {train.env_steps}: the {train.seed_episodes} random episodes that "
            f"a run begins with are {random} env_steps if none ends early, so it ends after one "
            f"round of {train.updates} updates; raise train.env_steps or lower train.seed_episodes",
            err=True,
        )


def _try_out(pool: "EnvPool") -> None:
    """Take a first step, which shows most mistakes in a user's own class.

    A lost worker is tried again until the pool gives up.
    """
    nothing = np.zeros(pool.spec.action_size, np.float32)
    lost = True
    while lost:
        pool.reset({0: 0})
        lost = pool.step({0: nothing})[0].lost
