"""Copies, parts and comparisons of whatever a state is made of."""

import functools
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.planners.box import Box
from planet_rssm.planners.choices import Groups, likeliest

T = TypeVar("T")


def some_actions(
    state: object,
    size: int,
    box: Box,
    groups: Groups,
    candidates: int,
    horizon: int,
) -> Tensor:
    """Return actions [B, N, H, A] that differ, the same at every call."""
    leaf = pytree.tree_leaves(state)[0]
    shape = (len(leaf), candidates, horizon, size)
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(shape, dtype=precision(state), generator=generator).to(leaf.device)
    return likeliest(uniform, groups) if groups else box.actions(2 * uniform - 1)


def precision(state: object) -> torch.dtype:
    """Return the dtype of a search from `state`: float32, or float64 if any part of it is."""
    dtypes = (leaf.dtype for leaf in pytree.tree_leaves(state))
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def take(tree: T, *part: slice) -> T:
    """Return the part `leaf[part]` of every leaf of a tree."""
    return pytree.tree_map(lambda leaf: None if leaf is None else leaf[part], tree)


def copied(tree: T) -> T:
    """Return a tree of copies."""
    return pytree.tree_map(lambda leaf: None if leaf is None else leaf.clone(), tree)


def close(left: object, right: object, tolerance: float = 0.0) -> bool:
    """Return whether two trees of one form have equal numbers, or nearly so; NaN equals NaN."""
    pairs = zip(pytree.tree_leaves(left), pytree.tree_leaves(right), strict=True)
    return all(
        one is other or torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
        for one, other in pairs
    )


def same(left: object, right: object) -> bool:
    """Return whether two trees have the same numbers."""
    return close(left, right)


def raise_broken(lines: Iterable[str]) -> None:
    """Raise an AssertionError of the lines, if there are any."""
    if broken := list(lines):
        raise AssertionError("\n".join(broken))
