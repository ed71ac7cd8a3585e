"""The recurrent state-space model (PlaNet, arXiv 1811.04551, section 3).

    deter_t = GRU(deter_{t-1}, ReLU(W [stoch_{t-1}, action_t]))      action_t led to observation t, see data/episode.py
    prior     p(stoch_t | deter_t)
    posterior q(stoch_t | deter_t, embed_t)

Sampling takes its noise as a tensor: the same noise gives the same states, batched or alone.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from planet_rssm.config import ModelSettings
from planet_rssm.types import State
from planet_rssm.world_model.latents import Gaussian, GaussianLatent
from planet_rssm.world_model.networks import mlp


class RSSM(nn.Module):
    """Gaussian RSSM with a PyTorch GRU cell."""

    def __init__(self, settings: ModelSettings, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.deter_size, self.stoch_size = settings.deter, settings.stoch
        self.latent = GaussianLatent(settings.stoch, settings.min_std)
        self.inputs = nn.Linear(settings.stoch + action_size, settings.hidden)
        self.cell = nn.GRUCell(settings.hidden, settings.deter)
        self.prior_net = mlp(settings.deter, settings.hidden, 1, self.latent.raw_size)
        self.posterior_net = mlp(settings.deter + embed_size, settings.hidden, 1, self.latent.raw_size)

    def initial_state(self, batch: int) -> State:
        """Return the zero state of `batch` rows."""
        like = self.inputs.weight
        return State(like.new_zeros(batch, self.deter_size), like.new_zeros(batch, self.stoch_size))

    def prior(self, deter: Tensor) -> Gaussian:
        """Return what is expected before the observation, for `deter` of any leading shape [*B, D]."""
        return self.latent.params(self.prior_net(deter))

    def observe_step(
        self, state: State, action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[State, Gaussian]:
        """Advance by `action` and take in the observation it led to.

        Args:
            state: the previous posterior state, [B, D] and [B, S].
            action: [B, A], the action that led to this observation.
            embed: [B, E], the encoded observation.
            is_first: bool [B], rows that forget `state` and `action` first.
            noise: standard normal [B, S].

        Returns:
            The new state, and the posterior it was sampled from.
        """
        weight, projected = self._split_posterior(embed)
        return self._observe_projected(state, action, weight, projected, is_first, noise)

    def imagine_step(self, state: State, action: Tensor, noise: Tensor) -> State:
        """Advance by `action` [B, A] without an observation; `noise` is standard normal [B, S]."""
        deter = self._recur(state, action)
        return State(deter, self.latent.sample(self.prior(deter), noise))

    def observe(
        self, embed: Tensor, action: Tensor, is_first: Tensor, noise: Tensor, state: State | None = None
    ) -> tuple[State, Gaussian]:
        """Filter a batch of sequences: `observe_step` for each t, from `state` or zeros.

        Args:
            embed: [B, T, E].
            action: [B, T, A].
            is_first: bool [B, T].
            noise: standard normal [B, T, S].
            state: the state before the first step.

        Returns:
            States [B, T, ...] and the posteriors [B, T, S] that they were sampled from.
        """
        state = self.initial_state(len(embed)) if state is None else state
        weight, projected = self._split_posterior(embed)  # one product over all steps, outside the recurrence
        states, posteriors = [], []
        for t in range(embed.shape[1]):
            inputs = weight, projected[:, t], is_first[:, t], noise[:, t]
            state, posterior = self._observe_projected(state, action[:, t], *inputs)
            states.append(state)
            posteriors.append(posterior)
        stacked = State(torch.stack([s.deter for s in states], 1), torch.stack([s.stoch for s in states], 1))
        means, stds = [p.mean for p in posteriors], [p.std for p in posteriors]
        return stacked, Gaussian(torch.stack(means, 1), torch.stack(stds, 1))

    def imagine(self, state: State, actions: Tensor, noise: Tensor) -> State:
        """Follow `actions` [B, H, A] by `imagine_step`s with `noise` [B, H, S]; return states [B, H, ...]."""
        states = []
        for h in range(actions.shape[1]):
            state = self.imagine_step(state, actions[:, h], noise[:, h])
            states.append(state)
        return State(torch.stack([s.deter for s in states], 1), torch.stack([s.stoch for s in states], 1))

    def _recur(self, state: State, action: Tensor) -> Tensor:
        return self.cell(relu(self.inputs(torch.cat([state.stoch, action], -1))), state.deter)

    def _split_posterior(self, embed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior's first layer as its columns for `deter`, and the rest of it applied to `embed`."""
        first = self.posterior_net[0]
        assert isinstance(first, nn.Linear)
        deter, rest = first.weight.split([self.deter_size, embed.shape[-1]], 1)
        return deter, linear(embed, rest, first.bias)

    def _observe_projected(
        self, state: State, action: Tensor, weight: Tensor, projected: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[State, Gaussian]:
        keep = (~is_first).to(action.dtype)[:, None]
        deter = self._recur(State(state.deter * keep, state.stoch * keep), action * keep)
        hidden = relu(linear(deter, weight) + projected)
        posterior = self.latent.params(self.posterior_net[2](hidden))
        return State(deter, self.latent.sample(posterior, noise)), posterior
