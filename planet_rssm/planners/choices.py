"""Choices as tensors: actions [..., A] are one one-hot vector a group, side by side, A the sum of the groups' sizes."""

import itertools

import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError

Groups = tuple[int, ...]  # how many choices each group has; () for actions that are numbers


def groups_of(discrete: bool | Groups, action_size: int) -> Groups:
    """Return the groups that `discrete` names: True is one choice among `action_size`, False are numbers.

    Raises:
        PlanetError: the sizes are not those of an action of that size.
    """
    groups = (action_size,) if discrete is True else tuple(discrete or ())
    if groups and (min(groups) < 1 or sum(groups) != action_size):
        raise PlanetError(
            f"discrete = {list(groups)}: sizes of groups from 1 on must add up to the {action_size} entries"
        )
    return groups


def runs(groups: Groups) -> list[tuple[int, int]]:
    """Return neighbouring groups of one size as (how many, which size): they are computed with as one tensor."""
    return [(len(list(run)), size) for size, run in itertools.groupby(groups)]


def split(flat: Tensor, groups: Groups) -> list[Tensor]:
    """Return each run's part of `flat` [..., A] as [..., n, size]."""
    parts = flat.split([count * size for count, size in runs(groups)], -1)
    return [part.unflatten(-1, run) for part, run in zip(parts, runs(groups), strict=True)]


def split_groups(each: Tensor, groups: Groups) -> list[Tensor]:
    """Return each run's part [..., n] of what is one a group, `each` [..., G]."""
    return list(each.split([count for count, _ in runs(groups)], -1))


def joined(parts: list[Tensor]) -> Tensor:
    """Return the parts [..., n, size] of runs as [..., A]."""
    flat = [part.flatten(-2) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def one_hots(index: Tensor, groups: Groups, dtype: torch.dtype) -> Tensor:
    """Return actions [..., A] of the choices `index` [..., G]; without the 8 bytes an entry of torch's own one_hot."""
    pairs = zip(split_groups(index, groups), runs(groups), strict=True)
    return joined([_one_hot(part, size, dtype) for part, (_, size) in pairs])


def likeliest(flat: Tensor, groups: Groups) -> Tensor:
    """Return actions [..., A] with the largest entry of each group of `flat` [..., A]."""
    return joined(
        [_one_hot(part.argmax(-1), part.shape[-1], flat.dtype) for part in split(flat, groups)]
    )


def uniform(drawn: Tensor, groups: Groups, dtype: torch.dtype) -> Tensor:
    """Return actions [..., A] of choices that are all equally likely, from `drawn` [..., G] uniform in [0, 1]."""
    pairs = zip(split_groups(drawn, groups), runs(groups), strict=True)
    return joined(
        [
            _one_hot((part * size).long().clamp(max=size - 1), size, dtype)
            for part, (_, size) in pairs
        ]
    )


def each_entry(flags: Tensor, groups: Groups) -> Tensor:
    """Return what is one a group, `flags` [..., G], at each of the group's entries, [..., A]."""
    pairs = zip(split_groups(flags, groups), runs(groups), strict=True)
    return joined([part[..., None].expand(*part.shape, size) for part, (_, size) in pairs])


def _one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(*index.shape, size, dtype=dtype, device=index.device).scatter_(
        -1, index[..., None], 1
    )
