"""How many parameters every preset's model has, by part, beside parameter_counts.json.

A preset that changed on purpose, or is new: python tests/golden/test_parameter_counts.py writes the
file anew.
"""

import json
from pathlib import Path

import pytest
import torch

from planet_rssm import config
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import RSSM, WorldModel

GOLDEN = Path(__file__).with_name("parameter_counts.json")
CASES = {name: (name, []) for name in config.presets()} | {
    f"dreamer-v3 {size}": ("dreamer-v3", [f"model.size={size}"]) for size in config.SIZES
}


def counts(name: str) -> dict[str, int]:
    """Of images of the preset's size, a vector of 24, 6 actions, and ends."""
    preset, overrides = CASES[name]
    settings = config.load(preset, overrides)
    side = settings.env.size
    observation = {"image": ((side, side, 3), "uint8"), "vector": ((24,), "float32")}
    spec = EnvSpec("gym/Test-v0", observation, 6, 1, 0.1, 100, "own", "fake 0", terminates=True)
    with torch.device("meta"):
        return WorldModel(settings, spec).parameter_counts()


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_on_file(name: str) -> None:
    expected = json.loads(GOLDEN.read_text())
    assert name in expected, f"run python {Path(__file__).name}"
    assert counts(name) == expected[name]


def test_the_file_holds_nothing_else() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == CASES.keys()


def test_planet_has_the_papers_parameters() -> None:
    """From 64x64 images alone, with 6 actions."""
    spec = EnvSpec(
        "dmc/cheetah-run",
        {"image": ((64, 64, 3), "uint8")},
        6,
        4,
        0.04,
        1000,
        "egl",
        "mujoco 3.17.0",
    )
    with torch.device("meta"):
        assert WorldModel(config.load("planet"), spec).parameter_counts()["total"] == 5_130_220


def test_v3s_recurrent_part_has_its_parameters() -> None:
    """12m: embedding 1024, 6 actions, two prior layers and one posterior layer."""
    settings = config.load("dreamer-v3", ["model.size=12m"]).rssm
    assert (settings.deter, settings.hidden, settings.stoch, settings.classes, settings.blocks) == (
        2048,
        256,
        32,
        16,
        8,
    )
    with torch.device("meta"):
        assert sum(p.numel() for p in RSSM(settings, 6, 1024).parameters()) == 5_979_648


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: counts(name) for name in CASES}, indent=1) + "\n")
