"""Graphs in numbers, without a GPU: a capture is recorded on the CPU and done again in place.

Before each replay all that graphs have written is overwritten with NaN, inputs and weights aside:
what is read must have been written by the same replay, as it must where graphs share their memory.
"""

import contextlib
import threading
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from planet_rssm import config
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, graphs, planner_from_settings
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, packed_layers, packed_model, untrained_model

B, A = 3, 2
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0", terminates=True
)
SMALL = """
    env.observe=vectors rssm.deter=16 rssm.stoch=4 rssm.classes=4 rssm.hidden=16
    model.reward_units=16
""".split()
V3 = """
    env.observe=vectors model.size=1m rssm.deter=16 rssm.hidden=16 rssm.stoch=4 rssm.blocks=4
""".split()
WAITS = ("_local_scalar_dense", "nonzero", "equal")


def memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in WAITS:
            raise RuntimeError(f"{function} while capturing")
        self.done.append((function, args, kwargs or {}, function(*args, **(kwargs or {}))))
        return self.done[-1][-1]


class Graph:
    """A torch.cuda.CUDAGraph of the CPU."""

    every: "list[Graph]" = []

    def capture_begin(self, **_: object) -> None:
        self.recorder = Recorder()
        self.recorder.__enter__()

    def capture_end(self) -> None:
        self.recorder.__exit__(None, None, None)
        given: set[int] = set()
        self.written: dict[
            int, torch.Tensor
        ] = {}  # a flat view of each memory that was taken inside
        for _, args, kwargs, result in self.recorder.done:
            given |= {
                memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
            } - set(self.written)
            for t in tree_leaves(result):
                if memory(t) not in given and memory(t) not in self.written:
                    self.written[memory(t)] = torch.empty(0, dtype=t.dtype).set_(
                        t.untyped_storage()
                    )
        Graph.every.append(self)

    @torch.no_grad()
    def replay(self) -> None:
        for t in (t for graph in Graph.every for t in graph.written.values()):
            t.fill_(torch.nan if t.is_floating_point() else 1)
        for function, args, kwargs, result in self.recorder.done:
            read = {memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            for old, new in zip(
                tree_leaves(result), tree_leaves(function(*args, **kwargs)), strict=True
            ):
                if memory(old) not in read:  # neither a view nor in place
                    old.copy_(new)


@pytest.fixture
def recorded(monkeypatch):
    """A prepared planner on the CPU captures as it would on a CUDA device."""
    stream = SimpleNamespace(device_index=0, cuda_stream=0, wait_stream=lambda other: None)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(graphs, "_capture_stream", lambda device: stream)
    monkeypatch.setattr(
        graphs, "_shared_by", lambda *_: graphs._Shared(0, Graph(), threading.Lock())
    )
    monkeypatch.setattr(
        packed_layers, "blocked", lambda weight: None
    )  # oneDNN's layouts cannot be written to in place
    made = packed_model.FastDynamics.__init__

    def capturable(self, *args, **options):
        made(self, *args, **options)
        self.capturable = self._in_place = True

    monkeypatch.setattr(packed_model.FastDynamics, "__init__", capturable)
    monkeypatch.setattr(Graph, "every", [])


def model_of(preset: str):
    return untrained_model(config.load(preset, V3 if preset == "dreamer-v3" else SMALL), SPEC)


def decide(run, state: State, carry) -> list[torch.Tensor]:
    results = []
    rng = torch.Generator().manual_seed(2)
    for first in (True, False):
        plan, carry = run(state, carry, torch.full((B,), first), rng)
        results += [plan.action, plan.sequence, plan.value, *plan.diagnostics.values(), *carry]
    return results


def check(preset: str, name: str) -> None:
    model = model_of(preset)
    settings = PlannerSettings(name=name, horizon=4, candidates=20, iterations=3, elites=5)
    planner = planner_from_settings(settings, A)
    plain = ModelDynamics(model)
    deter = torch.randn(B, model.rssm.deter_size, generator=torch.Generator().manual_seed(0)).tanh()
    with torch.no_grad():
        state = State(deter, model.rssm.latent.sample(model.rssm.prior(deter), None))
    prepared = planner.prepare(plain, Objective())
    for change in (None, by_hand, by_fused_optimiser, by_assignment):
        if change is not None:
            change(model)
        with torch.inference_mode():
            results = decide(prepared.plan, state, planner.initial(B))
        expected = decide(
            lambda *args: planner.plan(plain, Objective(), *args), state, planner.initial(B)
        )
        for left, right in zip(results, expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
    assert 1 <= len(Graph.every) <= 6  # none was captured anew as weights changed


def by_hand(model) -> None:
    with torch.no_grad():
        for parameter in model.reward.parameters():
            parameter.mul_(-1.1)


def by_fused_optimiser(model) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def by_assignment(model) -> None:
    model.load_state_dict(
        {key: 1.5 * value for key, value in model.state_dict().items()}, assign=True
    )


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("planet", "cem"),
        ("planet-discrete", "icem"),
        ("dreamer-v2", "mppi"),
        ("dreamer-v3", "shooting"),
    ],
)
def test_replayed_graphs_decide_as_the_plain_planner(preset, name):
    check(preset, name)


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
def test_weights_that_move_to_other_memory_are_found_out(monkeypatch):
    """That the test above can fail: a graph reads the weights that it was captured with."""
    take_up = packed_model.FastDynamics._take_up

    def elsewhere(self) -> None:
        self._in_place = False
        take_up(self)

    monkeypatch.setattr(packed_model.FastDynamics, "_take_up", elsewhere)
    with pytest.raises(AssertionError):
        check("planet", "cem")
