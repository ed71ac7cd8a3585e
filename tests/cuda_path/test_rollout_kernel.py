"""The rollout as one kernel: Triton compiles it, and a round is a few nodes."""

import importlib.util
import sysconfig
from pathlib import Path

import pytest
import torch

from planet_rssm import config
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, untrained_model

A = 6
SPEC = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0")
CUDA = torch.device("cuda")
HEADERS = Path(sysconfig.get_path("include")) / "Python.h"
READY = HEADERS.is_file() and importlib.util.find_spec("triton") is not None
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not READY, reason="needs triton, and Python's headers for its launcher"),
]


def nodes_of_a_round(device, preset: str, rollout: str, precision: str, rows: int) -> int:
    """Return what one more round of CEM 1000×12 adds to a decision's graph."""
    model = untrained_model(config.load(preset, ["env.observe=vectors"]), SPEC).cuda()
    planner = planner_from_settings(PlannerSettings(rollout=rollout), A)
    session = planner.prepare(ModelDynamics(model), Objective(), precision)
    state = State(
        torch.zeros(rows, model.rssm.deter_size, device=CUDA),
        torch.zeros(rows, model.rssm.stoch_size, device=CUDA),
    )
    first = torch.ones(rows, dtype=torch.bool, device=CUDA)
    counts = []
    for rounds in (2, 3):
        with device.counted() as found:
            session.plan(
                state, planner.initial(rows, CUDA), first, torch.Generator(CUDA), rounds=rounds
            )
        counts.append(found["replayed node"])
    return counts[1] - counts[0]


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_round_of_planet_is_few_nodes(device, precision, rows):
    plain = nodes_of_a_round(device, "planet", "torch", precision, rows)
    fused = nodes_of_a_round(device, "planet", "triton", precision, rows)
    print(f"planet, {precision}, {rows} states: {plain} nodes a round, with the kernel {fused}")
    assert fused <= 27 < plain / 5


@pytest.mark.parametrize("preset", ["planet-discrete", "dreamer-v1", "dreamer-v2", "dreamer-v3"])
def test_every_latent_and_cell_is_compiled(device, preset):
    plain = nodes_of_a_round(device, preset, "torch", "bfloat16", 1)
    fused = nodes_of_a_round(device, preset, "triton", "bfloat16", 1)
    print(f"{preset}, bfloat16: {plain} nodes a round, with the kernel {fused}")
    assert fused < plain / 4
