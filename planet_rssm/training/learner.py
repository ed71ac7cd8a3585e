"""One optimiser step, and the state that a checkpoint keeps of it."""

import math

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from planet_rssm.config import Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.device import autocast, generator
from planet_rssm.seeding import Stream, stream_seed
from planet_rssm.training.optim import build_optimizer, warm
from planet_rssm.types import Batch
from planet_rssm.world_model import WorldModel

FIRST_SCALE = 1024.0  # of the loss in float16: it sums over pixels, so PyTorch's 65536 would overflow for long
SCALER = "<scaler>"  # no parameter is called so


class Learner:
    """An optimiser on the world model's loss, with a global-norm clip; in float16 the loss is scaled."""

    def __init__(self, model: WorldModel, settings: Settings, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.optimizer = build_optimizer(model.parameters(), settings.optimizer)
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=FIRST_SCALE, enabled=settings.train.precision == "float16"
        )

    def update(self, chunks: Chunks, index: int) -> dict[str, float]:
        """Take the optimiser step number `index` of the run on `chunks`.

        Returns:
            The loss's parts, `grad_norm` before clipping and that of each part of the model, as floats. Where the loss
            or its gradient is not finite nothing is changed, and the only entry is `skipped`.
        """
        batch = to_batch(chunks.seen(self.model.spec.observation), self.device)
        rng = generator(stream_seed(self.settings.seed, Stream.UPDATE, index), self.device)
        batch_size, length = chunks.reward.shape
        noise = self.model.draw(batch_size, length, rng, self.device)
        with autocast(self.device, self.settings.train.precision):
            loss, metrics = self.model.loss(batch, noise)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        metrics |= self._clip()
        # One transfer for all numbers: each by itself would wait for the device.
        values = dict(zip(metrics, torch.stack([value.float() for value in metrics.values()]).tolist(), strict=True))
        finite = math.isfinite(values["loss/total"]) and math.isfinite(values["grad_norm"])
        if finite:
            warm(self.optimizer, self.settings.optimizer, index)
            self.scaler.step(self.optimizer)
        if self.scaler.is_enabled():
            self.scaler.update()  # a gradient that is not finite lowers the scale
        return values if finite else {"skipped": 1.0}

    def _clip(self) -> dict[str, Tensor]:
        """Scale the gradients down to the greatest norm that they may have together; return what norms they had."""
        parts = {name: list(part.parameters()) for name, part in self.model.named_children()}
        grads = {name: [p.grad for p in parameters if p.grad is not None] for name, parameters in parts.items()}
        norms = {f"grad_norm/{name}": get_total_norm(part) for name, part in grads.items() if part}
        total = torch.stack(list(norms.values())).norm()
        clip_grads_with_norm_(self.model.parameters(), self.settings.optimizer.clip, total)
        return {"grad_norm": total, **norms}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimiser's state by `parameter/entry`, and the scaler's, for a checkpoint."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        scaler = {key: torch.tensor(float(value)) for key, value in self.scaler.state_dict().items()}
        return {f"{SCALER}/{key}": value for key, value in scaler.items()} | {
            f"{names[parameter]}/{entry}": tensor.detach().cpu()
            for parameter, state in self.optimizer.state.items()
            for entry, tensor in state.items()
        }

    def load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `optimizer_tensors` gave."""
        parameters = dict(self.model.named_parameters())
        scaler = {key.removeprefix(f"{SCALER}/"): tensor for key, tensor in tensors.items() if key.startswith(SCALER)}
        if scaler and self.scaler.is_enabled():  # a run may be opened in another precision
            held = self.scaler.state_dict()
            self.scaler.load_state_dict({key: type(held[key])(tensor) for key, tensor in scaler.items()})
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(SCALER)}
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
