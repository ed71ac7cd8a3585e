"""Encoder and decoder of patches: the order of pixels, every weight learns, sizes, precisions."""

from collections.abc import Callable

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import LARGEST, SMALLEST, Settings, patch_sides
from planet_rssm.config.model import takes
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch
from planet_rssm.world_model import LossNoise, WorldModel, untrained_model
from planet_rssm.world_model.patches import (
    PatchDecoder,
    PatchEncoder,
    from_patches,
    to_patches,
)

pytestmark = pytest.mark.usefixtures("one_thread_and_seed")
CONV = "model.conv=patches"


@pytest.mark.parametrize(
    ("size", "sides", "width"),
    [
        (16, (2, 2, 4), 2),
        (32, (2, 2, 2, 4), 4),
        (40, (5, 2, 4), 2),
        (48, (3, 2, 2, 4), 4),
        (64, (2, 2, 2, 2, 4), 8),
        (512, (2, *[2] * 6, 4), 8),
    ],
)
def test_sides_multiply_to_the_size(size: int, sides: tuple[int, ...], width: int) -> None:
    assert patch_sides(size) == sides
    assert PatchEncoder(size, 3, "relu").embed_size == sides[0] ** 2 * 3 * width


@pytest.mark.parametrize("size", [size for size in range(16, 129) if takes("patches", size)])
def test_shapes_of_every_size(size: int) -> None:
    encoder, decoder = PatchEncoder(size, 2, "relu"), PatchDecoder(5, size, 2, "relu")
    assert encoder(torch.rand(3, size, size, 3)).shape == (3, encoder.embed_size)
    assert decoder(torch.randn(3, 5)).shape == (3, size, size, 3)


def test_neighbours_lie_side_by_side() -> None:
    image = torch.arange(2 * 32 * 32 * 3).view(2, 32, 32, 3)
    sides = patch_sides(32)
    pixels = to_patches(image, sides)
    joined = pixels.view(2, *[2] * 6, 4, 4, 3)
    for place in ((0, 0, 0, 0, 0, 0), (1, 0, 0, 1, 1, 0), (0, 1, 1, 1, 0, 1)):
        top, left = (4 * (4 * a + 2 * b + c) for a, b, c in (place[::2], place[1::2]))
        assert torch.equal(joined[:, *place], image[:, top : top + 4, left : left + 4])
    assert torch.equal(from_patches(pixels, sides), image)


def test_a_patch_changes_only_what_it_is_joined_into() -> None:
    encoder = PatchEncoder(32, 4, "silu")
    image = torch.rand(1, 32, 32, 3)
    other = image.clone()
    other[:, 17, 3] += 1
    changed = (encoder(image) != encoder(other)).view(2, 2, -1)
    assert changed[1, 0].any() and not changed[0].any() and not changed[1, 1].any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_weight_learns(
    small: Callable[..., Settings],
    spec: Callable[..., EnvSpec],
    batch: Batch,
    noise: Callable[[WorldModel], LossNoise],
    precision: str,
) -> None:
    model = untrained_model(small("quickstart", CONV, "model.depth=4"), spec("image"))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        total = model.loss(batch, noise(model)).total
    total.backward()
    for name, weight in (*model.encoder.named_parameters(), *model.decoder.named_parameters()):
        assert weight.grad is not None and weight.grad.any(), name


@pytest.mark.parametrize(
    ("size", "named"), [(84, "80 or 96"), (33, "32 or 40"), (508, "448 or 512")]
)
def test_a_size_that_is_not_divisible_is_one_line(size: int, named: str) -> None:
    with pytest.raises(PlanetError, match=f"env.size = {size}: model.conv = 'patches' .* {named},"):
        config.load("quickstart", [CONV, f"env.size={size}"])
    vectors = config.load("quickstart", [CONV, f"env.size={size}", "env.observe=vectors"])
    assert vectors.env.size == size


def test_no_size_leaves_many_parts() -> None:
    sizes = [size for size in range(SMALLEST, LARGEST + 1) if takes("patches", size)]
    assert sizes[:6] == [16, 24, 32, 40, 48, 56] and all(patch_sides(size)[0] < 8 for size in sizes)
