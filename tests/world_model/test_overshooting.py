"""Latent overshooting beside a slow double loop written from PlaNet's equation 7, in float64."""

import pytest
import torch
from torch import Tensor

from planet_rssm.config import KLSettings, RSSMSettings
from planet_rssm.types import Batch, State
from planet_rssm.world_model import RSSM
from planet_rssm.world_model.losses import overshooting

B, T, A, E = 3, 6, 2, 5
LATENTS = {
    "gaussian": {"stoch": 3},
    "categorical": {"latent": "categorical", "stoch": 2, "classes": 3, "unimix": 0.01},
}


class Case:
    """Posteriors of three chunks: complete, padded after 3 steps, with two episodes."""

    def __init__(self, latent: str, distance: int, **kind: str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.rssm = RSSM(
                RSSMSettings(**LATENTS[latent], **kind, deter=6, hidden=7), A, E
            ).double()
            self.embed, self.action = torch.randn(B, T, E).double(), torch.randn(B, T, A).double()
            self.drawn = torch.randn(B, T, self.rssm.noise_size).double()
            self.noise = torch.randn(distance, B, T, self.rssm.noise_size).double()
        self.mask = torch.ones(B, T, dtype=torch.bool)
        self.is_first = torch.zeros(B, T, dtype=torch.bool)
        self.mask[1, 3:] = False
        self.is_first[:, 0] = self.is_first[2, 4] = True
        self.states, self.posterior = self.rssm.observe(
            self.embed, self.action, self.is_first, self.drawn
        )

    def fast(self, settings: KLSettings) -> Tensor:
        nothing = torch.zeros(B, T)
        batch = Batch({}, self.action, nothing, self.is_first, nothing.bool(), self.mask)
        return overshooting(self.rssm, self.states, self.posterior, batch, self.noise, settings)

    def slow(self, distance: int, free_nats: float) -> Tensor:
        """Return the mean over d of the means over t of max(free, KL).

        For d = 2 ... D it is KL(sg q(s_t) || p(s_t | s_{t-d} ~ q, a_{t-d+1..t})).

        The mean is over the t whose d steps all lie in one episode of one chunk, before its
        padding.
        """
        latent, means = self.rssm.latent, []
        for d in range(2, distance + 1):
            values = []
            for b in range(B):
                for t in range(d, T):
                    steps = range(t - d + 1, t + 1)
                    if all(self.mask[b, step] and not self.is_first[b, step] for step in steps):
                        values.append(self.one(latent, b, t, d).clamp(min=free_nats))
            if values:
                means.append(torch.stack(values).mean())
            else:
                means.append(torch.zeros((), dtype=torch.float64))
        return torch.stack(means).mean()

    def one(self, latent: object, b: int, t: int, d: int) -> Tensor:
        start = t - d
        state = State(self.states.deter[b, start][None], self.states.stoch[b, start][None])
        for step in range(1, d):
            state = self.rssm.imagine_step(
                state, self.action[b, start + step][None], self.noise[step - 1, b, start][None]
            )
        deter = self.rssm.core(state.deter, state.stoch, self.action[b, t][None])
        target = type(self.posterior)._make(part[b, t][None].detach() for part in self.posterior)
        return latent.kl(target, self.rssm.prior(deter))[0]


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("distance", [2, 3, 5])
@pytest.mark.parametrize("free", [False, True])
def test_value_and_gradient_are_the_double_loops(latent: str, distance: int, free: bool) -> None:
    case = Case(latent, distance)
    free_nats = (
        case.slow(distance, 0.0).item() if free else 0.0
    )  # some steps are below it, some above
    fast = case.fast(KLSettings(overshooting=distance, free_nats=free_nats))
    slow = case.slow(distance, free_nats)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    weights = [*case.rssm.parameters()]
    gradients = [
        torch.autograd.grad(
            loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for loss in (fast, slow)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert any(gradient.any() for gradient in gradients[0])


@pytest.mark.parametrize("kind", ["ssm", "rnn"])
def test_the_ablations_overshoot_too(kind: str) -> None:
    case = Case("gaussian", 3, kind=kind)
    torch.testing.assert_close(
        case.fast(KLSettings(overshooting=3, free_nats=0)), case.slow(3, 0.0)
    )


def test_distances_beyond_the_chunk_are_left_out() -> None:
    case = Case("gaussian", 50)
    near, far = (case.fast(KLSettings(overshooting=d, free_nats=0)) for d in (T - 1, 50))
    assert torch.equal(near, far)


def test_targets_learn_nothing_from_it() -> None:
    """Only the posterior's sample at the start has a gradient; the target posterior has none."""
    case = Case("gaussian", 2)
    leaf = type(case.posterior)._make(part.detach().requires_grad_() for part in case.posterior)
    case.posterior = leaf
    case.fast(KLSettings(overshooting=2, free_nats=0)).backward()
    assert leaf.mean.grad is None and leaf.std.grad is None


def test_nothing_to_overshoot_costs_nothing() -> None:
    case = Case("gaussian", 3)
    case.is_first = torch.ones_like(case.is_first)
    assert case.fast(KLSettings(overshooting=3, free_nats=0)).item() == 0
