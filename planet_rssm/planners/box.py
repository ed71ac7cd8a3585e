"""The box that actions lie in: planners search in [−1, 1], plans are in the user's units."""

from collections.abc import Iterable

import torch
from torch import Tensor

from planet_rssm.base.errors import PlanetError

Bound = float | Tensor | Iterable[float]  # a number, or a tensor, array or list [A]


class Box:
    """Bounds `low` and `high` of an action of size A; [−1, 1] costs nothing."""

    def __init__(self, low: Bound, high: Bound, size: int) -> None:
        """Take the bounds.

        Raises:
            PlanetError: a bound is of another size, not finite, or not below the other.
        """
        self._bounds = torch.stack([_bound("low", low, size), _bound("high", high, size)])
        if not bool((self._bounds[0] < self._bounds[1]).all()):
            raise PlanetError(
                f"low = {low}, high = {high}: every low must be below its high; change one of them"
            )
        self.size = float(self._bounds.abs().max())  # of the largest bound
        self.unit = bool((self._bounds.abs() == 1).all())
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def actions(self, sequences: Tensor) -> Tensor:
        """Return `sequences` [..., A] in [−1, 1] in the box: −1 is exactly low, 1 exactly high."""
        if self.unit:
            return sequences
        low, high = self._as(sequences)
        return torch.lerp(low, high, (sequences + 1) / 2)

    def sequences(self, actions: Tensor) -> Tensor:
        """Return `actions` [..., A] in [−1, 1], moved to the nearest bound if they are outside."""
        if not self.unit:
            low, high = self._as(actions)
            actions = 2 * (actions - low) / (high - low) - 1
        return actions.nan_to_num(0.0).clamp(-1.0, 1.0)

    def _as(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds where `like` is; copied to a device once, for a copy is a wait."""
        key = like.device, like.dtype
        if key not in self._copies:
            low, high = self._bounds.to(like.device, like.dtype)
            self._copies[key] = low, high
        return self._copies[key]


def _bound(name: str, value: Bound, size: int) -> Tensor:
    bound = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if bound.shape not in ((), (size,)):
        raise PlanetError(
            f"{name} of shape {tuple(bound.shape)}: must be a number or ({size},), one for each "
            "action"
        )
    if not bool(bound.isfinite().all()):
        raise PlanetError(f"{name} = {value}: actions need finite bounds to be searched; give some")
    return bound.expand(size)
