"""Updates by the fast path are those of the plain one up to rounding, for every preset."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.behavior import imagination, untrained_behavior
from planet_rssm.config.files import presets
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.world_model import (
    heads,
    networks,
    observations,
    products,
    recurrence,
    scan,
    untrained_model,
)

pytestmark = pytest.mark.usefixtures("one_thread_and_seed")
UPDATES = 50
SPEC = EnvSpec(
    "gym/Test-v0",
    {"image": ((16, 16, 3), "uint8"), "speed": ((3,), "float32")},
    2,
    1,
    0.1,
    100,
    "own",
    "fake 0",
    terminates=True,
)
TINY = """
    env.observe=both env.size=16 rssm.deter=16 rssm.stoch=4 rssm.hidden=8 model.depth=2
    model.reward_units=8 model.vector_units=8 model.continue_units=8 train.precision=float32
""".split()
ACTS = "behavior.units=8 behavior.horizon=3".split()
MORE = {  # sizes that only these have
    "planet-discrete": ["rssm.classes=4"],
    "quickstart-discrete": ["rssm.classes=4"],
    "dreamer-v2": ["rssm.classes=4", "behavior.slow_every=7"],
    "dreamer-v3-2023": ["rssm.classes=4"],
    "dreamer-v3": ["rssm.classes=4", "rssm.blocks=4", "optimizer.warmup=16"],
}


def learner_of(preset: str, *more: str) -> Learner:
    acts = ACTS if config.load(preset).behavior.name != "none" else []
    settings = config.load(preset, [*TINY, *acts, *MORE.get(preset, []), *more])
    model = untrained_model(settings, SPEC)
    behavior = untrained_behavior(settings, model)
    dtype = torch.get_default_dtype()
    behavior = None if behavior is None else behavior.to(dtype)
    return Learner(model.to(dtype), settings, torch.device("cpu"), behavior)


def batch_of(index: int, dtype: type = np.float32):
    rng = np.random.default_rng(index)
    chunks = random_chunks(SPEC, 3, 4)
    chunks.mask[0, 3:] = False
    chunks.is_first[1, 2] = True
    observation = chunks.observation | {"speed": rng.standard_normal((3, 4, 3)).astype(dtype)}
    action = rng.uniform(-1, 1, (3, 4, 2)).astype(dtype)
    reward = rng.uniform(size=(3, 4)).astype(dtype)
    return chunks._replace(observation=observation, action=action, reward=reward)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32 rounding grows from update to update, and a latent's choice may turn over it."""
    pixels = observations._pixels
    monkeypatch.setattr(observations, "_pixels", lambda *given: pixels(*given).double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("preset", presets())
def test_a_run_of_updates_is_that_of_the_plain_path(preset: str) -> None:
    ours, plain = learner_of(preset), learner_of(preset, "train.fast=false")
    for index in range(UPDATES):
        chunks = batch_of(index, np.float64)
        values, expected = ours.update(chunks, index), plain.update(chunks, index)
        assert values == pytest.approx(expected, rel=1e-5, abs=1e-6), index
    mine, theirs = ours.parameters(), plain.parameters()
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("preset", presets())
def test_gradients_in_float32_are_those_of_the_plain_path(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LEAST", 0)
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        monkeypatch.setattr(products, "pays", lambda: True)
    ours, plain = learner_of(preset), learner_of(preset, "train.fast=false")
    values, expected = (one.update(batch_of(0), 0) for one in (ours, plain))
    assert values == pytest.approx(expected, rel=1e-4, abs=1e-5)
    mine = ours.parameters()
    for name, weight in plain.parameters().items():
        if weight.grad is not None:
            exact = 1e-4 * float(weight.grad.abs().max())
            torch.testing.assert_close(mine[name].grad, weight.grad, rtol=0, atol=exact)


@pytest.mark.parametrize("preset", ["planet", "quickstart", "dreamer-v3"])
def test_the_plain_path_has_none_of_the_fast_forms(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {
        heads._MeanBin,
        networks._UpconvFunction,
        products._Linear,
        recurrence._Gate,
        scan.Scan,
    }
    for form in fast:
        monkeypatch.delattr(form, "forward")
    monkeypatch.delattr(imagination, "_follow_packed")
    with pytest.raises((AttributeError, NotImplementedError, NameError)):
        learner_of(preset).update(batch_of(0), 0)
    assert "loss/total" in learner_of(preset, "train.fast=false").update(batch_of(0), 0)
