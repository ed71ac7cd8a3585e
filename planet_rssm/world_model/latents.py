"""The stochastic part of the state: distributions, sampling from noise, divergences.

Only this file knows which kind of latent a model has. Parameters are NamedTuples of tensors, opaque
elsewhere; `stack` and `stopped` work on any of them. A sample is a vector everywhere, and on the
fast path a `Sample`, which may stand for one. All noise is standard normal [*B, noise_size], and
None asks for the mode.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from planet_rssm.base.plugins import build, naming_errors
from planet_rssm.config import RSSMSettings

P = TypeVar("P", bound=tuple[Tensor, ...])


class Gaussian(NamedTuple):
    """Diagonal Gaussian parameters: `mean` [*B, S] and `std` [*B, S] > 0."""

    mean: Tensor
    std: Tensor


class Categorical(NamedTuple):
    """Independent categorical variables: `logits` [*B, G, K], log probabilities of K classes."""

    logits: Tensor


class Sample(NamedTuple):
    """A latent sample of M rows, without gradient, in the form that is made fastest.

    It is a vector of `size` numbers, or it names the places of the ones in a vector of zeros.
    """

    size: int
    value: Tensor | None = None  # [M, size]
    places: Tensor | None = None  # int64 [M, ones], 0 to size - 1; `size` stands for a NaN

    def vector(self) -> Tensor:
        """Return the vector [M, size]; a NaN among the places becomes one."""
        if self.value is not None:
            return self.value
        assert self.places is not None
        places, device = self.places, self.places.device
        ones = torch.ones(places.shape, device=device)
        ones.masked_fill_(places == self.size, torch.nan)
        zeros = torch.zeros(*places.shape[:-1], self.size, device=device)
        return zeros.scatter_add_(-1, places.clamp(max=self.size - 1), ones)

    @classmethod
    def cat(cls, samples: "Sequence[Sample]") -> "Sample":
        """Return the rows of all `samples`, which have one form."""
        size, values, places = zip(*samples, strict=True)
        if samples[0].places is None:
            return cls(size[0], value=torch.cat(values))
        return cls(size[0], places=torch.cat(places))


class Latent(ABC, Generic[P]):
    """A family of distributions over the stochastic state [*B, size]."""

    size: int  # of a sample, flat
    raw_size: int  # of the network output that becomes parameters
    noise_size: int  # of the standard normal noise that one sample takes

    @abstractmethod
    def params(self, raw: Tensor) -> P:
        """Turn a network's output [*B, raw_size] into parameters.

        They are in float32 at least, whatever the autocast.
        """

    @abstractmethod
    def sample(self, params: P, noise: Tensor | None) -> Tensor:
        """Return a sample [*B, size] of `noise` [*B, noise_size], or the mode.

        It is differentiable in the parameters.
        """

    def pick(self, raw: Tensor, noise: Tensor | None) -> Sample:
        """Return `sample(params(raw), noise)` of `raw` [M, raw_size] in its fastest form."""
        return Sample(self.size, value=self.sample(self.params(raw), noise))

    @abstractmethod
    def kl(self, left: P, right: P) -> Tensor:
        """Return KL(left || right) summed over the dimensions, [*B], in nats."""

    @abstractmethod
    def entropy(self, params: P) -> Tensor:
        """Return the entropy summed over the dimensions, [*B], in nats.

        That of a continuous latent is differential.
        """

    def diagnostics(self, params: P) -> dict[str, Tensor]:
        """Return what is worth a metric, [*B] by name."""
        return {"entropy": self.entropy(params)}


class GaussianLatent(Latent[Gaussian]):
    """Diagonal Gaussian of `size` dimensions.

    std = softplus(raw) + min_std (PlaNet, appendix A), or with `sigmoid2` 2 sigmoid(raw / 2) +
    min_std (DreamerV2). With `tanh5` the mean stays inside [-5, 5].
    """

    def __init__(
        self, size: int, min_std: float, std: str = "softplus", mean: str = "none"
    ) -> None:
        self.size = self.noise_size = size
        self.raw_size = 2 * size
        self.min_std = min_std
        positive: dict[str, Callable[[Tensor], Tensor]] = {
            "softplus": softplus,
            "sigmoid2": _sigmoid2,
        }
        self._positive = positive[std]
        self._bounded = {"none": _same, "tanh5": _tanh5}[mean]

    def params(self, raw: Tensor) -> Gaussian:
        """Split into mean and raw standard deviation; see `Latent.params`."""
        mean, std = _precise(raw).chunk(2, -1)
        # A softplus over rows that do not lie together takes ten times as long on a CPU.
        return Gaussian(self._bounded(mean), self._positive(std.contiguous()) + self.min_std)

    def sample(self, params: Gaussian, noise: Tensor | None) -> Tensor:
        """Return mean + std * noise, or the mean."""
        return params.mean if noise is None else params.mean + params.std * noise

    def pick(self, raw: Tensor, noise: Tensor | None) -> Sample:
        """Do what `Latent.pick` does, in few passes."""
        mean, std = _precise(raw).chunk(2, -1)
        mean = self._bounded(mean)
        if noise is not None:
            std = std.contiguous() if std.device.type == "cpu" else std  # as `params`
            mean = torch.addcmul(mean, self._positive(std).add_(self.min_std), noise)
        return Sample(self.size, value=mean)

    def kl(self, left: Gaussian, right: Gaussian) -> Tensor:
        """Return the closed form of two Gaussians; see `Latent.kl`."""
        ratio = (left.std / right.std).square()
        distance = ((left.mean - right.mean) / right.std).square()
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)

    def entropy(self, params: Gaussian) -> Tensor:
        """Return the differential entropy; see `Latent.entropy`."""
        return (params.std.log() + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)


class CategoricalLatent(Latent[Categorical]):
    """`groups` one-hot variables of `classes` classes (DreamerV2).

    A sample is flattened to [*B, groups * classes].
    With `unimix` u, probabilities are (1 - u) softmax(raw) + u / classes (DreamerV3), in samples,
    KL and entropy alike. The gradient of a sample is that of the probabilities (straight-through):
    onehot + p - stop_gradient(p).
    """

    def __init__(self, groups: int, classes: int, unimix: float) -> None:
        self.groups = groups
        self.classes = classes
        self.unimix = unimix
        self.size = self.raw_size = groups * classes
        self.noise_size = groups

    def params(self, raw: Tensor) -> Categorical:
        """Normalise each group's classes and mix in the uniform; see `Latent.params`."""
        logits = _precise(raw).unflatten(-1, (self.groups, self.classes)).log_softmax(-1)
        if self.unimix:
            logits = ((1 - self.unimix) * logits.exp() + self.unimix / self.classes).log()
        return Categorical(logits)

    def sample(self, params: Categorical, noise: Tensor | None) -> Tensor:
        """Return one class a group, by the inverse of the cumulated probabilities at Phi(noise).

        Without noise it is the likeliest.
        """
        probs = params.logits.exp()
        if noise is None:
            chosen = probs.argmax(-1)
        else:
            below = probs.detach().cumsum(-1)[..., :-1]  # the last bound is 1, despite rounding
            chosen = (torch.special.ndtr(noise)[..., None] > below).sum(-1)
        hard = one_hot(chosen, self.classes).to(probs.dtype)
        return (hard + (probs - probs.detach())).flatten(-2)  # in this order exactly one-hot

    def pick(self, raw: Tensor, noise: Tensor | None) -> Sample:
        """Return the places [M, groups] of the ones; see `Latent.pick`."""
        probs = _precise(raw).unflatten(-1, (self.groups, self.classes)).softmax(-1)
        if noise is None:
            chosen = probs.argmax(-1)
        else:
            below = probs.cumsum(-1)
            if self.unimix:
                steps = torch.arange(1, self.classes + 1, device=raw.device, dtype=below.dtype)
                below = below.mul_(1 - self.unimix).add_(steps, alpha=self.unimix / self.classes)
            drawn = torch.special.ndtr(noise)[..., None].to(below.dtype)
            chosen = torch.searchsorted(below, drawn).squeeze(-1).clamp_(max=self.classes - 1)
        chosen.add_(torch.arange(0, self.size, self.classes, device=raw.device))
        # softmax: where one class is NaN all are
        places = chosen.masked_fill_(probs[..., 0].isnan(), self.size)
        return Sample(self.size, places=places)

    def kl(self, left: Categorical, right: Categorical) -> Tensor:
        """Return the sum over groups of sum_k p_k (log p_k - log q_k); see `Latent.kl`."""
        return (left.logits.exp() * (left.logits - right.logits)).sum((-2, -1))

    def entropy(self, params: Categorical) -> Tensor:
        """Return the sum over groups; see `Latent.entropy`."""
        return -(params.logits.exp() * params.logits).sum((-2, -1))

    def diagnostics(self, params: Categorical) -> dict[str, Tensor]:
        """Return the entropy and the perplexity: how many classes a variable uses, 1 to all."""
        each = -(params.logits.exp() * params.logits).sum(-1)
        return {"entropy": each.sum(-1), "perplexity": each.exp().mean(-1)}


# by the names that config.LATENTS allows; any other is a class of the user's
KINDS: dict[str, Callable[[RSSMSettings], Latent[Any]]] = {
    "gaussian": lambda own: GaussianLatent(own.stoch, own.min_std, own.std, own.mean),
    "categorical": lambda own: CategoricalLatent(own.stoch, own.classes, own.unimix),
}


def latent_from_settings(settings: RSSMSettings) -> Latent[Any]:
    """Return the latent that the settings name.

    Raises:
        PlanetError: a class of the user's that cannot be made, or that does not do what `Latent`
            says.
    """
    if settings.latent in KINDS:
        return KINDS[settings.latent](settings)
    latent: Latent[Any] = build("rssm.latent", settings.latent, Latent, settings)  # type: ignore[type-abstract]
    with naming_errors("rssm.latent", settings.latent):
        _check(latent)
    return latent


def _check(latent: Latent[Any]) -> None:
    """Use every method once on two rows, and compare the shapes with what `Latent` says."""
    params = latent.params(torch.zeros(2, latent.raw_size))
    if not (isinstance(params, tuple) and hasattr(params, "_make")):
        raise TypeError(
            f"params() returns a {type(params).__name__}, must be a NamedTuple of tensors"
        )
    drawn = 2, latent.size
    row = (2,)
    results = {
        "sample()": (latent.sample(params, torch.zeros(2, latent.noise_size)), drawn),
        "sample() without noise": (latent.sample(params, None), drawn),
        "kl()": (latent.kl(params, params), row),
        "entropy()": (latent.entropy(params), row),
    }
    for what, (value, shape) in results.items():
        if value.shape != shape:
            raise TypeError(
                f"{what} returns shape {list(value.shape)} for 2 rows, must be {list(shape)}"
            )


def stack(params: Sequence[P], dim: int) -> P:
    """Stack parameters of one kind along a new axis."""
    kind = type(params[0])
    return kind._make(torch.stack(parts, dim) for parts in zip(*params, strict=True))  # type: ignore[attr-defined]


def at_step(params: P, t: int) -> P:
    """Return the parameters of step `t` of parameters [B, T, ...]."""
    return type(params)._make(part[:, t] for part in params)  # type: ignore[attr-defined]


def stopped(params: P) -> P:
    """Return the parameters without their gradient."""
    return type(params)._make(part.detach() for part in params)  # type: ignore[attr-defined]


def _precise(raw: Tensor) -> Tensor:
    return raw if raw.dtype == torch.float64 else raw.float()


def _same(raw: Tensor) -> Tensor:
    return raw


def _tanh5(raw: Tensor) -> Tensor:
    return 5 * torch.tanh(raw / 5)


def _sigmoid2(raw: Tensor) -> Tensor:
    return 2 * torch.sigmoid(raw / 2)
