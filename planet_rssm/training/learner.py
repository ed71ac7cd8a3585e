"""One optimiser step, and the state that a checkpoint keeps of it."""

import math

import torch
from torch import Tensor

from planet_rssm.config import Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.device import autocast, generator
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.types import Batch
from planet_rssm.world_model import WorldModel


class Learner:
    """Adam on the world model's loss (PlaNet, appendix A), with a global-norm clip."""

    def __init__(self, model: WorldModel, settings: Settings, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device
        adam = settings.optimizer
        self.optimizer = torch.optim.Adam(model.parameters(), lr=adam.lr, eps=adam.eps, fused=True)

    def update(self, chunks: Chunks, index: int) -> dict[str, float]:
        """Take the optimiser step number `index` of the run on `chunks`.

        Returns:
            The loss's parts and `grad_norm`, as floats. Where the loss or its gradient is not finite nothing is
            changed, and the only entry is `skipped`.
        """
        batch = to_batch(chunks, self.device)
        rng = generator(stream_seed(self.settings.seed, Stream.UPDATE, index), self.device)
        batch_size, length = chunks.reward.shape
        noise = self.model.draw(batch_size, length, rng, self.device)
        with autocast(self.device, self.settings.train.precision):
            loss, metrics = self.model.loss(batch, noise)
        self.optimizer.zero_grad()
        loss.backward()
        metrics["grad_norm"] = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.optimizer.clip)
        # One transfer for all numbers: each by itself would wait for the device.
        values = dict(zip(metrics, torch.stack([value.float() for value in metrics.values()]).tolist(), strict=True))
        if not (math.isfinite(values["loss/total"]) and math.isfinite(values["grad_norm"])):
            return {"skipped": 1.0}
        self.optimizer.step()
        return values

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return Adam's state by `parameter/entry`, for a checkpoint."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            f"{names[parameter]}/{entry}": tensor.detach().cpu()
            for parameter, state in self.optimizer.state.items()
            for entry, tensor in state.items()
        }

    def load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take Adam's state back from `optimizer_tensors`."""
        parameters = dict(self.model.named_parameters())
        for key, tensor in tensors.items():
            name, _, entry = key.rpartition("/")
            parameter = parameters[name]
            # The fused step walks parameter and moments in memory order: they must share their layout.
            like = parameter if tensor.shape == parameter.shape else tensor
            self.optimizer.state[parameter][entry] = torch.empty_like(like, device=self.device).detach().copy_(tensor)


def to_batch(chunks: Chunks, device: torch.device) -> Batch:
    """Move a replay's chunks to `device`; images stay uint8 on the way."""
    observation = {key: torch.from_numpy(value).to(device) for key, value in chunks.observation.items()}
    rest = (chunks.action, chunks.reward, chunks.is_first, chunks.is_terminal, chunks.mask)
    return Batch(observation, *(torch.from_numpy(value).to(device) for value in rest))
