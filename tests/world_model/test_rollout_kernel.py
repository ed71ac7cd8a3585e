"""The rollout as a Triton kernel predicts what the model does: by Triton's interpreter, on a CPU.

Triton is told to interpret before it is imported, and another test, or torch itself, may have
imported it by then. So these tests run in a process of their own, which one of them starts:

    TRITON_INTERPRET=1 ./scripts/test tests/world_model/test_rollout_kernel.py
"""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.planners.limits import require_search
from planet_rssm.planners.recorded import RecordedDynamics
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, WorldModel
from planet_rssm.world_model.packed_model import FastDynamics

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HERE = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HERE, reason="no triton here, which is for Linux alone")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a process of its own")
plainly = pytest.mark.skipif(INTERPRETED, reason="runs where Triton interprets nothing")
B, N, H, A = 2, 9, 2, 2  # two programs of 16 sequences, the last with two alone
FEW = 3  # candidates, of which one program has room for all
ABOVE_A_TILE = ("rssm.deter=72", "rssm.hidden=66", "model.reward_units=65")
CASES = {
    "planet": ("planet",),
    "mode": ("planet", "rssm.plan_by=mode"),
    "above a tile": ("planet", "rssm.stoch=67", *ABOVE_A_TILE),
    "deeper": (
        "planet",
        "rssm.recurrent_depth=2",
        "rssm.input_layers=3",
        "rssm.prior_layers=2",
        "model.act=silu",
        "rssm.act=silu",
    ),
    "normed": ("planet", "rssm.norm=layer", "rssm.act=elu", "model.norm=rms"),
    "bounded": ("planet", "rssm.mean=tanh5", "rssm.std=sigmoid2"),
    "rnn": ("planet", "rssm.kind=rnn"),
    "linear head": ("planet", "model.reward_layers=0"),
    "dreamer-v1": ("dreamer-v1",),
    "planet-discrete": ("planet-discrete", "rssm.unimix=0.1"),
    "discrete mode": ("planet-discrete", "rssm.plan_by=mode"),
    "dreamer-v2": ("dreamer-v2",),
    "dreamer-v3-2023": ("dreamer-v3-2023",),
    "dreamer-v3": ("dreamer-v3", "rssm.blocks=2"),
    "dreamer-v3 mode": ("dreamer-v3", "rssm.blocks=2", "rssm.plan_by=mode"),
    "dreamer-v3 above a tile": (
        "dreamer-v3",
        "rssm.blocks=2",
        "rssm.stoch=7",
        "rssm.classes=5",
        "rssm.input_layers=2",
        "rssm.recurrent_depth=2",
        *ABOVE_A_TILE,
    ),
}
PRECISE = {"rtol": 1e-4, "atol": 1e-5}
pytestmark = pytest.mark.usefixtures("one_thread_and_seed")


def inputs_of(
    made: WorldModel, candidates: int = N, device: str = "cpu"
) -> tuple[State, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    rssm = made.rssm.cpu()
    with torch.no_grad():
        deter = torch.randn(B, rssm.deter_size, generator=rng).tanh()
        stoch = rssm.latent.sample(
            rssm.prior(deter), torch.randn(B, rssm.noise_size, generator=rng)
        )
    shape = ModelDynamics(made).noise_shape(B, candidates, H)
    noise = None if shape is None else torch.randn(shape, generator=rng)
    actions = (
        torch.rand(B, candidates, H, A, generator=rng) * 3 - 1.5
    )  # a block GRU scales those beyond 1
    made.to(device)
    inputs = State(deter, stoch), actions, noise
    return torch.utils._pytree.tree_map(
        lambda leaf: leaf.to(device) if torch.is_tensor(leaf) else leaf, inputs
    )


def fused(made: WorldModel, precision: str = "float32") -> FastDynamics:
    return ModelDynamics(made).prepare(precision).fused()


def assert_same(one, other, **tolerance: float) -> None:
    for left, right in zip((*one[:2], *one.last), (*other[:2], *other.last), strict=True):
        torch.testing.assert_close(left, right, **tolerance)


@needs_triton
@plainly
@pytest.mark.slow
def test_in_a_process_of_its_own():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > len(CASES)


COMPILED = """
import sys
import torch, triton
from triton.backends.compiler import GPUTarget
from planet_rssm import config
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import kernel_model, rollout_kernel, untrained_model

class Driver:
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 80, 32))

class Compiled:
    def __getitem__(self, grid):
        return lambda *given, **options: made.append(kernel.warmup(*given, grid=grid, **options))

triton.runtime.driver.set_active(Driver())
made, kernel, rollout_kernel._rollout = [], rollout_kernel._rollout, Compiled()
spec = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, 6, 1, 0.1, 100, "none", "fake 0")
for case in sys.argv[1:]:
    preset, precision = case.split()
    model = untrained_model(config.load(preset, ["env.observe=vectors"]), spec)
    rssm, zeros = model.rssm, torch.zeros
    program = kernel_model.program_of(model, getattr(torch, precision))
    start = zeros(1, rssm.deter_size), zeros(1, rssm.stoch_size)
    rollout_kernel.follow(program, *start, zeros(100, 12, 6), zeros(100, 12, rssm.noise_size))
    print(made.pop().metadata.shared)
"""


@needs_triton
@plainly
@pytest.mark.slow
def test_it_is_compiled_without_a_gpu(tmp_path):
    """For a compute capability of 8.0, whose blocks have 163 KiB of shared memory."""
    cases = ["planet float32", "planet bfloat16", "dreamer-v3 bfloat16"]
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, *cases],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == len(cases) and max(shared) < 163 * 1024


@interpreted
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_in_float32_it_is_the_plain_path_within_rounding(model, case):
    made = model(*case)
    inputs = inputs_of(made)
    with torch.no_grad():
        expected = ModelDynamics(made).rollout(*inputs)
    assert_same(fused(made).rollout(*inputs), expected, **PRECISE)


@interpreted
@pytest.mark.parametrize("case", ["planet", "dreamer-v3"])
def test_in_bfloat16_it_differs_by_bfloat16s_rounding(model, case):
    made = model(*CASES[case])
    inputs = inputs_of(made, FEW)
    with torch.no_grad():
        expected = ModelDynamics(made).rollout(*inputs)
    result = fused(made, "bfloat16").rollout(*inputs)
    assert {leaf.dtype for leaf in (*result[:2], *result.last)} == {torch.float32}
    torch.testing.assert_close(result.last.deter, expected.last.deter, rtol=0.05, atol=0.05)
    assert not torch.equal(result.last.deter, expected.last.deter)


@interpreted
@pytest.mark.parametrize("case", ["planet", "dreamer-v3"])
def test_few_candidates_at_a_time_and_the_states_on_the_way(model, case):
    made = model(*CASES[case])
    inputs = inputs_of(made, FEW)
    with torch.no_grad():
        expected = ModelDynamics(made).trace(*inputs)
    result = FastDynamics(made, "float32", memory=1).fused().trace(*inputs)
    assert_same(result, expected, **PRECISE)
    for left, right in zip(result.states, expected.states, strict=True):
        torch.testing.assert_close(left, right, **PRECISE)


@interpreted
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # NumPy's, in the interpreter
@pytest.mark.parametrize("part", ["prior_net", "core"])
@pytest.mark.parametrize(
    "case", ["planet", "mode", "planet-discrete", "discrete mode", "dreamer-v3"]
)
def test_what_is_nan_on_the_plain_path_is_nan_here(model, case, part):
    """One weight of the prior, or of what leads to it, is NaN: no class and no ReLU may hide it."""
    made = model(*CASES[case])
    with torch.no_grad():
        weights = list(getattr(made.rssm, part).parameters())
        weights[0 if part == "core" else -1].view(-1)[0] = torch.nan
        inputs = inputs_of(made, FEW)
        inputs = (State(*(torch.zeros_like(leaf) for leaf in inputs[0])), *inputs[1:])
        expected = ModelDynamics(made).rollout(*inputs)
    result = fused(made).rollout(*inputs)
    assert expected.reward.isnan().any()
    assert torch.equal(result.reward.isnan(), expected.reward.isnan())
    assert torch.equal(result.last.stoch.isnan().any(-1), expected.last.stoch.isnan().any(-1))


@interpreted
def test_it_follows_a_model_that_learns(model):
    made = model("planet")
    inputs = inputs_of(made, FEW)
    fast = fused(made)
    before = fast.rollout(*inputs).reward
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.5)
    after = fast.rollout(*inputs).reward
    assert not torch.allclose(after, before)
    with torch.no_grad():
        torch.testing.assert_close(after, ModelDynamics(made).rollout(*inputs).reward, **PRECISE)
    for parameter in made.parameters():
        parameter.data.mul_(0.5)  # PyTorch does not count this
    fast.refresh()
    with torch.no_grad():
        expected = ModelDynamics(made).rollout(*inputs).reward
    torch.testing.assert_close(fast.rollout(*inputs).reward, expected, **PRECISE)


def decision(made: WorldModel, recorded: bool = False, **more: object) -> torch.Tensor:
    sizes = {"horizon": H, "candidates": N, "iterations": 2, "elites": 3}
    planner = planner_from_settings(PlannerSettings(**sizes, **more), A)
    objective = Objective()
    dynamics = ModelDynamics(made)
    prepared = planner.prepare(
        RecordedDynamics(dynamics, objective) if recorded else dynamics, objective
    )
    first = torch.ones(B, dtype=torch.bool)
    rng = torch.Generator().manual_seed(3)
    state = inputs_of(made)[0]
    return prepared.plan(state, planner.initial(B), first, rng)[0].sequence


@interpreted
@pytest.mark.parametrize("recorded", [False, True])
def test_one_setting_turns_it_on(model, recorded, monkeypatch):
    from planet_rssm.world_model import kernel_model

    made, calls = model("planet"), []
    follow = kernel_model.follow
    monkeypatch.setattr(kernel_model, "follow", lambda *args: calls.append(1) or follow(*args))
    expected = decision(made)
    assert not calls
    result = decision(made, recorded, rollout="triton")
    assert len(calls) == 2  # rounds
    torch.testing.assert_close(result, expected, **PRECISE)


@interpreted
@pytest.mark.parametrize(
    ("case", "said"),
    [
        (("planet", "rssm.kind=ssm"), "rssm.kind = 'ssm'"),
        (("planet", "rssm.cell=tf_gru"), "rssm.cell = 'tf_gru'"),
        (("planet", "rssm.input_layers=0"), "rssm.input_layers = 0"),
    ],
)
def test_a_model_that_it_does_not_know_is_one_line(model, case, said):
    with pytest.raises(PlanetError) as caught:
        fused(model(*case))
    assert str(caught.value) == (
        f"planner.rollout = 'triton': its kernel does not know {said}; set planner.rollout=torch"
    )


@interpreted
def test_float64_is_one_line(model):
    with pytest.raises(PlanetError, match="does not know weights in float64; set"):
        fused(model("planet").double())


@plainly
def test_without_a_cuda_device_it_is_one_line(model):
    expected = (
        "planner.rollout = 'triton': needs a CUDA device, this is cpu; set planner.rollout=torch"
    )
    with pytest.raises(PlanetError) as caught:
        decision(model("planet"), rollout="triton")
    assert str(caught.value) == expected
    with pytest.raises(PlanetError) as caught:  # before any environment is started
        require_search(PlannerSettings(rollout="triton"), torch.device("cpu"))
    assert str(caught.value) == expected


@plainly
def test_without_triton_it_is_one_line(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(
        PlanetError, match="needs the package triton, .*; set planner.rollout=torch"
    ):
        decision(model("planet"), rollout="triton")


def test_it_is_not_of_the_plain_path():
    with pytest.raises(ValueError, match="not with planner.fast = false, the plain path; set one"):
        PlannerSettings(rollout="triton", fast=False)


@plainly
@pytest.mark.gpu(numbers=True)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_on_a_cuda_device_it_is_the_plain_path_within_rounding(model, case):
    made = model(*case)
    inputs = inputs_of(made, device="cuda")
    with torch.no_grad():
        expected = ModelDynamics(made).rollout(*inputs)
    assert_same(fused(made).rollout(*inputs), expected, **PRECISE)
