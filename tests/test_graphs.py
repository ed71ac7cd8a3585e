"""Graphs in numbers, without a GPU: a capture is recorded on the CPU and done again in place.

Before each replay all that graphs have written is overwritten with NaN, inputs and weights aside:
what is read must have been written by the same replay, as it must where graphs share their memory.
"""

import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from planet_rssm import config, graphs
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.training.learner import Learner
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.types import State
from planet_rssm.world_model import (
    ModelDynamics,
    latents,
    packed_layers,
    packed_model,
    untrained_model,
)

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


def tensors_of(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple] = []
        self.before: dict[int, tuple] = {}  # memory that was written to, as it had been

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in WAITS:
            raise RuntimeError(f"{function} while capturing")
        if function.namespace == "profiler":  # an optimiser's mark of where it begins
            return function(*args, **(kwargs or {}))
        options = kwargs or {}
        for place, argument in enumerate(function._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[place] if place < len(args) else options.get(argument.name)
                for t in tensors_of(value):
                    memory_of_t = t.untyped_storage()
                    self.before.setdefault(memory(t), (memory_of_t, memory_of_t.clone()))
        self.done.append((function, args, kwargs or {}, function(*args, **(kwargs or {}))))
        return self.done[-1][-1]


class Graph:
    """A torch.cuda.CUDAGraph of the CPU."""

    every: "list[Graph]" = []

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def capture_begin(self, **_: object) -> None:
        self.states = [generator.get_state() for generator in self.generators]
        self.recorder = Recorder()
        self.recorder.__enter__()

    def capture_end(self) -> None:
        self.recorder.__exit__(None, None, None)
        for now, before in self.recorder.before.values():  # a capture does nothing yet
            now.copy_(before)
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.set_state(state)
        given: set[int] = set()
        self.written: dict[
            int, torch.Tensor
        ] = {}  # a flat view of each memory that was taken inside
        for _, args, kwargs, result in self.recorder.done:
            given |= {memory(t) for t in tensors_of((args, kwargs))} - set(self.written)
            for t in tensors_of(result):
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
            read = {memory(t) for t in tensors_of((args, kwargs))}
            results = tensors_of(function(*args, **kwargs))
            for old, new in zip(tensors_of(result), results, strict=True):
                # neither a view nor in place, nor memory that was made larger later on
                if memory(old) not in read and old.shape == new.shape:
                    old.copy_(new)


# What PyTorch has of these waits on a CPU, and only there: it looks at the shares, and at the
# places.


def one_hot(places: torch.Tensor, classes: int) -> torch.Tensor:
    zeros = places.new_zeros(*places.shape, classes)
    return zeros.scatter_(-1, places[..., None], 1)


def nanquantile(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    values = values.sort().values  # NaN last
    ranks = shares * ((~values.isnan()).sum() - 1)
    low, high = (values.gather(0, rank.long()) for rank in (ranks.floor(), ranks.ceil()))
    return torch.lerp(low, high, ranks - ranks.floor())


@pytest.fixture
def recorded(monkeypatch):
    """Prepared planners and learners on the CPU capture as they would on a CUDA device."""
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
        self.capturable = True

    monkeypatch.setattr(packed_model.FastDynamics, "__init__", capturable)
    monkeypatch.setattr(torch, "nanquantile", nanquantile)
    monkeypatch.setattr(latents, "one_hot", one_hot)
    monkeypatch.setattr(Learner, "_capturable", lambda self: True)
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
    """That the test above can fail: a graph reads weights where they were when it was captured."""
    monkeypatch.setattr(packed_model.FastDynamics, "places", lambda self: ())
    with pytest.raises(AssertionError):
        check("planet", "cem")


# --- updates

UPDATES = 24  # more than two broken ones, the warm-up, and three copies to a slow critic
PIXELS = EnvSpec(
    "gym/Test-v0",
    {"image": ((16, 16, 3), "uint8"), "speed": ((3,), "float32")},
    A,
    1,
    0.1,
    100,
    "own",
    "fake 0",
    terminates=True,
)
TINY = """
    env.observe=both env.size=16 rssm.deter=16 rssm.stoch=4 rssm.classes=4 rssm.hidden=8
    model.depth=2 model.reward_units=8 model.vector_units=8 model.continue_units=8
    behavior.units=8 behavior.horizon=3
""".split()
PRESETS = {
    "planet": [],
    "planet-discrete": [],
    "quickstart-search": [],
    "quickstart": [],
    "dreamer-v1": [],
    "dreamer-v2": ["behavior.slow_every=7"],
    "dreamer-v3-2023": [],
    "dreamer-v3": ["rssm.blocks=4", "optimizer.warmup=16"],
}
# The graph has it in float32, where these numbers are the same: then all of an update is.
RATES = ["optimizer.lr=0.0009765625", "behavior.lr=0.00048828125"]


def learner_of(preset: str, *more: str, device: str = "cpu") -> Learner:
    settings = config.load(preset, [*TINY, *RATES, *PRESETS[preset], *more])
    model = untrained_model(settings, PIXELS).to(device)
    return Learner(model, settings, torch.device(device), untrained_behavior(settings, model))


def uncaptured_learner_of(preset: str) -> Learner:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_capturable", lambda self: False)
        return learner_of(preset)


def batch_of(index: int):
    rng = np.random.default_rng(index)
    chunks = random_chunks(PIXELS, 3, 5)
    chunks.mask[0, 3 + index % 2 :] = False
    reward = rng.uniform(size=chunks.reward.shape).astype(np.float32)
    speed = rng.standard_normal((3, 5, 3), np.float32)
    return chunks._replace(reward=reward, observation={**chunks.observation, "speed": speed})


def broken_batch(index: int):
    """A batch whose loss is not finite."""
    chunks = batch_of(index)
    chunks.reward[1, 2] = np.nan
    return chunks


def state_of(learner: Learner) -> dict[str, torch.Tensor]:
    behavior = {} if learner.behavior is None else learner.behavior.state_dict()
    kept = learner.model.state_dict() | {
        f"behavior {key}": value for key, value in behavior.items()
    }
    kept |= learner.optimizer_tensors()
    return {key: value.clone() for key, value in kept.items()}


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
@pytest.mark.parametrize("preset", PRESETS)
def test_replayed_updates_learn_as_plain_ones(preset):
    ours, plain = learner_of(preset), uncaptured_learner_of(preset)
    for index in range(UPDATES):
        chunks = broken_batch(index) if index in (5, 20) else batch_of(index)
        values, expected = ours.update(chunks, index), plain.update(chunks, index)
        assert values == expected, index
    assert len(Graph.every) == 1 and ours._captured is not None  # captured, and once
    mine, theirs = state_of(ours), state_of(plain)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
@pytest.mark.parametrize("preset", ["planet", "dreamer-v2", "dreamer-v3"])
def test_a_replayed_update_that_is_not_finite_changes_nothing(preset):
    learner = learner_of(preset)
    for index in range(3):
        learner.update(batch_of(index), index)
    before = state_of(learner)
    assert learner.update(broken_batch(3), 3) == {"skipped": 1.0}
    after = state_of(learner)
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    assert learner.update(batch_of(4), 4).keys() != {"skipped"}


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
@pytest.mark.parametrize("preset", ["planet", "dreamer-v3"])
def test_a_learner_goes_on_by_graphs_from_the_state_that_another_kept(preset):
    first, other = learner_of(preset), learner_of(preset)
    for index in range(3):
        first.update(batch_of(index), index)
        other.update(batch_of(7), index)  # its graph is of tensors that it has no longer
    other.model.load_state_dict(first.model.state_dict())
    if first.behavior is not None:
        other.behavior.load_state_dict(first.behavior.state_dict())
    other.load_optimizer_tensors(first.optimizer_tensors())
    for index in (3, 4, 5):
        assert first.update(batch_of(index), index) == other.update(batch_of(index), index)


@pytest.mark.usefixtures("recorded", "one_thread_and_seed")
def test_an_update_that_cannot_be_captured_takes_the_plain_path(monkeypatch, caplog):
    ours, plain = learner_of("dreamer-v3"), uncaptured_learner_of("dreamer-v3")
    loss = ours.model.loss

    def waits(batch, noise):
        output = loss(batch, noise)
        assert output.total.item() > 0
        return output

    monkeypatch.setattr(ours.model, "loss", waits)
    for index in range(4):
        values, expected = (one.update(batch_of(index), index) for one in (ours, plain))
        assert values == expected
    [line] = [record.getMessage() for record in caplog.records]
    assert "cannot be captured" in line and "train.fast=false" in line


@pytest.mark.gpu(numbers=True)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(
    ("preset", "precision"),
    [(preset, "float32") for preset in PRESETS]
    + [("planet", "float16"), ("dreamer-v3", "bfloat16"), ("dreamer-v3", "float16")],
)
def test_updates_on_a_cuda_device_learn_as_plain_ones(preset, precision):
    """Noise is the same there; sums are not always in the same order."""
    how = f"train.precision={precision}"
    ours = learner_of(preset, how, device="cuda")
    plain = learner_of(preset, how, "train.fast=false", device="cuda")
    for index in range(6):
        chunks = broken_batch(index) if index == 3 else batch_of(index)
        values, expected = ours.update(chunks, index), plain.update(chunks, index)
        assert values.keys() == expected.keys()
        exact = 1e-3 if precision == "float32" and index < 2 else 5e-2
        for name in values:
            if name.startswith("loss/"):
                assert values[name] == pytest.approx(expected[name], rel=exact, abs=exact), name
    assert ours._captured is not None
