"""Both latents in float64: closed forms, gradients, limits of unimix, straight-through, counts."""

import math

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from planet_rssm.world_model.latents import (
    Categorical,
    CategoricalLatent,
    Gaussian,
    GaussianLatent,
    Latent,
    Sample,
    stack,
)

G, K = 3, 5
LATENTS = {
    "gaussian": GaussianLatent(4, 0.1),
    "sigmoid2": GaussianLatent(4, 0.1, "sigmoid2"),
    "categorical": CategoricalLatent(G, K, 0.0),
    "unimix": CategoricalLatent(G, K, 0.2),
}
every = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)


def raw_of(latent: Latent, seed: int, *lead: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(
        *(lead or (2, 6)), latent.raw_size, generator=rng, dtype=torch.float64
    ).requires_grad_()


def probabilities(raw: Tensor, unimix: float) -> Tensor:
    return (1 - unimix) * raw.unflatten(-1, (G, K)).softmax(-1) + unimix / K


def reference(latent: Latent, raw: Tensor) -> Normal | TorchCategorical:
    """The distribution as torch.distributions has it, from the network's output."""
    if isinstance(latent, CategoricalLatent):
        return TorchCategorical(probs=probabilities(raw, latent.unimix))
    mean, std = raw.chunk(2, -1)
    positive = (
        2 / (1 + (-std / 2).exp()) if latent is LATENTS["sigmoid2"] else (1 + std.exp()).log()
    )
    return Normal(mean, positive + 0.1)


@every
def test_kl_entropy_and_their_gradients_are_those_of_torch_distributions(latent: Latent) -> None:
    left, right = raw_of(latent, 0), raw_of(latent, 1)
    kl = latent.kl(latent.params(left), latent.params(right))
    expected = kl_divergence(reference(latent, left), reference(latent, right)).sum(-1)
    torch.testing.assert_close(kl, expected, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(kl.sum(), (left, right))
    torch.testing.assert_close(
        gradients, torch.autograd.grad(expected.sum(), (left, right)), rtol=1e-9, atol=1e-11
    )
    entropy, known = latent.entropy(latent.params(left)), reference(latent, left).entropy().sum(-1)
    torch.testing.assert_close(entropy, known, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(entropy.sum(), left),
        torch.autograd.grad(known.sum(), left),
        rtol=1e-9,
        atol=1e-11,
    )


@every
def test_kl_is_zero_and_flat_only_where_both_are_equal(latent: Latent) -> None:
    raw, other = raw_of(latent, 0), raw_of(latent, 1)
    zero = latent.kl(latent.params(raw), latent.params(raw.detach()))
    torch.testing.assert_close(zero, torch.zeros_like(zero), rtol=0, atol=1e-14)
    [gradient] = torch.autograd.grad(zero.sum(), raw)
    torch.testing.assert_close(gradient, torch.zeros_like(raw), rtol=0, atol=1e-14)
    assert (latent.kl(latent.params(raw), latent.params(other)) > 0).all()


def test_gaussian_kl_gradients_by_hand() -> None:
    """KL = log(s2/s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2 at m1 = 1, s1 = 2, m2 = 3, s2 = 4."""
    values = [
        torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.0, 2.0, 3.0, 4.0)
    ]
    kl = GaussianLatent(1, 0.0).kl(Gaussian(*values[:2]), Gaussian(*values[2:]))
    assert kl.item() == pytest.approx(math.log(2) + 8 / 32 - 0.5, abs=1e-15)
    kl.backward()
    by_hand = [-2 / 16, -1 / 2 + 2 / 16, 2 / 16, 1 / 4 - 8 / 64]
    assert [x.grad.item() for x in values] == pytest.approx(by_hand, abs=1e-15)


def test_categorical_kl_gradients_by_hand() -> None:
    """With p = (1/4, 3/4), q = (1/2, 1/2): dKL/draw_p = p (log p/q - KL) and dKL/draw_q = q - p."""
    latent = CategoricalLatent(1, 2, 0.0)
    left = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    right = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    kl = latent.kl(latent.params(left), latent.params(right))
    value = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert kl.item() == pytest.approx(value, abs=1e-15)
    kl.backward()
    assert left.grad.tolist() == pytest.approx(
        [0.25 * (math.log(0.5) - value), 0.75 * (math.log(1.5) - value)]
    )
    assert right.grad.tolist() == pytest.approx([0.25, -0.25])


def test_unimix_floors_probabilities_and_bounds_the_kl() -> None:
    """However sure the network is, no class has less than u / K: no KL exceeds G log(K / u)."""
    latent, sure = LATENTS["unimix"], torch.full((G, K), -1e4, dtype=torch.float64)
    left, right = sure.clone(), sure.clone()
    left[:, 0] = right[:, 1] = 1e4
    p, q = latent.params(left.flatten()), latent.params(right.flatten())
    torch.testing.assert_close(
        p.logits.exp()[:, 1:], torch.full((G, K - 1), 0.2 / K, dtype=torch.float64)
    )
    torch.testing.assert_close(p.logits.exp().sum(-1), torch.ones(G, dtype=torch.float64))
    high, low = 0.8 + 0.2 / K, 0.2 / K
    expected = G * (high - low) * math.log(high / low)
    assert latent.kl(p, q).item() == pytest.approx(expected, rel=1e-12)
    assert latent.kl(p, q).item() < G * math.log(K / 0.2)
    assert latent.entropy(p).item() == pytest.approx(
        -G * (high * math.log(high) + (K - 1) * low * math.log(low))
    )


def test_unimix_of_nothing_is_the_softmax_and_of_nearly_all_uniform() -> None:
    raw = raw_of(LATENTS["categorical"], 0)
    plain = LATENTS["categorical"].params(raw).logits
    torch.testing.assert_close(plain, raw.unflatten(-1, (G, K)).log_softmax(-1))
    mixed = CategoricalLatent(G, K, 1 - 1e-12).params(raw).logits
    torch.testing.assert_close(mixed, torch.full_like(mixed, -math.log(K)), rtol=0, atol=1e-9)


def test_without_unimix_a_sure_network_still_has_finite_kl_and_gradient() -> None:
    latent, raw = LATENTS["categorical"], torch.zeros(G * K)
    raw[0] = 1e3
    left, right = raw.requires_grad_(), raw.detach().roll(1).requires_grad_()
    kl = latent.kl(latent.params(left), latent.params(right)) + latent.entropy(latent.params(left))
    kl.backward()
    assert kl.isfinite() and left.grad.isfinite().all() and right.grad.isfinite().all()


@pytest.mark.parametrize("name", ["categorical", "unimix"])
def test_the_gradient_of_a_sample_is_that_of_the_probabilities(name: str) -> None:
    latent, raw = LATENTS[name], raw_of(LATENTS[name], 0)
    weight, noise = (
        torch.randn(G * K, dtype=torch.float64),
        torch.randn(2, 6, G, dtype=torch.float64),
    )
    for drawn in (noise, None):
        [through] = torch.autograd.grad(
            (latent.sample(latent.params(raw), drawn) * weight).sum(), raw
        )
        smooth = probabilities(raw, latent.unimix).flatten(-2)
        torch.testing.assert_close(through, torch.autograd.grad((smooth * weight).sum(), raw)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_exactly_one_hot_in_each_group(dtype: torch.dtype) -> None:
    latent = LATENTS["unimix"]
    raw, noise = torch.randn(500, latent.raw_size, dtype=dtype), torch.randn(500, G, dtype=dtype)
    drawn = latent.sample(latent.params(raw), noise)
    assert drawn.dtype == dtype and drawn.shape == (500, G * K)
    assert torch.equal(
        drawn.unflatten(-1, (G, K)).sort(-1).values, torch.eye(K)[-1].to(dtype).expand(500, G, K)
    )


def test_gaussian_samples_have_pathwise_gradients() -> None:
    mean = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    std = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    LATENTS["gaussian"].sample(Gaussian(mean, std), noise).sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean)) and torch.equal(std.grad, noise)


@pytest.mark.parametrize("name", ["categorical", "unimix"])
def test_sampled_frequencies_match_the_probabilities(name: str) -> None:
    """Chi-square, each group by itself; the noise is fixed, so it either holds or does not."""
    latent, count = LATENTS[name], 20_000
    params = latent.params(raw_of(latent, 4, 1))
    noise = torch.randn(count, G, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = (
        latent.sample(Categorical(params.logits.expand(count, G, K)), noise)
        .unflatten(-1, (G, K))
        .sum(0)
    )
    for observed, expected in zip(drawn.detach(), params.logits[0].detach().exp(), strict=True):
        assert chisquare(observed.numpy(), (count * expected).numpy()).pvalue > 0.01


def test_gaussian_frequencies_match_the_quantiles() -> None:
    count, latent = 20_000, LATENTS["gaussian"]
    noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    params = Gaussian(
        torch.tensor([2.0], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    )
    shares = Normal(*params).cdf(latent.sample(params, noise)).squeeze()
    assert chisquare(torch.histc(shares, 20, 0, 1).numpy()).pvalue > 0.01


def test_a_class_is_drawn_where_the_cumulated_probability_passes_that_of_the_noise() -> None:
    """Probabilities 1/4, 1/2, 1/4 are cut at the normal quartiles, -0.6745 and 0.6745.

    Extreme noise stays inside.
    """
    latent = CategoricalLatent(1, 3, 0.0)
    params = latent.params(torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64).log().expand(6, 3))
    noise = torch.tensor([[-40.0], [-0.68], [-0.67], [0.67], [0.68], [40.0]], dtype=torch.float64)
    assert latent.sample(params, noise).argmax(-1).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_standard_deviation_is_never_below_the_least() -> None:
    for name, most in (("gaussian", 50.1), ("sigmoid2", 2.1)):
        low, high = (LATENTS[name].params(torch.full((8,), raw)).std for raw in (-50.0, 50.0))
        torch.testing.assert_close(low, torch.full((4,), 0.1))
        torch.testing.assert_close(high, torch.full((4,), most))


def test_the_mode_is_the_mean_or_the_likeliest_class() -> None:
    gaussian, categorical = LATENTS["gaussian"], LATENTS["unimix"]
    params = gaussian.params(raw_of(gaussian, 0))
    assert torch.equal(gaussian.sample(params, None), params.mean)
    raw = raw_of(categorical, 0)
    chosen = categorical.sample(categorical.params(raw), None).unflatten(-1, (G, K)).argmax(-1)
    assert torch.equal(chosen, raw.unflatten(-1, (G, K)).argmax(-1))


def test_perplexity_counts_the_classes_in_use() -> None:
    latent = CategoricalLatent(2, K, 0.0)
    raw = torch.zeros(2, K, dtype=torch.float64)
    raw[1, 0] = 1e3  # one variable uses all classes, the other one
    metrics = latent.diagnostics(latent.params(raw.flatten()))
    assert metrics["perplexity"].item() == pytest.approx((K + 1) / 2)
    assert metrics["entropy"].item() == pytest.approx(math.log(K))


def test_parameters_are_float32_whatever_the_network_gave() -> None:
    for latent in LATENTS.values():
        raw = raw_of(latent, 0).detach()
        assert {part.dtype for part in latent.params(raw.bfloat16())} == {torch.float32}
        assert {part.dtype for part in latent.params(raw)} == {torch.float64}
        assert stack([latent.params(raw)] * 3, 1)[0].shape[:3] == (2, 3, 6)


def test_a_sample_of_places_stands_for_a_vector_of_ones_and_nan() -> None:
    sample = Sample(4, places=torch.tensor([[0, 3], [1, 4]]))
    expected = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, math.nan]])
    torch.testing.assert_close(sample.vector(), expected, equal_nan=True)
    twice = Sample.cat([sample, sample])
    assert twice.places.tolist() == [[0, 3], [1, 4]] * 2
    torch.testing.assert_close(twice.vector(), torch.cat([expected, expected]), equal_nan=True)


def test_a_sample_of_values_is_its_vector() -> None:
    sample = Sample(3, value=torch.randn(2, 3))
    assert sample.vector() is sample.value
    assert torch.equal(Sample.cat([sample, sample]).vector(), sample.value.repeat(2, 1))
