"""Layers, encoders and decoders: block-diagonal is dense with zeros, sizes, initial weights."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import LARGEST, SMALLEST
from planet_rssm.world_model.networks import (
    RMS_EPS,
    BlockLinear,
    RMSNorm,
    Upconv,
    UpconvOfOne,
    V3Decoder,
    V3Encoder,
    decoder_kernels,
    encoder_layers,
    fan_in,
    initialise,
    mlp,
    scale_last,
)
from planet_rssm.world_model.observations import preprocess


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_a_block_linear_layer_is_a_dense_one_with_zeros(blocks: int) -> None:
    layer = BlockLinear(12, 18, blocks).double()
    layer.bias.data.normal_()
    dense = nn.Linear(12, 18).double()
    dense.weight.data = torch.block_diag(*layer.weight.detach()).T.contiguous()
    dense.bias.data = layer.bias.detach().clone()
    assert (dense.weight == 0).sum() == 12 * 18 - 12 * 18 // blocks
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), dense(x))
    for one, other in zip(
        torch.autograd.grad(layer(x).square().sum(), (x, layer.bias)),
        torch.autograd.grad(dense(x).square().sum(), (x, dense.bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(2).double()
    norm.scale.data = torch.tensor([1.0, 2.0], dtype=torch.float64)
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    rms = math.sqrt(12.5 + 1e-4)
    torch.testing.assert_close(
        norm(x), torch.tensor([[3 / rms, 8 / rms], [0, 0]], dtype=torch.float64)
    )
    assert RMSNorm(2)(x.half()).dtype == torch.float32  # whatever the autocast


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rms_norm_is_torchs_which_a_cuda_device_takes(dtype: torch.dtype) -> None:
    norm = RMSNorm(5).to(dtype)
    torch.nn.init.normal_(norm.scale, generator=torch.Generator().manual_seed(0))
    given = torch.randn(7, 3, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    ours, theirs = (given.clone().requires_grad_() for _ in range(2))
    results = norm(ours), rms_norm(theirs, norm.scale.shape, norm.scale, RMS_EPS)
    torch.testing.assert_close(*results)
    inputs = [[ours, norm.scale], [theirs, norm.scale]]
    grads = [
        torch.autograd.grad(result.pow(3).sum(), of)
        for result, of in zip(results, inputs, strict=True)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("size", "side", "width"),
    [
        (16, 4, 3),
        (32, 4, 4),
        (48, 6, 4),
        (64, 4, 4),
        (80, 5, 4),
        (96, 6, 4),
        (128, 4, 4),
        (256, 8, 4),
    ],
)
def test_v3_convolutions_end_at_a_small_map_and_come_back(size: int, side: int, width: int) -> None:
    depth, deter, stoch = 3, 16, 10
    encoder = V3Encoder(size, depth, "silu", "rms")
    image = torch.rand(2, size, size, 3) - 0.5
    assert encoder(image).shape == (2, encoder.embed_size)
    assert encoder.embed_size == side * side * width * depth
    decoder = V3Decoder(deter, stoch, size, depth, 8, "silu", "rms")
    shown = decoder(torch.randn(2, deter + stoch))
    assert shown.shape == image.shape
    assert -0.5 <= shown.min() and shown.max() <= 0.5


@pytest.mark.parametrize(
    ("size", "layers", "kernels"),
    [
        (32, 3, (5, 6, 6)),
        (64, 4, (5, 5, 6, 6)),
        (96, 5, (3, 5, 5, 6, 6)),
        (128, 5, (5, 5, 5, 6, 6)),
    ],
)
def test_planets_convolutions_of_the_published_sizes(
    size: int, layers: int, kernels: tuple[int, ...]
) -> None:
    """64 is the paper's; checkpoints of all four have these shapes."""
    assert encoder_layers(size) == layers and decoder_kernels(size) == kernels


def test_planets_convolutions_take_every_size() -> None:
    for size in range(SMALLEST, LARGEST + 1):
        side = size
        for _ in range(encoder_layers(size)):
            side = (side - 4) // 2 + 1
        assert 1 <= side <= 3
        grown = 1
        for kernel in decoder_kernels(size):
            grown = (grown - 1) * 2 + kernel
        assert grown == size


@pytest.mark.parametrize(
    ("size", "named"), [(84, "80 or 96"), (50, "48 or 56"), (33, "32 or 40"), (500, "480 or 512")]
)
def test_v3s_convolutions_name_the_nearest_sizes_that_they_take(size: int, named: str) -> None:
    words = ["model.conv=dreamer-v3", f"env.size={size}"]
    with pytest.raises(
        PlanetError, match=f"env.size = {size}: model.conv = 'dreamer-v3' halves .* use {named}, or"
    ):
        config.load("planet", words)
    for near in named.split(" or "):
        assert config.load("planet", [words[0], f"env.size={near}"]).env.size == int(near)
    assert (
        config.load("planet", [*words, "env.observe=vectors"]).env.size == size
    )  # nothing is halved


def test_a_block_of_deter_makes_a_group_of_channels() -> None:
    """The first of 8 blocks of deter moves only the first eighth of the smallest map's channels."""
    decoder = V3Decoder(16, 10, 64, 2, 8, "silu", "rms")
    deter = torch.zeros(1, 16)
    deter[:, :2] = 1
    moved = decoder.from_deter(deter) - decoder.from_deter(torch.zeros(1, 16))
    channels = moved.unflatten(-1, (-1, 4, 4))[0].abs().sum((1, 2)) > 0
    assert channels.tolist() == [True] + [False] * 7


def test_v3_max_pools_before_norm_and_activation() -> None:
    encoder = V3Encoder(32, 1, "silu", "rms")
    assert [type(layer).__name__ for layer in encoder.layers[:4]] == [
        "Conv2d",
        "MaxPool2d",
        "ChannelNorm",
        "SiLU",
    ]
    assert sum(isinstance(layer, nn.Conv2d) for layer in encoder.layers) == 3


@pytest.mark.parametrize("quantised", [True, False])
def test_pixels_lie_in_the_middle_range(quantised: bool) -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    noise = {"image": torch.rand(1, 16, 16, 3)} if quantised else {}
    pixels = preprocess({"image": image}, noise)["image"]
    assert pixels.dtype == torch.float32 and -0.5 <= pixels.min() and pixels.max() <= 0.5
    exact = image / 255 - 0.5
    torch.testing.assert_close(pixels, exact, rtol=0, atol=1 / 31 if quantised else 0)
    if not quantised:
        assert pixels.unique().numel() == 256
    else:
        bits = preprocess({"image": image}, {"image": torch.zeros(1, 16, 16, 3)})["image"]
        assert bits.unique().numel() == 32
        assert ((pixels - bits >= 0) & (pixels - bits < 1 / 32 + 1e-6)).all()


LAYERS = {
    "linear": (nn.Linear(64, 512), 64),
    "block": (BlockLinear(64, 512, 4), 64),  # of all blocks, as DreamerV3 counts
    "conv": (nn.Conv2d(8, 128, 5), 200),
    "transposed": (nn.ConvTranspose2d(8, 128, 5), 200),
    "gru": (nn.GRUCell(64, 64), 64),
}


@pytest.mark.parametrize(("layer", "inputs"), LAYERS.values(), ids=LAYERS)
def test_v3_weights_have_variance_one_over_their_inputs_and_no_bias(
    layer: nn.Module, inputs: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise(layer, "trunc_normal")
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            assert not parameter.any()
        else:
            assert fan_in(layer, parameter) == inputs
            assert parameter.var().item() == pytest.approx(1 / inputs, rel=0.05)
            assert parameter.abs().max() <= 2 * 1.1368 * inputs**-0.5 + 1e-7


def test_a_scaled_last_layer_leaves_the_others() -> None:
    net = mlp(3, 4, 1, 2)
    first: Tensor = net[0].weight.clone()
    scale_last(net, 0.0)
    assert not net[-1].weight.any() and not net[-1].bias.any() and torch.equal(net[0].weight, first)


def test_layers_norms_and_activations_are_in_order() -> None:
    names = [type(part).__name__ for part in mlp(3, 4, 2, 2, "silu", "rms")]
    assert names == ["Linear", "RMSNorm", "SiLU", "Linear", "RMSNorm", "SiLU", "Linear"]
    assert [type(part).__name__ for part in mlp(3, 4, 0, 2)] == ["Linear"]


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", [Upconv, UpconvOfOne])
def test_upconvolutions_are_those_of_torch(kind: type[nn.ConvTranspose2d], kernel: int) -> None:
    side = 1 if kind is UpconvOfOne else 5
    layer = kind(4, 3, kernel, stride=2)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 4, side, side, requires_grad=True)

    def plain(x: Tensor) -> Tensor:
        return nn.functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2)

    ours, theirs = layer(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    wanted = (x, layer.weight, layer.bias)
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), wanted),
        torch.autograd.grad(theirs.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
