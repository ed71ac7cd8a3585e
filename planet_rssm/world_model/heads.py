"""What is predicted besides the observation: the reward, and whether the episode goes on.

Every head is a network and how its output is read: `raw` [*B, raw_size] is what the network
returns, `mean(raw)` [*B] the prediction, and `loss(raw, target)` [*B] what the prediction costs.
Who needs both runs the network once. Images and vectors have decoders in place of heads: what
they cost stands in `WorldModel.loss`.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from planet_rssm.config import ModelSettings
from planet_rssm.world_model.losses import half_squared_error
from planet_rssm.world_model.networks import mlp, precise, symexp, symlog
from planet_rssm.world_model.plain import is_plain

BINS = 255  # DreamerV3's: symexp of -20 to 20
LIMIT = 20.0


class TwohotEncoder(nn.Module):
    """Numbers as weights on two neighbouring bins, and back.

    DreamerV3, arXiv 2301.04104, equations 9 and 10. The `count` bins (odd) are
    symexp(linspace(-limit, limit)): the same few serve rewards of any size. With `space="symlog"`
    they are linspace(-limit, limit) of symlog(value), as in DreamerV3's first release: the mean is
    then taken there, below that of the values themselves.
    """

    bins: Tensor  # [count], float32

    def __init__(
        self, count: int = BINS, limit: float = LIMIT, space: Literal["value", "symlog"] = "value"
    ) -> None:
        super().__init__()
        self.space = space
        positive = torch.linspace(0, limit, count // 2 + 1, dtype=torch.float64)[1:]
        positive = symexp(positive) if space == "value" else positive
        # mirrored to the last bit
        bins = torch.cat([-positive.flip(0), positive.new_zeros(1), positive])
        # not every device knows float64
        self.register_buffer("bins", bins.float(), persistent=False)

    def encode(self, value: Tensor) -> Tensor:
        """Return weights [*B, count] that sum to 1, with the mean bin `value` [*B].

        Values beyond the bins are clipped to them.
        """
        places, shares = self.pair(value)
        return value.new_zeros(*value.shape, len(self.bins)).scatter(-1, places, shares)

    def pair(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bins around `value` [*B], int64 [*B, 2], and their weights [*B, 2]."""
        bins = self.bins.to(value)
        value = (value if self.space == "value" else symlog(value)).clamp(bins[0], bins[-1])
        above = torch.searchsorted(bins, value.contiguous()).clamp(1, len(bins) - 1)
        low, high = bins[above - 1], bins[above]
        share = (value - low) / (high - low)
        return torch.stack([above - 1, above], -1), torch.stack([1 - share, share], -1)

    def decode(self, logits: Tensor) -> Tensor:
        """Return the mean bin [*B] of softmax(logits) [*B, count]; equal logits give exactly 0."""
        bins = self.bins.to(logits)
        mean: Tensor = (
            _mean_bin(logits.softmax(-1), bins) if is_plain() else _MeanBin.apply(logits, bins)
        )
        return mean if self.space == "value" else symexp(mean)


def _mean_bin(probs: Tensor, bins: Tensor) -> Tensor:
    """Return the mean bin [*B] of chances [*B, count]: mirrored bins cancel."""
    middle = probs.shape[-1] // 2
    mirrored = probs[..., middle + 1 :] - probs[..., :middle].flip(-1)
    return mirrored.mul_(bins[middle + 1 :]).sum(-1)


class _MeanBin(torch.autograd.Function):
    """The mean bin [*B] of softmax(logits) [*B, count]: autograd's gradient in fewer passes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor) -> Tensor:  # noqa: ANN401
        probs = logits.softmax(-1)
        mean = _mean_bin(probs, bins)
        ctx.save_for_backward(probs, bins, mean)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        probs, bins, mean = ctx.saved_tensors
        return (bins - mean[..., None]).mul_(probs).mul_(gradient[..., None]), None


class GaussianHead(nn.Module):
    """The mean of a unit Gaussian."""

    def __init__(self, inputs: int, settings: ModelSettings) -> None:
        super().__init__()
        units, layers = settings.reward_units, settings.reward_layers
        self.net = mlp(inputs, units, layers, 1, settings.act, settings.norm)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the mean [*B] of `feat` [*B, F]."""
        return self.mean(self.raw(feat))

    def raw(self, feat: Tensor) -> Tensor:
        """Return the network's output [*B, 1] of `feat` [*B, F]."""
        return precise(self.net(feat))

    def mean(self, raw: Tensor) -> Tensor:
        """Return the mean [*B] of the network's output."""
        return raw.squeeze(-1)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return half the squared error [*B]."""
        return half_squared_error(self.mean(raw), target, 0)


class TwohotHead(nn.Module):
    """A softmax over `TwohotEncoder`'s bins."""

    def __init__(self, inputs: int, settings: ModelSettings) -> None:
        super().__init__()
        units, layers = settings.reward_units, settings.reward_layers
        self.net = mlp(inputs, units, layers, BINS, settings.act, settings.norm)
        self.encoder = TwohotEncoder(
            space="symlog" if settings.reward == "symlog_twohot" else "value"
        )

    def forward(self, feat: Tensor) -> Tensor:
        """Return the mean [*B] of `feat` [*B, F]."""
        return self.mean(self.raw(feat))

    def raw(self, feat: Tensor) -> Tensor:
        """Return one logit a bin, [*B, 255], of `feat` [*B, F]."""
        return precise(self.net(feat))

    def mean(self, raw: Tensor) -> Tensor:
        """Return the mean [*B] of the logits."""
        return self.encoder.decode(raw)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cross entropy [*B] of the target's two bins."""
        logits = raw.log_softmax(-1)
        return -(self.encoder.encode(target.to(logits)) * logits).sum(-1)


class ContinueHead(nn.Module):
    """The probability that the episode goes on, times the discount that it is trained with."""

    def __init__(self, inputs: int, settings: ModelSettings) -> None:
        super().__init__()
        units, layers = settings.continue_units, settings.continue_layers
        self.net = mlp(inputs, units, layers, 1, settings.act, settings.norm)
        self.discount = settings.continue_discount

    def forward(self, feat: Tensor) -> Tensor:
        """Return the probability [*B] of `feat` [*B, F]."""
        return self.mean(self.raw(feat))

    def raw(self, feat: Tensor) -> Tensor:
        """Return the log odds [*B, 1] of `feat` [*B, F]."""
        return precise(self.net(feat))

    def mean(self, raw: Tensor) -> Tensor:
        """Return the probability [*B] of the log odds."""
        return raw.squeeze(-1).sigmoid()

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross entropy [*B] of `target` [*B], True where it goes on."""
        logit = raw.squeeze(-1)
        return binary_cross_entropy_with_logits(
            logit, self.discount * target.to(logit), reduction="none"
        )


REWARD_HEADS: dict[str, type[GaussianHead] | type[TwohotHead]] = {
    "gaussian": GaussianHead,
    "twohot": TwohotHead,
    "symlog_twohot": TwohotHead,
}
