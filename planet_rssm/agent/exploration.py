"""Noise on chosen actions, by which new data differ."""

import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners.choices import Groups, each_entry, uniform


def explore(action: Tensor, std: float, groups: Groups, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise to `action` [B, A] and clip to [-1, 1].

    Of choices, `std` is the chance, in each group by itself, of a random one instead.
    """
    if not groups:
        noise = torch.randn(action.shape, generator=rng, device=action.device)
        return (action + std * noise).clamp(-1, 1)
    draw, which = torch.rand(2, len(action), len(groups), generator=rng, device=action.device)
    random = uniform(which, groups, action.dtype)
    return torch.where(each_entry(draw < std, groups), random, action)


def check_noise(name: str, noise: float, spec: EnvSpec) -> None:
    """Refuse exploration noise that is no chance where actions are choices.

    `name` is what the user calls it.

    Raises:
        PlanetError: it is more than 1.
    """
    if spec.groups and noise > 1:
        raise PlanetError(
            f"{name} {noise:g}: in {spec.id} it is the chance of a random choice; give at most 1"
        )
