"""Densities integrate to 1, entropies are their integrals, and samples follow them."""

import math

import pytest
import torch
from torch.special import ndtri

from planet_rssm.behavior.actions import NUMBERS, OneHot

RAWS = [(0.0, 0.0), (1.2, -1.0), (-0.7, -3.0), (3.0, 0.5)]  # of mean and spread


def made(kind, mean, spread):
    return NUMBERS[kind](torch.tensor([[mean, spread]], dtype=torch.float64))


def grid(kind):
    """Places and their widths, finer near the bounds of those that have some."""
    reach = 8.0 if kind == "normal" else 1.0
    inner = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    places = inner.tanh() if kind != "normal" else inner / 20 * reach
    middle = (places[1:] + places[:-1]) / 2
    return middle[:, None], places.diff()


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("raw", RAWS)
def test_density_and_entropy_agree(kind, raw):
    if kind == "tanh_normal":
        raw = (
            raw[0],
            raw[1] - 4.5,
        )  # its first spread of 5 has nearly all of it beyond the grid's last digit
    policy, (places, widths) = made(kind, *raw), grid(kind)
    density = policy.log_prob(places)
    assert float((density.exp() * widths).sum()) == pytest.approx(1, abs=1e-3)
    assert float(policy.entropy) == pytest.approx(
        float(-(density.exp() * density * widths).sum()), abs=3e-3
    )


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("raw", RAWS)
def test_samples_have_the_density(kind, raw):
    """A sample is a monotone function of the noise: density times slope is the noise's density."""
    policy = made(kind, *raw)
    noise = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].requires_grad_()
    action = policy.sample(noise)
    inside = (
        action.abs().squeeze(-1) < 0.999 if kind != "normal" else torch.ones(7, dtype=torch.bool)
    )
    (slope,) = torch.autograd.grad(action.sum(), noise)
    log_prob = policy.log_prob(action) + slope.squeeze(-1).log()
    expected = -0.5 * noise.squeeze(-1).square() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(log_prob[inside], expected[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", NUMBERS)
def test_samples_are_finite_at_any_noise(kind):
    raw = torch.tensor([[20.0, -20.0], [-20.0, 20.0], [0.0, 0.0]]).requires_grad_()
    policy = NUMBERS[kind](raw)
    for noise in (-6.0, 0.0, 6.0):
        action = policy.sample(torch.full((3, 1), noise))
        assert action.isfinite().all() and policy.log_prob(action).isfinite().all()
        assert kind == "normal" or (action.abs() <= 1).all()
        (slope,) = torch.autograd.grad(
            (action + policy.entropy[:, None]).sum(), raw, retain_graph=True
        )
        assert slope.isfinite().all()


def test_a_normal_by_hand():
    policy = made("normal", 0.0, -2.0)  # std = 0.9 / 2 + 0.1
    assert float(policy.std) == pytest.approx(0.55)
    assert float(policy.log_prob(torch.tensor([[0.55]]))) == pytest.approx(
        -0.5 - math.log(0.55 * math.sqrt(2 * math.pi))
    )
    assert float(policy.entropy) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.55**2))


def test_a_tanh_normal_begins_wide():
    assert float(made("tanh_normal", 0.0, 0.0).std) == pytest.approx(5, abs=1e-3)


def test_a_choice_by_hand():
    policy = OneHot(torch.tensor([[math.log(3), 0.0]]), unimix=0.2)
    probs = torch.tensor([[0.7, 0.3]])  # 0.8 (0.75, 0.25) + 0.1
    torch.testing.assert_close(policy.logits.exp(), probs)
    torch.testing.assert_close(policy.log_prob(torch.eye(2)), probs[0].log())
    assert float(policy.entropy) == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3))
    assert policy.mode.tolist() == [[1, 0]]


def test_a_product_of_choices_by_hand():
    """Groups of 2, 3 and 3: log-probabilities and entropies add up, with uniform shares by size."""
    raw = torch.tensor([[math.log(3), 0.0, 0.0, math.log(2), 0.0, 0.0, 0.0, math.log(6)]])
    policy = OneHot(raw, 0.2, (2, 3, 3))
    each = [
        [0.7, 0.3],
        [0.8 / 4 + 0.2 / 3, 0.4 + 0.2 / 3, 0.2 + 0.2 / 3],
        [0.1 + 0.2 / 3, 0.1 + 0.2 / 3, 0.6 + 0.2 / 3],
    ]
    torch.testing.assert_close(policy.logits.exp(), torch.tensor([sum(each, [])]))
    action = torch.tensor([[0.0, 1, 0, 1, 0, 0, 0, 1]])
    assert float(policy.log_prob(action)) == pytest.approx(
        sum(math.log(p) for p in (0.3, each[1][1], each[2][2]))
    )
    assert float(policy.entropy) == pytest.approx(
        -sum(p * math.log(p) for group in each for p in group)
    )
    assert policy.mode.tolist() == [[1, 0, 0, 1, 0, 0, 0, 1]]
    assert OneHot(raw, 0.2).logits.exp().sum() == pytest.approx(
        1
    )  # without groups it is one choice among eight


def test_each_group_is_drawn_by_its_own_noise_and_has_its_own_gradient():
    raw = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.5]).requires_grad_()
    steps = ndtri((torch.arange(50) + 0.5) / 50)
    drawn = OneHot(raw.expand(2500, 5), groups=(3, 2)).sample(torch.cartesian_prod(steps, steps))
    probs = torch.cat([raw[:3].softmax(-1), raw[3:].softmax(-1)])
    torch.testing.assert_close(drawn.mean(0), probs, atol=0.02, rtol=0)
    pairs = (drawn[:, :3, None] * drawn[:, None, 3:]).mean(0)
    torch.testing.assert_close(
        pairs, drawn[:, :3].mean(0)[:, None] * drawn[:, 3:].mean(0), atol=1e-6, rtol=0
    )
    (straight,) = torch.autograd.grad(drawn[0, 4], raw, retain_graph=True)
    torch.testing.assert_close(straight, torch.autograd.grad(probs[4], raw)[0])
    assert not straight[:3].any()


def test_choices_come_as_often_as_they_should_and_are_exactly_one_hot():
    raw = torch.tensor([0.0, 1.0, -1.0]).requires_grad_()
    probs = raw.softmax(-1)
    noise = ndtri((torch.arange(1000) + 0.5) / 1000)[:, None]
    drawn = OneHot(raw.expand(1000, 3)).sample(noise)
    assert torch.equal(drawn.detach(), drawn.detach().round()) and torch.equal(
        drawn.sum(-1), torch.ones(1000)
    )
    torch.testing.assert_close(drawn.mean(0), probs, atol=1e-3, rtol=0)
    (straight,) = torch.autograd.grad(drawn[0, 1], raw, retain_graph=True)
    torch.testing.assert_close(straight, torch.autograd.grad(probs[1], raw)[0])
