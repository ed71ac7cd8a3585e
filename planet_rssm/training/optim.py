"""The optimisers that a world model is trained with."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from planet_rssm.config import OptimizerSettings

T = TypeVar("T")

# A tensor's norm counts as at least this when its gradient is clipped to a share of it.
SMALLEST = 1e-3


class LaProp(Optimizer):
    """DreamerV3's optimiser: adaptive gradient clipping, RMS scaling, then momentum.

    LaProp is arXiv 2002.04839, AGC is 2102.06171, here by complete tensors. For each tensor:
    g *= min(1, agc max(1e-3, |p|) / |g|); g /= sqrt(second moment); p -= lr * (mean of the late g).
    Both moments are corrected for their start at 0. The maths runs over all tensors at once.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        weight_decay: float = 0.0,
        *,
        capturable: bool = False,
    ) -> None:
        """Take the parameters and the recipe.

        `agc` is the share of a tensor's norm that its gradient may have. `capturable`: a step never
        asks the host, and changes nothing where the attribute `found_inf`, a tensor, is not 0.
        """
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "agc": agc, "weight_decay": weight_decay}
        )

        self.capturable = capturable
        # Entries of the state that live on the CPU: each step reads them, and would wait for a
        # device.
        self.on_host = () if capturable else ("step",)
        self.found_inf: Tensor | None = None

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
                    "step": torch.zeros((), device=p.device if self.capturable else "cpu"),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        steps, means, squares = (
            [self.state[p][name] for p in params] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        changed = [*params, *means, *squares]
        before = [] if self.found_inf is None else [torch.empty_like(p) for p in changed]
        if before:
            torch._foreach_copy_(before, changed)
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        grads = clipped([p.grad for p in params if p.grad is not None], params, group["agc"])
        torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 1 - beta2)
        scale = torch._foreach_sqrt(torch._foreach_div(squares, self._started(steps, beta2)))
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_lerp_(means, torch._foreach_div(grads, scale), 1 - beta1)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(
            params,
            torch._foreach_mul(
                means, [-group["lr"] / part for part in self._started(steps, beta1)]
            ),
        )
        if self.found_inf is not None:
            skipped = self.found_inf > 0
            torch._foreach_sub_(steps, [self.found_inf] * len(steps))
            for old, new in zip(before, changed, strict=True):
                torch.where(skipped, old, new, out=new)

    def _started(self, steps: list[Tensor], beta: float) -> Any:  # noqa: ANN401
        """Return how much of a moment is there after so many steps, 1 - beta^step, for each."""
        if not self.capturable:
            return [1 - beta ** float(step) for step in steps]
        # in float64, as the host computes: 1 - 0.999 has three digits less in float32
        return (1 - beta ** torch.stack(steps).double()).unbind()


def clipped(grads: list[Tensor], params: list[Tensor], share: float) -> list[Tensor]:
    """Return the gradients, each scaled down to at most `share` of its tensor's norm (AGC)."""
    limits = torch._foreach_mul(
        torch._foreach_clamp_min(torch._foreach_norm(params), SMALLEST), share
    )
    norms = torch._foreach_clamp_min(torch._foreach_norm(grads), 1e-12)
    return list(
        torch._foreach_mul(grads, torch._foreach_clamp_max(torch._foreach_div(limits, norms), 1.0))
    )


def build_optimizer(
    params: Iterable[Any], settings: OptimizerSettings, *, capturable: bool = False
) -> Optimizer:
    """Return the optimiser that the settings name, of parameters or of groups of them.

    `capturable`: for a step inside a CUDA graph, which a tensor `found_inf` can stop.
    """
    betas = (settings.beta1, settings.beta2)
    like: dict[str, Any] = {
        "lr": settings.lr,
        "eps": settings.eps,
        "betas": betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "laprop":
        return LaProp(params, agc=settings.agc, capturable=capturable, **like)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    optimizer = kind(params, fused=True, capturable=capturable, **like)
    # the first step is none inside a graph, which PyTorch would warn of
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def warm(optimizer: Optimizer, settings: OptimizerSettings, index: int) -> None:
    """Set the learning rate of update number `index`: it grows linearly over `warmup` updates."""
    for group, rate in zip(
        optimizer.param_groups, rates_of(optimizer, settings, index), strict=True
    ):
        group["lr"] = rate


def rates_of(optimizer: Optimizer, settings: OptimizerSettings, index: int) -> list[float]:
    """Return the learning rate of each group at update number `index`, see `warm`."""
    share = min(1.0, (index + 1) / settings.warmup) if settings.warmup else 1.0
    return [group.get("full_lr", settings.lr) * share for group in optimizer.param_groups]


def judged(metrics: dict[str, T]) -> list[T]:
    """Return the metrics that must be finite for a step to be taken."""
    return [value for name, value in metrics.items() if name.startswith(("loss/", "grad_norm"))]
