"""One imagined step on packed weights: a recurrent core, and the prior that reads its deter.

A step is made of two calls: `first` or `forward` advance deter, `raw` gives the prior's output.
What both read of a new deter is `shared`: it is computed once and passed from one to the other.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from planet_rssm.types import State
from planet_rssm.world_model.cells import GRUCore
from planet_rssm.world_model.latents import Sample
from planet_rssm.world_model.packed_layers import PLAIN, PackedCore, pack
from planet_rssm.world_model.rssm import RSSM


class PackedStep(nn.Module, ABC):
    """A core and its prior, in the form that is fastest for the core."""

    @abstractmethod
    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Return the next deter [M, D] and `shared`, for M / B rows of `action` a row of `state`.

        After the `last` step only the prior reads `shared`.
        """

    @abstractmethod
    def forward(
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the same for M rows of everything, after a step that returned these."""

    @abstractmethod
    def raw(self, shared: Tensor) -> Tensor:
        """Return the prior's raw parameters [M, raw_size]."""


class FusedStep(PackedStep):
    """A core that `PackedCore` takes apart: gates and the prior's first layer are one product."""

    def __init__(self, core: GRUCore, prior: nn.Sequential, stoch: int, dtype: torch.dtype) -> None:
        super().__init__()
        first, *rest = prior
        assert isinstance(first, nn.Linear)
        self.core = PackedCore(core, first, stoch, dtype)
        self.prior = pack(nn.Sequential(*rest), dtype)

    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.core.first(state.deter, state.stoch, action, last)

    def forward(  # noqa: D102
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        return self.core(deter, shared, sample, action, last)

    def raw(self, shared: Tensor) -> Tensor:  # noqa: D102
        return self.prior(self.core.prior(shared))


class PlainStep(PackedStep):
    """Any other core, as it is: all that is shared is deter itself."""

    def __init__(self, core: nn.Module, prior: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.core = pack(core, dtype)
        self.prior = pack(prior, dtype)

    def first(self, state: State, action: Tensor, last: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        many = len(action) // len(state.deter)
        deter, stoch = (part.repeat_interleave(many, 0) for part in state)
        return self._advance(deter, stoch, action)

    def forward(  # noqa: D102
        self, deter: Tensor, shared: Tensor, sample: Sample, action: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        return self._advance(deter, sample.vector(), action)

    def raw(self, shared: Tensor) -> Tensor:  # noqa: D102
        return self.prior(shared)

    def _advance(self, deter: Tensor, stoch: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        deter = self.core(deter.to(self.dtype), stoch.to(self.dtype), action)
        return deter, deter


def packed_step(rssm: RSSM, dtype: torch.dtype) -> PackedStep:
    """Return the fastest step of this model's core."""
    core = rssm.core
    if isinstance(core, GRUCore) and isinstance(core.cell, PLAIN) and len(core.inputs) > 0:
        return FusedStep(core, rssm.prior_net, rssm.stoch_size, dtype)
    return PlainStep(core, rssm.prior_net, dtype)
