"""Choices as tensors: actions [..., A] are one-hot vectors, one a group, side by side."""

import itertools

import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError

Groups = tuple[int, ...]  # how many choices each group has; () for actions that are numbers


def groups_of(discrete: bool | Groups, action_size: int) -> Groups:
    """Return the groups that `discrete` names: True is one choice, False are numbers.

    Raises:
        PlanetError: the sizes do not add up to `action_size`.
    """
    groups = (action_size,) if discrete is True else tuple(discrete or ())
    if groups and (min(groups) < 1 or sum(groups) != action_size):
        raise PlanetError(
            f"discrete = {list(groups)}: sizes of groups from 1 on must add up to the "
            f"{action_size} entries"
        )
    return groups


def runs(groups: Groups) -> list[tuple[int, int]]:
    """Return neighbouring groups of one size as (count, size): they are one tensor."""
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
    """Return actions [..., A] of the choices `index` [..., G].

    torch's own one_hot takes 8 bytes an entry.
    """
    pairs = zip(split_groups(index, groups), runs(groups), strict=True)
    return joined([_one_hot(part, size, dtype) for part, (_, size) in pairs])


def likeliest(flat: Tensor, groups: Groups) -> Tensor:
    """Return actions [..., A] with the largest entry of each group of `flat` [..., A]."""
    parts = split(flat, groups)
    return joined([_one_hot(part.argmax(-1), part.shape[-1], flat.dtype) for part in parts])


def uniform(drawn: Tensor, groups: Groups, dtype: torch.dtype) -> Tensor:
    """Return actions [..., A] of equally likely choices from `drawn` [..., G] in [0, 1]."""
    parts = []
    for part, (_, size) in zip(split_groups(drawn, groups), runs(groups), strict=True):
        index = (part * size).long().clamp(max=size - 1)
        parts.append(_one_hot(index, size, dtype))
    return joined(parts)


def each_entry(flags: Tensor, groups: Groups) -> Tensor:
    """Return `flags` [..., G], one a group, at each of the group's entries, [..., A]."""
    pairs = zip(split_groups(flags, groups), runs(groups), strict=True)
    return joined([part[..., None].expand(*part.shape, size) for part, (_, size) in pairs])


def _one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    hot = torch.zeros(*index.shape, size, dtype=dtype, device=index.device)
    return hot.scatter_(-1, index[..., None], 1)
