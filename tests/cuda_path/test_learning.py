"""An update on the device: one wait, one batch in one transfer, and the CPU's precisions."""

import gc

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.device import autocast, generator, to_device, to_host
from planet_rssm.behavior import untrained_behavior
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner, to_batch
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.world_model import untrained_model

pytestmark = pytest.mark.gpu
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, 3, 1, 0.1, 100, "none", "fake 0", terminates=True
)
CUDA = torch.device("cuda")
V3 = ["model.size=1m", "rssm.deter=16", "rssm.hidden=16", "rssm.stoch=4", "rssm.blocks=4"]
# launches of an update that is no graph, of 2 chunks of 6 steps in float32 and in bfloat16, a
# twentieth more than were counted
LAUNCHES = {
    "planet": (755, 930),
    "planet-discrete": (860, 1040),
    "dreamer-v1": (2600, 3100),
    "dreamer-v2": (4010, 4540),
    "dreamer-v3": (3400, 4190),
}


def learner_of(preset: str, precision: str = "float32", *, fast: bool = False) -> Learner:
    """Return a learner whose updates are captured if `fast`; its forms of the loss are the same."""
    sizes = V3 if preset == "dreamer-v3" else ["rssm.deter=16", "rssm.hidden=16"]
    how = ["env.observe=vectors", f"train.precision={precision}"]
    settings = config.load(preset, [*how, *sizes])
    model = untrained_model(settings, SPEC).cuda()
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(Learner, "_capturable", lambda self: False)
        return Learner(model, settings, CUDA, untrained_behavior(settings, model))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("preset", LAUNCHES)
def test_an_update_is_a_graph(device, preset, precision):
    learner, chunks = learner_of(preset, precision, fast=True), random_chunks(SPEC, 2, 6)
    for index in range(2):  # the second is captured
        learner.update(chunks, index)
    with device.counted() as found:
        for index in range(2, 5):
            learner.update(chunks, index)
    counted = {kind: count / 3 for kind, count in found.items()}
    assert (counted["graph launch"], counted["capture"]) == (1, 0)
    assert (counted["wait"], counted["device wait"], counted["transfer"]) == (1, 0, 2)
    assert counted["launch"] <= 8


def test_learners_that_come_and_go_leave_nothing_behind(device):
    chunks = random_chunks(SPEC, 2, 6)

    def reserved() -> int:
        learner = learner_of("planet", fast=True)
        for index in range(3):
            learner.update(chunks, index)
        del learner
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    first = reserved()
    assert {reserved() for _ in range(4)} == {first}


def test_float32_is_float32(device):
    learner_of("planet")
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


def test_batches_of_another_shape_are_another_graph(device):
    learner = learner_of("planet", fast=True)
    with device.counted() as found:
        for rows in (2, 2, 2, 3, 3, 3):
            learner.update(random_chunks(SPEC, rows, 6), 0)
    assert found["graph launch"] == 4


def test_an_update_that_cannot_be_captured_goes_on_plainly(pretended, monkeypatch, caplog):
    learner, chunks = learner_of("dreamer-v3", fast=True), random_chunks(SPEC, 2, 6)
    loss = learner.model.loss

    def waits(batch, noise):
        output = loss(batch, noise)
        output.total.item()
        return output

    monkeypatch.setattr(learner.model, "loss", waits)
    for index in range(3):
        learner.update(chunks, index)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pretended.counted() as found:
        learner.update(chunks, 3)
    assert (found["graph launch"], found["capture"], found["wait"]) == (0, 0, 2)
    other = learner_of("dreamer-v3", fast=True)  # the failed capture has left nothing behind
    for index in range(3):
        other.update(chunks, index)
    with pretended.counted() as found:
        other.update(chunks, 3)
    assert (found["graph launch"], found["wait"]) == (1, 1)


@pytest.mark.parametrize("which", [0, 1], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("preset", LAUNCHES)
def test_an_update_waits_once(device, preset, which):
    precision = ("float32", "bfloat16")[which]
    learner, chunks = learner_of(preset, precision), random_chunks(SPEC, 2, 6)
    learner.update(chunks, 0)
    with device.counted() as found:
        learner.update(chunks, 1)
    assert (found["wait"], found["device wait"]) == (1, 0)
    assert found["transfer"] == 2  # the batch, and the metrics
    assert found["launch"] <= LAUNCHES[preset][which]


def test_an_update_of_float16_waits_for_its_scale_too(device):
    learner, chunks = learner_of("planet", "float16"), random_chunks(SPEC, 2, 6)
    learner.update(chunks, 0)
    with device.counted() as found:
        learner.update(chunks, 1)
    assert found["wait"] <= 2


def test_laprop_counts_its_steps_on_the_cpu_after_a_resume_too(device):
    learner, chunks = learner_of("dreamer-v3"), random_chunks(SPEC, 2, 6)
    learner.update(chunks, 0)
    again = learner_of("dreamer-v3")
    again.load_optimizer_tensors(learner.optimizer_tensors())
    again.update(chunks, 1)
    with device.counted() as found:
        again.update(chunks, 2)
    assert found["wait"] == 1
    kinds = {
        (name, tensor.device.type)
        for state in again.optimizer.state.values()
        for name, tensor in state.items()
    }
    assert kinds == {("step", "cpu"), ("exp_avg", "cuda"), ("exp_avg_sq", "cuda")}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("preset", ["planet", "dreamer-v1", "dreamer-v2", "dreamer-v3"])
def test_every_part_has_the_precision_that_it_has_on_a_cpu(device, preset, precision):
    found = []
    for where in (torch.device("cpu"), CUDA):
        learner, chunks = learner_of(preset, precision), random_chunks(SPEC, 2, 4)
        model = learner.model.to(where)
        batch, noise = to_batch(chunks, where), model.draw(2, 4, generator(0, where), where)
        with autocast(where, precision):
            loss, metrics, context = model.loss(batch, noise)
        parts = [context.embed, *context.states, loss, *metrics.values()]
        found.append([part.dtype for part in parts])
        assert context.states.deter.dtype == torch.float32
    assert found[0] == found[1]


def test_what_crosses_together_arrives_as_it_was(device):
    chunks = random_chunks(SPEC, 3, 5)
    arrays = [chunks.reward, chunks.mask, chunks.action[:, ::2], *chunks.observation.values()]
    with device.counted() as there:
        moved = to_device(arrays, CUDA)
    with device.counted() as back:
        returned = to_host(
            {"first": moved[0], "rest": (moved[1], moved[2][:, 0]), "last": moved[3]}
        )
    assert (there["transfer"], there["wait"], back["transfer"], back["wait"]) == (1, 0, 1, 1)
    for tensor, array in zip(
        moved, arrays, strict=True
    ):  # copies are the one thing that this device does
        assert torch.equal(tensor.cpu(), torch.from_numpy(array.copy()))
    assert [returned["first"].dtype, returned["rest"][0].dtype] == [torch.float32, torch.bool]
    assert returned["rest"][1].shape == moved[2][:, 0].shape
