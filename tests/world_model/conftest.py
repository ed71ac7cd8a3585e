"""Small models and batches, made of settings that differ from the presets in size alone."""

from collections.abc import Callable

import pytest
import torch

from planet_rssm import config
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch
from planet_rssm.world_model import LossNoise, WorldModel, untrained_model

B, T, A, SIZE = 3, 5, 2, 32
WIDTHS = [
    "env.size=32",
    "rssm.deter=16",
    "rssm.stoch=4",
    "rssm.classes=4",
    "rssm.hidden=8",
    "model.depth=2",
] + [f"model.{name}_units=8" for name in ("vector", "reward", "continue")]
KEYS = {"image": ((SIZE, SIZE, 3), "uint8"), "speed": ((3,), "float32")}


def spec_of(*keys: str, terminates: bool = True) -> EnvSpec:
    observation = {key: KEYS[key] for key in keys or KEYS}
    return EnvSpec(
        "gym/Test-v0", observation, A, 1, 0.1, 100, "own", "fake 0", terminates=terminates
    )


@pytest.fixture
def small() -> Callable[..., Settings]:
    """small("dreamer-v3", "kl.scale=0", ...): a preset made tiny."""
    return lambda preset, *overrides: config.load(preset, [*WIDTHS, *overrides])


@pytest.fixture
def spec() -> Callable[..., EnvSpec]:
    """spec("image"): that observation, or both; by default episodes end by themselves."""
    return spec_of


@pytest.fixture
def model(small: Callable[..., Settings]) -> Callable[..., WorldModel]:
    """model("dreamer-v3", ...): of both observations, with a continue head; all weights random."""

    def build(preset: str, *overrides: str) -> WorldModel:
        return untrained_model(small(preset, "model.reward_outscale=1", *overrides), spec_of())

    return build


@pytest.fixture
def batch() -> Batch:
    """Three chunks of five steps: complete, padded after three, with an episode that ends."""
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (B, T, SIZE, SIZE, 3), generator=rng, dtype=torch.uint8)
    first, terminal = torch.zeros(2, B, T, dtype=torch.bool)
    mask = torch.ones(B, T, dtype=torch.bool)
    first[:, 0] = first[2, 3] = terminal[2, 2] = True
    mask[1, 3:] = False
    speed, reward = torch.randn(B, T, 3, generator=rng), torch.randn(B, T, generator=rng)
    action = torch.randn(B, T, A, generator=rng)
    return Batch({"image": image, "speed": speed}, action, reward, first, terminal, mask)


@pytest.fixture
def noise() -> Callable[[WorldModel], LossNoise]:
    """noise(model): all that one loss over `batch` draws."""
    return lambda model: model.draw(B, T, torch.Generator().manual_seed(0), torch.device("cpu"))
