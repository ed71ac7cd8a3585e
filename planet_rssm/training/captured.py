"""An update as one CUDA graph: a launch where there are thousands."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from planet_rssm.base.device import Inputs, stage
from planet_rssm.behavior import Behavior
from planet_rssm.config import OptimizerSettings
from planet_rssm.graphs import RepeatedGraph
from planet_rssm.training.optim import judged, rates_of


class Gradients(NamedTuple):
    """What an update has when every parameter has its clipped gradient."""

    metrics: dict[str, Tensor]  # scalars by name
    bounds: Tensor | None  # the new range of returns, where there is behaviour


class Staged(NamedTuple):
    """A batch on its way to the device."""

    arrays: Sequence[np.ndarray]
    inputs: Sequence[np.ndarray] = ()  # with them, the other inputs of a captured update
    memory: Tensor | None = None  # the bytes of these, pinned; None: not for a captured update


class CapturedUpdate:
    """The updates of a learner on batches of one shape.

    What differs from update to update are tensors of the device: batch, learning rates, how far
    the slow critic follows, and the generators' states. So is the decision whether the step is
    taken.
    """

    def __init__(
        self,
        gradients: Callable[[Sequence[Tensor], Sequence[torch.Generator]], Gradients],
        optimizer: Optimizer,
        settings: OptimizerSettings,
        scaler: torch.amp.GradScaler,
        behavior: Behavior | None,
        device: torch.device,
    ) -> None:
        """Take the parts of the learner.

        `gradients(batch, generators)` makes them of the batch's tensors and of what it draws;
        `optimizer` is capturable.
        """
        self._gradients = gradients
        self._optimizer = optimizer
        self._settings = settings
        self._scaler = scaler
        self._behavior = behavior
        self._device = device
        self._generators = [torch.Generator(device) for _ in range(1 if behavior is None else 2)]
        self._shapes: list[Any] = []
        self._names: list[str] = []

    def stage(self, arrays: Sequence[np.ndarray], index: int) -> Staged:
        """Bring a batch together with what else update number `index` needs from the host."""
        rates = rates_of(self._optimizer, self._settings, index)
        share = 0.0 if self._behavior is None else self._behavior.critic.share_after(index + 1)
        inputs = [*arrays, np.array(rates, np.float32), np.array(share, np.float32)]
        return Staged(arrays, inputs, stage(inputs, self._device))

    def __call__(self, staged: Staged, seeds: Sequence[int], index: int) -> dict[str, float]:
        """Take the step number `index` with what `stage` returned, and return its metrics.

        Raises:
            CaptureError: see `RepeatedGraph`; nothing has changed.
        """
        if staged.memory is None:
            staged = self.stage(staged.arrays, index)
        assert staged.memory is not None
        shapes = [(array.shape, array.dtype) for array in staged.inputs]
        if shapes != self._shapes:
            self._shapes = shapes
            self._inputs = Inputs(staged.inputs, self._device)
            self._graph = RepeatedGraph(self._step, self._device, self._generators)
        self._inputs.fill(staged.memory)
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)
        numbers = self._graph().tolist()  # one transfer, and one wait, for all of them
        return dict(zip(self._names, numbers, strict=True))

    def _step(self) -> Tensor:
        """Take a step with what the inputs are, and return the numbers of the metrics."""
        *batch, rates, share = self._inputs.tensors
        metrics, bounds = self._gradients(batch, self._generators)
        finite = torch.stack([value.float() for value in judged(metrics)]).isfinite().all()
        for group, rate in zip(self._optimizer.param_groups, rates.unbind(), strict=True):
            group["lr"] = rate
        self._optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        if self._behavior is not None and bounds is not None:
            self._behavior.settle_where(finite, share, bounds)
        if self._scaler.is_enabled():
            self._scaler.update()
        self._names = list(metrics)
        return torch.stack([value.float() for value in metrics.values()])

    def undo(self) -> None:
        """Let the optimiser be one for plain steps again, after a capture that failed."""
        self._optimizer.found_inf = None  # type: ignore[attr-defined]
        self._optimizer.zero_grad()
