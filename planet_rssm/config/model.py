"""Settings of the world model and of its optimiser."""

import math
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from planet_rssm.base.plugins import FORM
from planet_rssm.config.env import LARGEST, SMALLEST
from planet_rssm.config.values import (
    Activation,
    Count,
    Integer,
    Layers,
    NonNegative,
    Norm,
    Positive,
    Section,
    Share,
)

Head = Literal["image", "vector", "reward", "continue"]
HEADS: tuple[Head, ...] = get_args(Head)
LATENTS = ("gaussian", "categorical")
V3_SIDE = 4  # pixels: DreamerV3's convolutions stop halving an image at this side or above
V3_LAYERS = 5  # times that they halve it at most
# DreamerV3's sizes: deter, hidden, classes, depth, units
SIZES = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}
PATCH = 4  # pixels a side
FEW_PARTS = 7  # a side, that are joined no more
Conv = Literal["planet", "dreamer-v3", "patches"]
Size = Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m"]


class RSSMSettings(Section):
    """The recurrent state-space model.

    PlaNet (arXiv 1811.04551, appendix A), DreamerV2 (2010.02193), DreamerV3 (2301.04104).
    """

    kind: Literal["rssm", "ssm", "rnn"] = "rssm"  # ssm: stochastic only, rnn: deterministic only
    # or categorical, or a Latent of your own as module:Class, see docs/extend.md
    latent: str = "gaussian"
    deter: Count = 200
    stoch: Count = 30  # dimensions of a Gaussian latent, variables of a categorical one
    classes: Annotated[Integer, Field(ge=2)] = 32  # of each categorical variable
    hidden: Count = 200
    # tf_gru: TensorFlow's GRUBlockCell, as PlaNet's code has it
    cell: Literal["gru", "norm_gru", "tf_gru"] = "gru"
    # of DreamerV3's block-diagonal GRU; 0: the plain `cell`
    blocks: Annotated[Integer, Field(ge=0)] = 0
    recurrent_depth: Annotated[Layers, Field(ge=1)] = 1  # times that the cell is applied a step
    input_layers: Layers = 1  # dense layers before the cell
    prior_layers: Layers = 1
    posterior_layers: Layers = 1
    act: Activation = "relu"
    norm: Norm = "none"
    # Gaussian: what the mean goes through, nothing or 5 tanh(x / 5)
    mean: Literal["none", "tanh5"] = "none"
    # Gaussian: how the standard deviation is made positive
    std: Literal["softplus", "sigmoid2"] = "softplus"
    min_std: NonNegative = 0.1
    # categorical: share of the uniform distribution
    unimix: Annotated[float, Field(ge=0, lt=1)] = 0.0
    initial: Literal["zeros", "learned"] = "zeros"
    filter_by: Literal["sample", "mode"] = "sample"  # how an agent takes its state from a posterior
    plan_by: Literal["sample", "mode"] = "sample"  # how planned states are taken from the prior

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.latent not in LATENTS and not FORM.fullmatch(self.latent):
            raise ValueError(
                f"rssm.latent = {self.latent!r}: must be {', '.join(LATENTS)} or module:Class"
            )
        if self.blocks and self.deter % self.blocks:
            raise ValueError(
                f"rssm.blocks = {self.blocks}: must divide rssm.deter = {self.deter}; "
                "change one of them"
            )
        if self.blocks and self.cell != "gru":
            raise ValueError(
                f"rssm.cell = {self.cell!r}: has no blocks; "
                "set rssm.blocks=0, or leave rssm.cell=gru"
            )
        if self.kind == "ssm" and not self.input_layers:
            raise ValueError("rssm.input_layers = 0: an ssm needs at least 1; set it")
        return self


class KLSettings(Section):
    """How far posterior and prior may be apart, and which of them moves."""

    form: Literal["plain", "balanced"] = "plain"
    # what free_nats are compared with: each step's KL, or the batch's mean
    free: Literal["step", "mean"] = "step"
    free_nats: NonNegative = 3.0  # with "balanced" for each of its two terms
    dyn: NonNegative = 1.0  # balanced: weight of KL(sg posterior || prior)
    rep: NonNegative = 0.1  # balanced: weight of KL(posterior || sg prior)
    scale: NonNegative = 1.0
    # steps ahead of latent overshooting, 0 or 1 for none
    overshooting: Annotated[Integer, Field(ge=0, le=10_000)] = 0
    overshooting_scale: NonNegative = 1.0


class ModelSettings(Section):
    """Encoder, decoder and heads."""

    size: Size | None = None  # DreamerV3's: stands for widths here and in rssm, see SIZES
    # patches: products in place of convolutions, several times as fast; of no published model
    conv: Conv = "planet"
    # of planet's convolutions and of patches; dreamer-v3's have `act` and `norm`
    conv_act: Activation = "relu"
    depth: Count = 32  # channels of the first convolution, numbers of a patch
    # 5 bits and noise (PlaNet), or divided by 255 (Dreamer)
    pixels: Literal["quantised", "scaled"] = "quantised"
    vector_layers: Annotated[Layers, Field(ge=1)] = 2  # of the vectors' encoder and decoder
    vector_units: Count = 200
    act: Activation = "relu"  # of vectors' networks and heads
    norm: Norm = "none"
    init: Literal["torch", "trunc_normal"] = "torch"  # of weights; the second is DreamerV3's
    # two-hot: over the values, or their symlog
    reward: Literal["gaussian", "twohot", "symlog_twohot"] = "gaussian"
    reward_layers: Layers = 2
    reward_units: Count = 200
    # of the last layer's first weights; 0: an untrained head predicts 0
    reward_outscale: NonNegative = 1.0
    continue_layers: Layers = 2
    continue_units: Count = 200
    # the continue head's target where an episode continues (DreamerV3: 1 - 1 / 333)
    continue_discount: Share = 1.0
    decode_fraction: Share = 1.0  # share of a batch's frames that is decoded for the image loss
    image_scale: NonNegative = 1.0
    vector_scale: NonNegative = 1.0
    reward_scale: NonNegative = 10.0
    continue_scale: NonNegative = 1.0  # where the environment ends episodes by itself
    grad_heads: tuple[Head, ...] = HEADS  # heads whose losses also train what they read
    terms: tuple[str, ...] = ()  # loss terms of your own, each module:Class, see docs/extend.md

    @model_validator(mode="after")
    def _check(self) -> Self:
        for term in self.terms:
            if not FORM.fullmatch(term):
                raise ValueError(f"model.terms names {term!r}: each must be module:Class")
        return self


class OptimizerSettings(Section):
    """Gradient clipping and the step."""

    name: Literal["adam", "adamw", "laprop"] = "adam"  # laprop: DreamerV3's, with adaptive clipping
    lr: Positive = 1e-3
    eps: Positive = 1e-4
    clip: Positive = 1000.0  # of the global norm
    agc: Positive = 0.3  # laprop: a tensor's gradient is clipped to this share of its weights' norm
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: NonNegative = 0.0
    warmup: Annotated[Integer, Field(ge=0)] = 0  # updates over which lr grows from 0


def v3_layers(size: int) -> int:
    """Return how often DreamerV3's convolutions halve an image of `size` pixels a side."""
    return min(int(math.log2(size / V3_SIDE)), V3_LAYERS)


def patch_sides(size: int) -> tuple[int, ...]:
    """Return into how many parts a side is cut at every level, from the image to a patch's pixels.

    32 pixels are 2 parts of 2 of 2 patches of 4 pixels. () where such parts leave a remainder, or
    too many are left that cannot be joined in pairs.
    """
    parts, remainder = divmod(size, PATCH)
    sides: tuple[int, ...] = (PATCH,)
    while parts > FEW_PARTS or len(sides) == 1:
        parts, odd = divmod(parts, 2)
        if odd or remainder:
            return ()
        sides = (2, *sides)
    while parts % 2 == 0 and parts > 2:
        parts, sides = parts // 2, (2, *sides)
    return (parts, *sides)


def takes(conv: Conv, size: int) -> bool:
    """Return whether `model.conv` takes an image of `size` pixels a side without a remainder."""
    if conv == "patches":
        return bool(patch_sides(size))
    return conv == "planet" or size % 2 ** v3_layers(size) == 0


def other_sizes(conv: Conv, size: int) -> str:
    """Return the error line for a size that `model.conv` does not take."""
    working = [other for other in range(SMALLEST, LARGEST + 1) if takes(conv, other)]
    near = [max((other for other in working if other < size), default=None)]
    near += [min((other for other in working if other > size), default=None)]
    how = (
        f"cuts an image into patches of {PATCH} pixels a side and joins these in pairs"
        if conv == "patches"
        else f"halves an image {v3_layers(size)} times"
    )
    sizes = " or ".join(str(other) for other in near if other)
    return (
        f"env.size = {size}: model.conv = {conv!r} {how}, which leaves a remainder; "
        f"use {sizes}, or model.conv=planet, which takes any"
    )
