"""Pixels to embedding and back (PlaNet, appendix A, after Ha and Schmidhuber's VAE)."""

import torch
from torch import Tensor, nn

# By image side: (encoder layers, kernels of the decoder's layers). Every layer has stride 2 and no padding, so that
# the encoder's kernel 4 ends at 2x2 (1x1 for 96) and the decoder's kernels grow 1x1 to exactly the image.
SHAPES = {
    32: (3, (5, 6, 6)),
    64: (4, (5, 5, 6, 6)),
    96: (5, (3, 5, 5, 6, 6)),
    128: (5, (5, 5, 5, 6, 6)),
}
MAX_WIDTH = 8  # channels grow to at most this many times the first layer's


class ConvEncoder(nn.Module):
    """Preprocessed images [M, size, size, 3] to embeddings [M, embed_size]."""

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, size
        for layer in range(SHAPES[size][0]):
            width = depth * min(2**layer, MAX_WIDTH)
            layers += [nn.Conv2d(channels, width, kernel_size=4, stride=2), nn.ReLU()]
            channels, side = width, (side - 4) // 2 + 1
        self.layers = channels_last(nn.Sequential(*layers))
        self.embed_size = channels * side * side

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        # NHWC seen as NCHW is channels_last already: no copy, and the layout in which CPU and GPU convolve fastest.
        return self.layers(image.permute(0, 3, 1, 2)).flatten(1)


class ConvDecoder(nn.Module):
    """Features [M, F] to the mean of the preprocessed image [M, size, size, 3]."""

    def __init__(self, feat_size: int, size: int, depth: int) -> None:
        super().__init__()
        kernels = SHAPES[size][1]
        self.width = 32 * depth
        self.linear = nn.Linear(feat_size, self.width)
        layers: list[nn.Module] = []
        channels = self.width
        for layer, kernel in enumerate(kernels):
            left = len(kernels) - 2 - layer
            out = 3 if left < 0 else depth * min(2**left, MAX_WIDTH)
            layers += [nn.ConvTranspose2d(channels, out, kernel, stride=2), nn.ReLU()]
            channels = out
        self.layers = channels_last(nn.Sequential(*layers[:-1]))

    def forward(self, feat: Tensor) -> Tensor:  # noqa: D102
        hidden = self.linear(feat)[:, :, None, None].contiguous(memory_format=torch.channels_last)
        return self.layers(hidden).permute(0, 2, 3, 1)


def mlp(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """Return `layers` hidden ReLU layers and a linear one, [*B, inputs] to [*B, outputs]."""
    parts: list[nn.Module] = []
    for layer in range(layers):
        parts += [nn.Linear(inputs if layer == 0 else hidden, hidden), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(hidden, outputs))


def channels_last(module: nn.Sequential) -> nn.Sequential:
    """Lay out a module's weights as its inputs are, so that no convolution has to reorder either."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
