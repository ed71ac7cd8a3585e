"""A prepared planner decides as its planner does; on a CUDA device by captured graphs."""

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.graphs import _capturable
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.types import Dynamics, Plan, Planner, State
from planet_rssm.world_model import ModelDynamics, WorldModel, untrained_model
from planet_rssm.world_model.packed_model import FastDynamics

B, A = 3, 2
WIDTHS = """
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.classes=4 rssm.hidden=16
    model.reward_units=16
"""
SPEC = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0")
CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu(numbers=True),
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ],
)
DEVICES = ["cpu", CUDA]


def settings_of(name: str, **more: object) -> PlannerSettings:
    return PlannerSettings(name=name, horizon=4, candidates=20, iterations=3, elites=5, **more)


def model_on(device: str, preset: str = "planet") -> WorldModel:
    return untrained_model(config.load(preset, [*WIDTHS.split(), "env.observe=vectors"]), SPEC).to(
        device
    )


def state_on(model: WorldModel) -> State:
    rng = torch.Generator().manual_seed(0)
    rssm = model.rssm
    device = next(model.parameters()).device
    deter = torch.randn(B, rssm.deter_size, generator=rng).tanh().to(device)
    with torch.no_grad():
        return State(deter, rssm.latent.sample(rssm.prior(deter), None))


def two_decisions(planner, decide, state: State, carry) -> list[torch.Tensor]:
    """Decide twice, the second time warm; return everything that came of it."""
    device = state.deter.device
    results = []
    rng = torch.Generator(device).manual_seed(2)
    for first in (True, False):
        plan, carry = decide(state, carry, torch.full((B,), first, device=device), rng)
        results += [plan.action, plan.sequence, plan.value, *plan.diagnostics.values(), *carry]
    return results


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("preset", ["planet", "planet-discrete"])
@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_in_float32_a_prepared_planner_decides_as_its_planner_does(name, preset, device):
    """On a CUDA device this is: the float32 graph equals eager on the same noise."""
    model = model_on(device, preset)
    planner = planner_from_settings(settings_of(name), A)
    plain = ModelDynamics(model)
    objective = Objective()
    state = state_on(model)
    prepared = planner.prepare(plain, objective)
    assert isinstance(prepared.dynamics, FastDynamics)
    initial = planner.initial(B, state.deter.device)
    with torch.inference_mode():
        by_prepared = two_decisions(planner, prepared.plan, state, initial)
    again = two_decisions(
        planner, prepared.plan, state, initial
    )  # outside inference mode, as users may
    by_planner = two_decisions(
        planner, lambda *args: planner.plan(plain, objective, *args), state, initial
    )
    for left, middle, right in zip(by_prepared, again, by_planner, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(middle, right, rtol=1e-4, atol=1e-4)


def by_hand(model: WorldModel) -> None:
    with torch.no_grad():
        for parameter in model.reward.parameters():
            parameter.neg_()


def by_fused_optimiser(model: WorldModel) -> None:
    """As the trainer's: PyTorch does not count what it writes."""
    optimizer = torch.optim.Adam(model.reward.parameters(), lr=0.5, fused=True)
    for parameter in model.reward.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("change", [by_hand, by_fused_optimiser])
def test_weights_change_plans_change(device, change):
    model = model_on(device)
    planner = planner_from_settings(settings_of("cem"), A)
    prepared = planner.prepare(ModelDynamics(model), Objective())
    state = state_on(model)
    first = torch.ones(B, dtype=torch.bool, device=device)
    initial = planner.initial(B, state.deter.device)

    def action() -> torch.Tensor:
        return prepared.plan(state, initial, first, torch.Generator(device).manual_seed(3))[
            0
        ].action

    before = action()
    assert torch.equal(action(), before)
    change(model)
    after = action()
    assert not torch.allclose(after, before)
    fresh = planner.prepare(ModelDynamics(model), Objective())
    expected = fresh.plan(state, initial, first, torch.Generator(device).manual_seed(3))[0].action
    torch.testing.assert_close(after, expected)


@pytest.mark.gpu(numbers=True)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_results_of_a_graph_are_copies():
    model = model_on("cuda")
    planner = planner_from_settings(settings_of("icem"), A)
    prepared = planner.prepare(ModelDynamics(model), Objective())
    state = state_on(model)
    first = torch.ones(B, dtype=torch.bool, device="cuda")
    initial = planner.initial(B, state.deter.device)
    plan, carry = prepared.plan(state, initial, first)
    copies = [
        leaf.clone() for leaf in (plan.sequence, plan.value, *plan.diagnostics.values(), *carry)
    ]
    prepared.plan(State(state.deter.neg(), state.stoch), carry, ~first)
    for now, then in zip(
        (plan.sequence, plan.value, *plan.diagnostics.values(), *carry), copies, strict=True
    ):
        assert torch.equal(now, then)


def test_one_setting_turns_it_off():
    model = model_on("cpu")
    plain = ModelDynamics(model)
    prepared = planner_from_settings(settings_of("cem", fast=False), A).prepare(plain, Objective())
    assert prepared.dynamics is plain


def test_what_cannot_be_captured_is_one_line_that_says_what_to_do():
    said = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")
    with (
        pytest.raises(
            PlanetError, match=r"^the search cannot be captured .*planner\.fast=false"
        ) as caught,
        _capturable(),
    ):
        raise said
    assert caught.value.__cause__ is said and "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="^CUDA out of memory$"), _capturable():
        raise RuntimeError("CUDA out of memory")


class Watched(Dynamics[torch.Tensor]):
    """Counts what is asked of it."""

    def __init__(self):
        self.calls = []

    def prepare(self, precision):
        self.calls.append(precision)
        return self

    def refresh(self):
        self.calls.append("refresh")

    def noise_shape(self, batch, candidates, horizon):
        return None

    def rollout(self, state, actions, noise):
        raise AssertionError("nobody asks")


class Still(Planner[torch.Tensor, int]):
    """Does nothing, and counts its decisions and the options they were given."""

    horizon = 2

    def initial(self, batch, device=None):
        return 0

    def plan(self, dynamics, objective, state, carry, is_first, generator=None, **options):
        assert options == {"executed": 2, "rounds": None, "proposals": None, "previous": None}
        action = torch.zeros(len(state), self.horizon, 1)
        return Plan(action[:, 0], action, action[:, 0, 0], {}), carry + 1


def test_a_planner_is_bound_to_a_model_in_its_precision_and_follows_it():
    dynamics = Watched()
    planner = Still()
    prepared = planner.prepare(dynamics, Objective(), "bfloat16")
    carry = planner.initial(3)
    for _ in range(2):
        plan, carry = prepared.plan(torch.zeros(3, 1), carry, torch.ones(3) > 0, executed=2)
    assert (carry, plan.sequence.shape, planner.rounds) == (2, (3, 2, 1), 1)
    assert dynamics.calls == ["bfloat16", "refresh", "refresh"]
