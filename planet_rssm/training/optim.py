"""The optimisers that a world model is trained with."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from planet_rssm.config import OptimizerSettings

# A tensor's norm counts as at least this when its gradient is clipped to a share of it.
SMALLEST = 1e-3


class LaProp(Optimizer):
    """DreamerV3's optimiser: adaptive gradient clipping, RMS scaling, then momentum.

    LaProp is arXiv 2002.04839, AGC is 2102.06171, here by complete tensors. For each tensor:
    g *= min(1, agc max(1e-3, |p|) / |g|); g /= sqrt(second moment); p -= lr * (mean of the late g).
    Both moments are corrected for their start at 0. The maths runs over all tensors at once.
    """

    # Entries of the state that live on the CPU: each step reads them, and would wait for a device.
    on_host = ("step",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        weight_decay: float = 0.0,
    ) -> None:
        """Take the parameters and the recipe.

        `agc` is the share of a tensor's norm that its gradient may have.
        """
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "agc": agc, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients that are there."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step(group, params)

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        steps, means, squares = (
            [self.state[p][name] for p in params] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        torch._foreach_add_(steps, 1)
        counts = [float(step) for step in steps]
        beta1, beta2 = group["betas"]
        grads = clipped([p.grad for p in params if p.grad is not None], params, group["agc"])
        torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 1 - beta2)
        scale = torch._foreach_sqrt(
            torch._foreach_div(squares, [1 - beta2**count for count in counts])
        )
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_lerp_(means, torch._foreach_div(grads, scale), 1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(
            params,
            torch._foreach_mul(means, [-group["lr"] / (1 - beta1**count) for count in counts]),
        )


def clipped(grads: list[Tensor], params: list[Tensor], share: float) -> list[Tensor]:
    """Return the gradients, each scaled down to at most `share` of its tensor's norm (AGC)."""
    limits = torch._foreach_mul(
        torch._foreach_clamp_min(torch._foreach_norm(params), SMALLEST), share
    )
    norms = torch._foreach_clamp_min(torch._foreach_norm(grads), 1e-12)
    return list(
        torch._foreach_mul(grads, torch._foreach_clamp_max(torch._foreach_div(limits, norms), 1.0))
    )


def build_optimizer(params: Iterable[Any], settings: OptimizerSettings) -> Optimizer:
    """Return the optimiser that the settings name, of parameters or of groups of them."""
    betas = (settings.beta1, settings.beta2)
    like: dict[str, Any] = {
        "lr": settings.lr,
        "eps": settings.eps,
        "betas": betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "laprop":
        return LaProp(params, agc=settings.agc, **like)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(params, fused=True, **like)


def warm(optimizer: Optimizer, settings: OptimizerSettings, index: int) -> None:
    """Set the learning rate of update number `index`: it grows linearly over `warmup` updates."""
    share = min(1.0, (index + 1) / settings.warmup) if settings.warmup else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group.get("full_lr", settings.lr) * share
