"""Pixels to embedding and back (PlaNet, appendix A, after Ha and Schmidhuber's VAE)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad, rms_norm

from planet_rssm.config import v3_layers
from planet_rssm.world_model.plain import is_plain
from planet_rssm.world_model.products import Linear, linear

UNCUT = 1.1368  # standard deviation of a normal that has 1 after its cut at two of them
V3_WIDTHS = (2, 3, 4, 4, 4)  # channels after each layer, in units of the depth
RMS_EPS = 1e-4
KERNEL = 4  # of PlaNet's encoder; every layer of both has stride 2 and no padding
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
FEW = 16  # channels, up to which `Upconv` is faster than PyTorch's transposed convolution
LANES = 8  # numbers in a vector register of AVX2
MAX_WIDTH = 8  # channels grow to at most this many times the first layer's


def precise(x: Tensor) -> Tensor:
    """Return `x` in float32 at least, whatever the autocast."""
    return x if x.dtype == torch.float64 else x.float()


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) ln(|x| + 1): numbers of any size become moderate.

    DreamerV3, arXiv 2301.04104, equation 9.
    """
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Return sign(x) (exp(|x|) - 1), the inverse of symlog."""
    return x.sign() * x.abs().expm1()


def encoder_layers(size: int) -> int:
    """Return the number of layers of PlaNet's encoder: it ends at 1x1, 2x2 or 3x3."""
    layers = 0
    while size >= KERNEL:
        size, layers = (size - KERNEL) // 2 + 1, layers + 1
    return layers


def decoder_kernels(size: int) -> tuple[int, ...]:
    """Return the kernels of PlaNet's decoder: its layers grow 1x1 to exactly the image.

    To 64x64 they are 5, 5, 6, 6. From the image down, a layer's kernel is 6 where its output has an
    even side, 5 where it has an odd one.
    """
    kernels: list[int] = []
    while size > 1:
        kernels.insert(0, min(6 - size % 2, size))
        size = (size - kernels[0]) // 2 + 1
    return tuple(kernels)


class ConvEncoder(nn.Module):
    """Preprocessed images [M, size, size, 3] to embeddings [M, embed_size]."""

    def __init__(self, size: int, depth: int, act: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, size
        for layer in range(encoder_layers(size)):
            width = depth * min(2**layer, MAX_WIDTH)
            layers += [nn.Conv2d(channels, width, kernel_size=KERNEL, stride=2), ACTIVATIONS[act]()]
            channels, side = width, (side - KERNEL) // 2 + 1
        self.layers = channels_last(nn.Sequential(*layers))
        self.embed_size = channels * side * side

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        # NHWC viewed as NCHW is channels_last already: no copy, and the layout in which CPU and
        # GPU convolve fastest.
        return self.layers(image.permute(0, 3, 1, 2)).flatten(1)


class UpconvOfOne(nn.ConvTranspose2d):
    """A transposed convolution of maps of one pixel, [M, C, 1, 1] to [M, O, k, k].

    Of one pixel it is a plain product, which takes a third of the time of the convolution's kernel
    on a CPU, and for many channels a sixth.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: D102
        if is_plain():
            return super().forward(x, output_size)
        assert self.bias is not None
        _, channels, height, width = self.weight.shape
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # a view, where it is channels_last
        maps = linear(x.flatten(1), weight.t(), self.bias.repeat(height * width))
        return maps.view(-1, height, width, channels).permute(0, 3, 1, 2)


class Upconv(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 to few channels.

    [M, C, h, w] to [M, O, 2h + k - 2, 2w + k - 2].

    The same numbers as PyTorch's up to rounding, whose forward pass to three channels takes a tenth
    of an update of `quickstart` on a CPU. What an output pixel of each parity reads is an ordinary
    convolution of kernel ceil(k / 2); all four are made in one, and their pixels put in place.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: D102
        fast = x.device.type == "cpu" and x.dtype == torch.float32 and not is_plain()
        if not fast or torch.is_autocast_enabled("cpu"):
            return super().forward(x, output_size)
        return _UpconvFunction.apply(x, self.weight, self.bias)


class _UpconvFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        channels, out, kernel, _ = weight.shape
        reach = (kernel + 1) // 2  # pixels of x that an output pixel reads, each way
        if kernel % 2:
            weight = pad(weight, (0, 1, 0, 1))
        # Output pixel 2 q + p reads pixel q - d of x by weight 2 d + p.
        parts = weight.reshape(channels, out, reach, 2, reach, 2).flip(2, 4)
        parts = parts.permute(3, 5, 1, 0, 2, 4).reshape(4 * out, channels, reach, reach)
        lanes = -4 * out % LANES  # unused outputs, for oneDNN's fast kernels take a multiple
        parts = pad(parts, (0, 0, 0, 0, 0, 0, 0, lanes))
        parts = parts.contiguous(memory_format=torch.channels_last)
        maps = conv2d(x, parts, pad(bias.repeat(4), (0, lanes)), padding=reach - 1)
        maps = maps.permute(0, 2, 3, 1)[..., : 4 * out]
        many, height, width, _ = maps.shape
        maps = maps.reshape(many, height, width, 2, 2, out).permute(0, 1, 3, 2, 4, 5)
        maps = maps.reshape(many, 2 * height, 2 * width, out)
        if kernel % 2:
            maps = maps[:, :-1, :-1]
        return maps.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        shape = [2, 2], [0, 0], [1, 1], True, [0, 0], 1  # of a transposed convolution of stride 2
        return torch.ops.aten.convolution_backward(
            gradient, x, weight, [weight.shape[1]], *shape, ctx.needs_input_grad
        )


class ConvDecoder(nn.Module):
    """Features [M, F] to the mean of the preprocessed image [M, size, size, 3]."""

    def __init__(self, feat_size: int, size: int, depth: int, act: str) -> None:
        super().__init__()
        kernels = decoder_kernels(size)
        self.width = 32 * depth
        self.linear = Linear(feat_size, self.width)
        layers: list[nn.Module] = []
        channels = self.width
        for layer, kernel in enumerate(kernels):
            left = len(kernels) - 2 - layer
            out = 3 if left < 0 else depth * min(2**left, MAX_WIDTH)
            kind = UpconvOfOne if layer == 0 else Upconv if out <= FEW else nn.ConvTranspose2d
            layers += [kind(channels, out, kernel, stride=2), ACTIVATIONS[act]()]
            channels = out
        self.layers = channels_last(nn.Sequential(*layers[:-1]))

    def forward(self, feat: Tensor) -> Tensor:  # noqa: D102
        hidden = self.linear(feat)[:, :, None, None]
        return self.layers(hidden).permute(0, 2, 3, 1)


class V3Encoder(nn.Module):
    """Preprocessed images [M, size, size, 3] to embeddings [M, embed_size] (DreamerV3).

    Each layer: convolution of kernel 5, maximum over 2x2, norm over the channels, activation.
    """

    def __init__(self, size: int, depth: int, act: str, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, size
        for width in V3_WIDTHS[: v3_layers(size)]:
            layers += [nn.Conv2d(channels, width * depth, 5, padding=2), nn.MaxPool2d(2)]
            layers += _over_channels(width * depth, act, norm)
            channels, side = width * depth, side // 2
        self.layers = channels_last(nn.Sequential(*layers))
        self.embed_size = channels * side * side

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        return self.layers(image.permute(0, 3, 1, 2)).flatten(1)


class V3Decoder(nn.Module):
    """Features [M, F] to the mean of the preprocessed image [M, size, size, 3] (DreamerV3).

    Features are deter, then stoch. The smallest map is a block-diagonal layer of deter plus a small
    network of stoch. Then each layer doubles the side by repetition and convolves with kernel 5. A
    sigmoid ends it.
    """

    def __init__(
        self, deter: int, stoch: int, size: int, depth: int, units: int, act: str, norm: str
    ) -> None:
        super().__init__()
        widths = [width * depth for width in V3_WIDTHS[: v3_layers(size)]]
        self.deter = deter
        self.side = size >> len(widths)
        channels = widths[-1]
        blocks = math.gcd(8, math.gcd(deter, channels))
        self.from_deter = BlockLinear(deter, self.side**2 * channels, blocks) if deter else None
        self.from_stoch = mlp(stoch, 2 * units, 1, self.side**2 * channels, act, norm)
        layers: list[nn.Module] = _over_channels(channels, act, norm)
        for width in (*widths[-2::-1], None):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, width or 3, 5, padding=2)]
            layers += _over_channels(width, act, norm) if width else [nn.Sigmoid()]
            channels = width or 3
        self.layers = channels_last(nn.Sequential(*layers))

    def forward(self, feat: Tensor) -> Tensor:  # noqa: D102
        deter, stoch = feat.split([self.deter, feat.shape[-1] - self.deter], -1)
        maps = self.from_stoch(stoch).unflatten(-1, (-1, self.side, self.side))
        if self.from_deter is not None:  # a block of deter makes a group of channels
            maps = maps + self.from_deter(deter).unflatten(-1, (-1, self.side, self.side))
        return self.layers(maps).permute(0, 2, 3, 1) - 0.5


class ChannelNorm(nn.Module):
    """A norm over the channels of [M, C, H, W], at every place alone."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _over_channels(width: int, act: str, norm: str) -> list[nn.Module]:
    *norms, activation = normalised(width, act, norm)
    return [*(ChannelNorm(part) for part in norms), activation]


def mlp(
    inputs: int, hidden: int, layers: int, outputs: int, act: str = "relu", norm: str = "none"
) -> nn.Sequential:
    """Return `layers` layers of `dense_layers` and a linear one, [*B, inputs] to [*B, outputs]."""
    return nn.Sequential(
        *dense_layers(inputs, hidden, layers, act, norm),
        Linear(hidden if layers else inputs, outputs),
    )


def dense_layers(
    inputs: int, hidden: int, layers: int, act: str = "relu", norm: str = "none"
) -> nn.Sequential:
    """Return `layers` times Linear, norm and activation, [*B, inputs] to [*B, hidden]."""
    parts: list[nn.Module] = []
    for layer in range(layers):
        parts += [
            Linear(inputs if layer == 0 else hidden, hidden),
            *normalised(hidden, act, norm),
        ]
    return nn.Sequential(*parts)


def normalised(width: int, act: str, norm: str) -> list[nn.Module]:
    """Return the norm over the last axis of `width`, if any, and the activation."""
    norms: dict[str, list[nn.Module]] = {
        "none": [],
        "layer": [nn.LayerNorm(width, eps=1e-3)],
        "rms": [RMSNorm(width)],
    }
    return [*norms[norm], ACTIVATIONS[act]()]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-4) times a learned scale, over the last axis.

    It is in float32 whatever the autocast.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = precise(x)
        if x.is_cuda:  # one launch there; on a CPU PyTorch's own is as slow as the formula
            return rms_norm(x, self.scale.shape, self.scale, RMS_EPS)
        return x * (x.square().mean(-1, keepdim=True) + RMS_EPS).rsqrt() * self.scale


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal.

    Block b of [*B, inputs] alone makes block b of [*B, outputs].
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # A dense layer whose output reads as many inputs would be drawn from the same range.
        bound = (inputs // blocks) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        # [blocks, M, inputs / blocks]
        parts = x.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)
        return torch.bmm(parts, self.weight).transpose(0, 1).reshape(*x.shape[:-1], -1) + self.bias


def channels_last(module: nn.Sequential) -> nn.Sequential:
    """Lay out a module's weights as its inputs are: no convolution has to reorder either."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def initialise(module: nn.Module, how: str) -> None:
    """Draw the weights again: `torch` leaves PyTorch's, `trunc_normal` is DreamerV3's.

    That is a normal of variance 1 / fan_in after its cut at two standard deviations, with biases
    of 0.
    """
    if how == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.GRUCell | BlockLinear):
            for name, parameter in layer.named_parameters(recurse=False):
                if "bias" in name:
                    nn.init.zeros_(parameter)
                else:
                    std = UNCUT * fan_in(layer, parameter) ** -0.5
                    nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)


def fan_in(layer: nn.Module, weight: Tensor) -> int:
    """Return how many inputs one output of the layer has.

    As in DreamerV3, that is the inputs of all blocks where the layer is block-diagonal.
    """
    if isinstance(layer, BlockLinear):
        return weight.shape[0] * weight.shape[1]
    if isinstance(layer, nn.ConvTranspose2d):
        return weight[:, 0].numel()
    return weight[0].numel()


@torch.no_grad()
def scale_last(net: nn.Sequential, factor: float) -> None:
    """Multiply the initial weights of the last layer; with 0 an untrained net returns exactly 0."""
    for parameter in net[-1].parameters():
        parameter.mul_(factor)
