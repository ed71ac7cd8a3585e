"""One optimiser step, and the state that a checkpoint keeps of it."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from planet_rssm.base.device import autocast, exact_float32, generator, to_device
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior import Behavior, ImaginationNoise
from planet_rssm.config import Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.graphs import CaptureError
from planet_rssm.precision import training_precision
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.training.captured import CapturedUpdate, Gradients, Staged
from planet_rssm.training.optim import build_optimizer, judged, warm
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.training.team import Team
from planet_rssm.types import Batch
from planet_rssm.world_model import LossNoise, WorldModel
from planet_rssm.world_model.losses import LossOutput
from planet_rssm.world_model.plain import plainly

# of the loss in float16: it sums over pixels, so PyTorch's 65536 would overflow for long
FIRST_SCALE = 1024.0
SCALER = "<scaler>"  # no parameter is called so
BEHAVIOR = "behavior."  # before the names of the actor's and the critic's parameters

# the loss, its metrics, and the new range of returns
Losses = tuple[Tensor, dict[str, Tensor], Tensor | None]

_log = logging.getLogger("planet_rssm")


class Learner:
    """One optimiser on the losses of the world model and of behaviour, if there is any.

    Gradients are clipped by their global norm. In float16 the loss is scaled.
    """

    def __init__(
        self,
        model: WorldModel,
        settings: Settings,
        device: torch.device,
        behavior: Behavior | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        self.behavior = behavior
        exact_float32(device)
        self.precision = training_precision(settings, device)
        capturable = self._capturable()
        groups = _groups(model, behavior, settings)
        self.optimizer = build_optimizer(groups, settings.optimizer, capturable=capturable)
        self.scaler = self._scaler()
        self._captured = self._new_captured() if capturable else None
        self._team: Team | None = None
        self._of_team: Callable[..., Losses] | None = None

    def join(self, team: Team) -> None:
        """Share the rows of every batch with the other processes of a team, from now on.

        All of them call this at once, with the same weights. Updates take the plain path then: a
        captured graph would have to have the exchange in it.
        """
        self._team = team
        self._captured = None
        train = self.settings.train
        blank = random_chunks(self.model.spec, 1, train.batch_length)
        team.begin(train.batch_size, _arrays(blank, self.model.spec.observation))
        parts: dict[str, nn.Module] = {"model": self.model}
        if self.behavior is not None:
            parts["behavior"] = self.behavior
        self._of_team = team.wrapped(self._losses, parts, changing=bool(self.model.terms))

    def stage(self, chunks: Chunks, index: int) -> Staged:
        """Make a batch ready for update number `index`; another thread may do so meanwhile."""
        arrays = _arrays(chunks, self.model.spec.observation)
        captured = self._captured
        return Staged(arrays) if captured is None else captured.stage(arrays, index)

    def update(self, batch: Chunks | Staged, index: int) -> dict[str, float]:
        """Take the optimiser step number `index` of the run on chunks, or on what `stage` returned.

        On a CUDA device it is one captured graph. With `train.fast=false` it takes the plain path.

        Returns:
            The loss's parts, `grad_norm` of the model before clipping and that of each part, as
            floats. Where a loss or a gradient is not finite nothing is changed, and the only entry
            is `skipped`.
        """
        staged = self.stage(batch, index) if isinstance(batch, Chunks) else batch
        values = None if self._captured is None else self._capture(self._captured, staged, index)
        if values is not None:
            return values if _finite(values) else {"skipped": 1.0}
        arrays = staged.arrays if self._team is None else self._team.own_rows(staged.arrays, index)
        tensors = to_device(arrays, self.device)
        rngs = [generator(seed, self.device) for seed in self._seeds(index)]
        metrics, bounds = self._gradients(tensors, rngs)
        # One transfer for all numbers: each by itself would wait for the device.
        numbers = torch.stack([value.float() for value in metrics.values()]).tolist()
        values = dict(zip(metrics, numbers, strict=True))
        finite = _finite(values)
        if finite:
            warm(self.optimizer, self.settings.optimizer, index)
            self.scaler.step(self.optimizer)
            if self.behavior is not None and bounds is not None:
                self.behavior.settle(index + 1, bounds)
        if self.scaler.is_enabled():
            self.scaler.update()  # a gradient that is not finite lowers the scale
        return values if finite else {"skipped": 1.0}

    def _capture(
        self, captured: CapturedUpdate, staged: Staged, index: int
    ) -> dict[str, float] | None:
        """Return the metrics of one launch, or None after what makes the plain path ready."""
        try:
            return captured(staged, self._seeds(index), index)
        except CaptureError as error:
            _log.warning(
                f"an update cannot be captured as a CUDA graph ({error}): it takes the plain path, "
                "which is slower; train.fast=false does so from the beginning"
            )
        self._captured = None
        captured.undo()
        state = self.scaler.state_dict()
        self.scaler = self._scaler()  # the other one is in the middle of an update
        self.scaler.load_state_dict(state)
        return None

    def _gradients(self, tensors: Sequence[Tensor], rngs: Sequence[torch.Generator]) -> Gradients:
        """Give every parameter its clipped gradient on a batch, with what the generators draw."""
        batch = self._batch(tensors)
        path = nullcontext() if self.settings.train.fast else plainly()
        self.optimizer.zero_grad()
        with nullcontext() if self._team is None else self._team.at_work():
            # Inside a capture too: its cache of weights is empty here, and again at the end.
            with autocast(self.device, self.precision), path:
                length = batch.reward.shape[1]
                rows = len(batch.reward) if self._team is None else self._team.batch_size
                noise, drawn = self.model.draw(rows, length, rngs[0], self.device), None
                if self.behavior is not None:
                    size = self.model.rssm.noise_size
                    drawn = self.behavior.draw(rows * length, size, rngs[1], self.device)
                if self._of_team is None:
                    output = self.model.loss(batch, noise)
                    loss, metrics, bounds = self._with_behavior(output, batch, drawn)
                else:
                    loss, metrics, bounds = self._of_team(batch, *self._own_rows(noise, drawn))
            if self._team is not None:
                # gradients become the mean of all processes', and are to be the sum
                loss, metrics = loss * self._team.count, self._team.summed(metrics)
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        metrics |= self._clip()
        return Gradients(metrics, bounds)

    def _losses(self, batch: Batch, noise: LossNoise, drawn: ImaginationNoise | None) -> Losses:
        return self._with_behavior(self.model.loss(batch, noise), batch, drawn)

    def _with_behavior(
        self, output: LossOutput, batch: Batch, drawn: ImaginationNoise | None
    ) -> Losses:
        loss, metrics, context = output
        if self.behavior is None or drawn is None:
            return loss, metrics, None
        added, more, bounds = self.behavior.loss(self.model, batch, context, drawn)
        return loss + added, metrics | more, bounds

    def _own_rows(
        self, noise: LossNoise, drawn: ImaginationNoise | None
    ) -> tuple[LossNoise, ImaginationNoise | None]:
        """Return of an update's noise what belongs to this process of the team."""
        assert self._team is not None
        own, length = self._team.rows, noise.latent.shape[1]
        states = range(own.start * length, own.stop * length)
        return noise.of_rows(own), drawn and drawn.of_states(states)

    def _batch(self, tensors: Sequence[Tensor]) -> Batch:
        keys = self.model.spec.observation
        observation = dict(zip(keys, tensors, strict=False))
        return Batch(observation, *tensors[len(keys) :])

    def _seeds(self, index: int) -> list[int]:
        streams = [Stream.UPDATE] if self.behavior is None else [Stream.UPDATE, Stream.BEHAVIOR]
        return [stream_seed(self.settings.seed, stream, index) for stream in streams]

    def _capturable(self) -> bool:
        """Return whether updates are captured: a user's term may differ from call to call."""
        return self.device.type == "cuda" and self.settings.train.fast and not self.model.terms

    def _new_captured(self) -> CapturedUpdate:
        return CapturedUpdate(
            self._gradients,
            self.optimizer,
            self.settings.optimizer,
            self.scaler,
            self.behavior,
            self.device,
        )

    def _scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(
            self.device.type, init_scale=FIRST_SCALE, enabled=self.precision == "float16"
        )

    def _clip(self) -> dict[str, Tensor]:
        """Scale the gradients down to their greatest norms, and return the norms they had.

        The model's parts have one together, actor and critic one each.
        """
        norms = _norms(self.model)
        total = torch.stack(list(norms.values())).norm()
        clip_grads_with_norm_(self.model.parameters(), self.settings.optimizer.clip, total)
        if self.behavior is None:
            return {"grad_norm": total, **norms}
        behavior_norms = _norms(self.behavior)
        for name, part in self.behavior.named_children():
            clip = self.settings.behavior.clip or self.settings.optimizer.clip
            clip_grads_with_norm_(part.parameters(), clip, behavior_norms[f"grad_norm/{name}"])
        return {"grad_norm": total, **norms, **behavior_norms}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimiser's state by `parameter/entry`, and the scaler's, for a checkpoint."""
        names = {parameter: name for name, parameter in self.parameters().items()}
        scaler = {
            key: torch.tensor(float(value)) for key, value in self.scaler.state_dict().items()
        }
        return {f"{SCALER}/{key}": value for key, value in scaler.items()} | {
            f"{names[parameter]}/{entry}": tensor.detach().cpu()
            for parameter, state in self.optimizer.state.items()
            for entry, tensor in state.items()
        }

    def load_optimizer_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `optimizer_tensors` gave."""
        parameters = self.parameters()
        scaler = {
            key.removeprefix(f"{SCALER}/"): tensor
            for key, tensor in tensors.items()
            if key.startswith(SCALER)
        }
        if scaler and self.scaler.is_enabled():  # a run may be opened in another precision
            now = self.scaler.state_dict()
            self.scaler.load_state_dict(
                {key: type(now[key])(tensor) for key, tensor in scaler.items()}
            )
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(SCALER)}
        for key, tensor in tensors.items():
            name, _, entry = key.rpartition("/")
            parameter = parameters[name]
            # The fused step walks parameter and moments in memory order: they must share their
            # layout.
            like = parameter if tensor.shape == parameter.shape else tensor
            where = (
                torch.device("cpu")
                if entry in getattr(self.optimizer, "on_host", ())
                else self.device
            )
            self.optimizer.state[parameter][entry] = (
                torch.empty_like(like, device=where).detach().copy_(tensor)
            )
        if self._captured is not None:  # a graph changes the tensors that there were
            self._captured = self._new_captured()

    def checkpoint(self, spec: EnvSpec, progress: Json) -> Checkpoint:
        """Return all that was learned, on the CPU."""
        model = _on_cpu(self.model)
        behavior = {} if self.behavior is None else _on_cpu(self.behavior)
        return Checkpoint(self.settings, spec, progress, model, self.optimizer_tensors(), behavior)

    def parameters(self) -> dict[str, Tensor]:
        """Return every parameter by the name under which a checkpoint keeps its optimiser state."""
        parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.behavior is not None:
            parameters |= {
                f"{BEHAVIOR}{name}": parameter
                for name, parameter in self.behavior.named_parameters()
            }
        return parameters


def check_state(parameters: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Refuse an optimiser's state that is not one for these parameters, named as a checkpoint does.

    Raises:
        PlanetError: a tensor of it is too many, missing or of another shape or type.
    """
    entries: dict[str, set[str]] = {}
    wrong = None
    for key, tensor in checkpoint.optimizer.items():
        name, _, entry = key.rpartition("/")
        if name == SCALER:
            wrong = wrong or (None if tensor.numel() == 1 else f"{key} is not one number")
            continue
        entries.setdefault(name, set()).add(entry)
        like = parameters.get(name)
        if like is None:
            wrong = f"{key} is of no parameter"
        elif tensor.numel() != 1 and tensor.shape != like.shape or not tensor.is_floating_point():
            wrong = (
                f"{key} is {tensor.dtype} {list(tensor.shape)}, its parameter {list(like.shape)}"
            )
    if wrong is None and len({frozenset(names) for names in entries.values()}) > 1:
        wrong = "some parameters have less of it than others"
    if not entries and checkpoint.progress["updates"] > checkpoint.progress.get("skipped", 0):
        wrong = "there is none"
    if wrong:
        raise PlanetError(
            f"{checkpoint.name}: its optimiser's state: {wrong}; go on from another checkpoint"
        )


def _groups(
    model: WorldModel, behavior: Behavior | None, settings: Settings
) -> list[dict[str, Any]]:
    """Return the model's parameters and those of behaviour, which may learn at another rate."""
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if behavior is not None:
        own, shared = settings.behavior, settings.optimizer
        lr = own.lr or shared.lr
        groups.append({
            "params": [parameter for parameter in behavior.parameters() if parameter.requires_grad],
            "lr": lr,
            "full_lr": lr,  # after the warm-up
            "eps": own.eps or shared.eps,
            # as much off the weights an update
            "weight_decay": shared.weight_decay * shared.lr / lr,
        })  # fmt: skip
    return groups


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu() for key, tensor in module.state_dict().items()}


def _norms(module: nn.Module) -> dict[str, Tensor]:
    """Return the norm of the gradient of each part that has one."""
    parts = {name: list(part.parameters()) for name, part in module.named_children()}
    grads = {
        name: [p.grad for p in parameters if p.grad is not None]
        for name, parameters in parts.items()
    }
    return {f"grad_norm/{name}": get_total_norm(part) for name, part in grads.items() if part}


def _finite(values: dict[str, float]) -> bool:
    return all(map(math.isfinite, judged(values)))


def _arrays(chunks: Chunks, keys: Iterable[str]) -> list[np.ndarray]:
    """Return all that a batch consists of, in its order, with the observations named alone."""
    rest = (chunks.action, chunks.reward, chunks.is_first, chunks.is_terminal, chunks.mask)
    return [*(chunks.observation[key] for key in keys), *rest]


def to_batch(chunks: Chunks, device: torch.device) -> Batch:
    """Move a replay's chunks to `device`; images stay uint8 on the way."""
    observation = chunks.observation
    rest = (chunks.action, chunks.reward, chunks.is_first, chunks.is_terminal, chunks.mask)
    moved = to_device([*observation.values(), *rest], device)
    return Batch(dict(zip(observation, moved, strict=False)), *moved[len(observation) :])
