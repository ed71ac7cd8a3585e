"""Sizes that fit nowhere are refused in a line that names them, before anything is made."""

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.device import within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners.limits import require_search
from planet_rssm.training.sizes import check_sizes

SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    1,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "rssm.deter=1000000000",
            "rssm.deter = 1000000000: the weights and what learns them: takes at least",
        ),
        ("model.depth=1000000", "model.depth = 1000000: the weights"),
        ("rssm.stoch=4000000000000", "rssm.stoch = 4000000000000: the weights"),
        (
            "train.batch_size=1000000000",
            "train.batch_size = 1000000000, train.batch_length = 16: takes",
        ),
        ("train.envs=1000000", "train.envs = 1000000: takes at least 19,531 GiB"),
        (
            "planner.candidates=2000000000",
            "planner.candidates = 2000000000 of planner.horizon = 12, ",
        ),
        (
            "planner.iterations=1000000000",
            "planner.iterations = 1000000000: takes at least 4,470 GiB",
        ),
        ("planner.particles=1000000000", "planner.particles = 1000000000: takes at least"),
    ],
)
def test_what_fits_nowhere_is_one_line(override, line):
    settings = config.load("quickstart-search", [override])
    with pytest.raises(PlanetError, match=line):
        check_sizes(settings, SPEC, CPU)
        require_search(settings.planner, CPU)


@pytest.mark.parametrize("preset", ["quickstart", "planet", "dreamer-v3"])
def test_presets_fit(preset, monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.total_memory", lambda device: 8 * 2**30)
    settings = config.load(preset)
    check_sizes(settings, SPEC, CPU)
    require_search(settings.planner, CPU)


def test_memory_that_the_cpu_cannot_give_is_one_line():
    with pytest.raises(
        PlanetError, match="device cpu: too little free memory for this; lower that"
    ):
        with within_memory(CPU, "this", "lower that"):
            torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size"), within_memory(CPU, "this", "lower that"):
        torch.zeros(2) + torch.zeros(3)
