"""Two-hot numbers and the heads: round trips, values at and beyond the bins, losses by hand."""

import math

import pytest
import torch

from planet_rssm import config
from planet_rssm.config import ModelSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import State
from planet_rssm.world_model import TwohotEncoder, WorldModel, symexp, symlog, untrained_model
from planet_rssm.world_model.heads import ContinueHead, GaussianHead, TwohotHead

SMALL = ModelSettings(reward_layers=1, reward_units=8, continue_layers=1, continue_units=8)


def test_symlog_and_symexp_undo_each_other() -> None:
    values = torch.cat(
        [torch.logspace(-6, 6, 25, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    )
    for x in (values, -values):
        torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-9, atol=0)
        torch.testing.assert_close(
            symlog(x), torch.sign(x) * torch.log(1 + x.abs()), rtol=1e-9, atol=0
        )
    torch.testing.assert_close(
        symlog(symexp(values.clamp(max=20))), values.clamp(max=20), rtol=1e-9, atol=0
    )


def test_bins_are_symexp_spaced_and_mirrored() -> None:
    bins = TwohotEncoder().bins
    assert len(bins) == 255 and torch.equal(bins, -bins.flip(0)) and bins[127] == 0
    expected = symexp(torch.linspace(-20, 20, 255, dtype=torch.float64))
    torch.testing.assert_close(bins.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("encoder", [TwohotEncoder(), TwohotEncoder(5, 2.0)], ids=["255", "5"])
def test_a_number_is_the_mean_of_its_two_bins(encoder: TwohotEncoder) -> None:
    ends = float(encoder.bins[-1])
    values = torch.cat(
        [
            torch.linspace(-3, 3, 61, dtype=torch.float64),
            symexp(torch.linspace(-19, 19, 40).double()),
        ]
    )
    values = values.clamp(-ends, ends)
    weights = encoder.encode(values)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(values))
    assert ((weights >= 0).all(-1) & ((weights > 0).sum(-1) <= 2)).all()
    occupied = [row.nonzero().squeeze(-1) for row in weights]
    assert all(len(row) == 1 or row[1] - row[0] == 1 for row in occupied)
    torch.testing.assert_close(encoder.decode(weights.log()), values, rtol=1e-9, atol=1e-9)


def test_a_bin_is_itself_alone_and_beyond_the_last_all_are_the_last() -> None:
    encoder = TwohotEncoder(5, 2.0)
    bins = encoder.bins.double()
    assert torch.equal(encoder.encode(bins), torch.eye(5, dtype=torch.float64))
    beyond = torch.tensor(
        [-1e9, float(bins[0]) - 1e-6, float(bins[-1]) + 1e-6, 1e9, math.inf, -math.inf]
    ).double()
    assert torch.equal(
        encoder.encode(beyond), torch.eye(5, dtype=torch.float64)[[0, 0, 4, 4, 4, 0]]
    )
    assert encoder.encode(torch.zeros(2, 3)).shape == (2, 3, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_logits_say_exactly_nothing(dtype: torch.dtype) -> None:
    for level in (0.0, 3.7, -11.0):
        assert (
            TwohotEncoder().decode(torch.full((4, 255), level, dtype=dtype)).tolist() == [0.0] * 4
        )


def test_an_untrained_model_expects_exactly_no_reward() -> None:
    settings = config.load(
        "dreamer-v3", ["model.size=1m", "rssm.deter=16", "rssm.hidden=8", "model.depth=2"]
    )
    spec = EnvSpec("gym/Test-v0", {"vector": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0")
    model, size = untrained_model(settings, spec), settings.rssm.stoch * settings.rssm.classes
    assert (
        model.predict_reward(State(torch.randn(3, 5, 16), torch.randn(3, 5, size))).tolist()
        == [[0.0] * 5] * 3
    )


def test_the_twohot_loss_is_the_cross_entropy_of_both_bins() -> None:
    head = TwohotHead(3, SMALL).double()
    feat, target = (
        torch.randn(2, 4, 3, dtype=torch.float64),
        torch.randn(2, 4, dtype=torch.float64) * 100,
    )
    logits, bins = head.net(feat), head.encoder.bins.double()
    loss = head.loss(head.raw(feat), target)
    for b in range(2):
        for t in range(4):
            above = int((bins < target[b, t]).sum())
            share = (target[b, t] - bins[above - 1]) / (bins[above] - bins[above - 1])
            logs = torch.log(torch.exp(logits[b, t]) / torch.exp(logits[b, t]).sum())
            torch.testing.assert_close(
                loss[b, t], -share * logs[above] - (1 - share) * logs[above - 1]
            )


def test_the_twohot_loss_is_flat_where_the_head_is_right() -> None:
    """Its gradient in the logits is softmax - target."""
    head = TwohotHead(1, ModelSettings(reward_layers=0)).double()
    target = torch.tensor([7.3], dtype=torch.float64)
    head.net[-1].bias.data = (head.encoder.encode(target)[0] + 1e-30).log()
    zeros = torch.zeros(1, 1, dtype=torch.float64)
    torch.testing.assert_close(head(zeros), target)
    head.loss(head.raw(zeros), target).sum().backward()
    torch.testing.assert_close(
        head.net[-1].bias.grad, torch.zeros(255, dtype=torch.float64), rtol=0, atol=1e-12
    )
    head.zero_grad()
    head.loss(head.raw(zeros), torch.zeros(1, dtype=torch.float64)).sum().backward()
    expected = head.encoder.encode(target)[0]
    expected[127] -= 1
    torch.testing.assert_close(head.net[-1].bias.grad, expected, rtol=0, atol=1e-12)


def test_the_gaussian_head_costs_half_the_squared_error() -> None:
    head, feat = GaussianHead(3, SMALL).double(), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        head.loss(head.raw(feat), head(feat) + 3), torch.full((5,), 4.5, dtype=torch.float64)
    )


def test_the_continue_head_is_trained_to_the_discounted_target() -> None:
    """-c log p - (1 - c) log(1 - p), with c = 0.9 where it goes on and 0 where it ends."""
    head = ContinueHead(3, SMALL.model_copy(update={"continue_discount": 0.9})).double()
    feat, goes_on = torch.randn(4, 3, dtype=torch.float64), torch.tensor([True, False, True, False])
    p, target = head(feat), 0.9 * goes_on.double()
    assert ((p > 0) & (p < 1)).all()
    expected = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(head.loss(head.raw(feat), goes_on), expected)


def test_without_ends_every_state_goes_on() -> None:
    spec = EnvSpec("gym/Test-v0", {"vector": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0")
    model = WorldModel(config.load("planet", ["rssm.deter=4", "rssm.stoch=3"]), spec)
    assert (
        model.predict_continue(State(torch.randn(2, 5, 4), torch.randn(2, 5, 3))).tolist()
        == [[1.0] * 5] * 2
    )


@pytest.mark.parametrize("space", ["value", "symlog"])
def test_the_gradient_of_a_mean_bin_is_autograds(space: str) -> None:
    encoder = TwohotEncoder(5, 2.0, space).double()
    logits = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder.decode, (logits,))
    mean = (logits.softmax(-1) * encoder.bins).sum(-1)
    plain = mean if space == "value" else symexp(mean)
    torch.testing.assert_close(encoder.decode(logits), plain)
