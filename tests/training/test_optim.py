"""LaProp beside a NumPy version of its formulas; the learner's precision, clipping and state."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from planet_rssm import config
from planet_rssm.config import OptimizerSettings, Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.learner import Learner
from planet_rssm.training.optim import LaProp, build_optimizer, warm
from planet_rssm.types import Batch
from planet_rssm.world_model import LossNoise, LossOutput, untrained_model

CPU = torch.device("cpu")
SPEC = EnvSpec(
    "gym/Test-v0", {"vector": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0", terminates=True
)
WIDTHS = ["rssm.deter=16", "rssm.stoch=4", "rssm.classes=4", "rssm.hidden=16"] + [
    f"model.{name}_units=16" for name in ("vector", "reward", "continue")
]
Arrays = list[np.ndarray]


def laprop(params: Arrays, steps: list[Arrays], s: OptimizerSettings) -> Arrays:
    """DreamerV3's optimiser tensor by tensor, a line a formula."""
    means, squares = [0 * p for p in params], [0 * p for p in params]
    for t, grads in enumerate(steps, start=1):
        lr = s.lr * min(1, t / s.warmup) if s.warmup else s.lr
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            most = s.agc * max(1e-3, np.linalg.norm(p))
            g = g * min(1, most / max(np.linalg.norm(g), 1e-12))
            squares[i] = s.beta2 * squares[i] + (1 - s.beta2) * g**2
            scaled = g / (np.sqrt(squares[i] / (1 - s.beta2**t)) + s.eps)
            means[i] = s.beta1 * means[i] + (1 - s.beta1) * scaled
            params[i] = (1 - lr * s.weight_decay) * p - lr * means[i] / (1 - s.beta1**t)
    return params


def problem(count: int = 6) -> tuple[Arrays, list[Arrays]]:
    """A matrix, a vector, a scalar and a tensor of zeros; gradients small and large beside them."""
    rng = np.random.default_rng(0)
    params = [rng.normal(size=(3, 4)), rng.normal(size=5), np.array(2.0), np.zeros(3)]
    steps = [
        [rng.normal(size=p.shape) * 10.0 ** rng.integers(-3, 3) for p in params]
        for _ in range(count)
    ]
    return params, steps


def follow(params: Arrays, steps: list[Arrays], settings: OptimizerSettings) -> list[Tensor]:
    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    optimizer = build_optimizer(tensors, settings)
    for index, grads in enumerate(steps):
        warm(optimizer, settings, index)
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g)
        optimizer.step()
    return [tensor.detach() for tensor in tensors]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"eps": 1e-20},
        {"agc": 1e9},
        {"agc": 0.01, "warmup": 4},
        {"beta1": 0.0, "beta2": 0.5},
        {"weight_decay": 0.1, "warmup": 10},
    ],
    ids=str,
)
def test_laprop_follows_its_formulas(changed: dict[str, float]) -> None:
    settings = OptimizerSettings(name="laprop", lr=0.01, **changed)
    params, steps = problem()
    result = follow(params, steps, settings)
    for tensor, expected in zip(result, laprop(list(params), steps, settings), strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_laprops_first_step_is_lr_times_the_sign() -> None:
    """Both moments are corrected for their start at 0."""
    p = torch.tensor([3.0, -4.0, 5.0], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([1e-3, -7.0, 0.0], dtype=torch.float64)
    LaProp([p], lr=0.5).step()
    torch.testing.assert_close(p.detach(), torch.tensor([2.5, -3.5, 5.0], dtype=torch.float64))


def test_laprop_counts_each_tensors_own_steps() -> None:
    """A tensor that had no gradient for a while is corrected as at its first step."""
    settings = OptimizerSettings(name="laprop", lr=0.01)
    [early, late, *_], [first, second, *_] = problem()
    tensors = [torch.tensor(p, requires_grad=True) for p in (early, late)]
    optimizer = build_optimizer(tensors, settings)
    for grads in ([first[0], None], [second[0], second[1]]):
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = None if g is None else torch.tensor(g)
        optimizer.step()
    [expected] = laprop([late], [[second[1]]], settings)
    np.testing.assert_allclose(tensors[1].detach().numpy(), expected, rtol=1e-9)


def test_warm_up_is_linear_and_then_over() -> None:
    [optimizer, settings] = [LaProp([torch.zeros(1)]), OptimizerSettings(lr=2.0, warmup=4)]
    rates = []
    for index in range(6):
        warm(optimizer, settings, index)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


@pytest.fixture
def learner() -> Callable[..., Learner]:
    """learner("dreamer-v3", ...): a tiny model on vectors, with the same weights at every call."""

    def build(preset: str, *overrides: str) -> Learner:
        settings: Settings = config.load(
            preset, [*WIDTHS, "kl.free_nats=0", "optimizer.warmup=0", *overrides]
        )
        return Learner(untrained_model(settings, SPEC), settings, CPU)

    return build


def chunks() -> Chunks:
    rng = np.random.default_rng(0)
    first, mask = np.zeros((2, 4, 6), bool)
    first[:, 0], mask[:] = True, True
    normal = [rng.normal(size=(4, 6, n)).astype(np.float32) for n in (3, 2, 1)]
    return Chunks(
        {"vector": normal[0]}, normal[1], normal[2][..., 0], first, np.zeros_like(first), mask
    )


@pytest.mark.parametrize("name", ["adam", "adamw", "laprop"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_optimiser_learns_in_every_precision(
    name: str, precision: str, learner: Callable[..., Learner]
) -> None:
    one = learner(
        "dreamer-v3", f"optimizer.name={name}", f"train.precision={precision}", "optimizer.lr=3e-3"
    )
    losses = [one.update(chunks(), index).get("loss/total") for index in range(30)]
    losses = [loss for loss in losses if loss is not None]
    assert len(losses) >= 20  # in float16 the scale of the loss has to adapt first
    assert losses[-1] < 0.75 * losses[0]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in one.model.parameters())
    assert one.scaler.is_enabled() == (precision == "float16")


@pytest.mark.parametrize(
    ("preset", "precision"),
    [
        ("planet", "float32"),
        ("dreamer-v2", "float16"),
        ("dreamer-v3", "bfloat16"),
        ("dreamer-v3", "float16"),
    ],
)
def test_a_learner_goes_on_from_the_state_that_another_kept(
    preset: str, precision: str, learner: Callable[..., Learner]
) -> None:
    first, other = (learner(preset, f"train.precision={precision}") for _ in range(2))
    for index in range(3):
        first.update(chunks(), index)
    kept = {name: tensor.clone() for name, tensor in first.optimizer_tensors().items()}
    other.model.load_state_dict(first.model.state_dict())
    other.load_optimizer_tensors(kept)
    assert other.optimizer_tensors().keys() == kept.keys()
    assert other.scaler.state_dict() == first.scaler.state_dict()
    assert first.update(chunks(), 3) == other.update(chunks(), 3)
    for one, same in zip(first.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, same)


def test_an_overflow_in_float16_is_skipped_and_lowers_the_scale(
    learner: Callable[..., Learner],
) -> None:
    one = learner("dreamer-v3", "train.precision=float16", "model.vector_scale=1e6")
    before = [p.clone() for p in one.model.parameters()]
    scale = one.scaler.get_scale()
    assert one.update(chunks(), 0) == {"skipped": 1.0}
    assert one.scaler.get_scale() == scale / 2
    assert all(torch.equal(p, old) for p, old in zip(one.model.parameters(), before, strict=True))
    kept = one.optimizer_tensors()
    again = learner("dreamer-v3", "train.precision=float16")
    again.load_optimizer_tensors(kept)
    assert again.scaler.get_scale() == scale / 2
    learner("dreamer-v3", "train.precision=float32").load_optimizer_tensors(
        kept
    )  # it has no scale to take back


def test_gradient_norms_are_reported_in_total_and_by_part_and_clipped_together(
    learner: Callable[..., Learner],
) -> None:
    one = learner("planet", "optimizer.clip=0.5")
    values = one.update(chunks(), 0)
    parts = {key: value for key, value in values.items() if key.startswith("grad_norm/")}
    assert parts.keys() == {
        f"grad_norm/{name}" for name in ("encoder", "rssm", "decoder", "reward", "continue_head")
    }
    assert values["grad_norm"] == pytest.approx(
        sum(value**2 for value in parts.values()) ** 0.5, rel=1e-5
    )
    assert values["grad_norm"] > 0.5
    left = torch.cat([p.grad.flatten() for p in one.model.parameters()]).norm()
    assert left.item() == pytest.approx(0.5, rel=1e-4)


def test_an_update_learns_by_the_models_loss(
    learner: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = learner("planet")
    loss = one.model.loss

    def halved(batch: Batch, noise: LossNoise) -> LossOutput:
        output = loss(batch, noise)
        return output._replace(total=output.total / 2, metrics={"loss/mine": output.total.detach()})

    expected = learner("planet").update(chunks(), 0)
    monkeypatch.setattr(one.model, "loss", halved)
    values = one.update(chunks(), 0)
    assert values["loss/mine"] == expected["loss/total"]
    assert values["grad_norm"] == pytest.approx(expected["grad_norm"] / 2)
