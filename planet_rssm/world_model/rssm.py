"""The recurrent state-space model (PlaNet, arXiv 1811.04551, section 3).

    deter_t = core(deter_{t-1}, stoch_{t-1}, action_t)
    prior     p(stoch_t | deter_t)
    posterior q(stoch_t | deter_t, embed_t)

action_t led to observation t, see data/episode.py.
Sampling takes its noise as a tensor: the same noise gives the same states, batched or alone.
"""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from planet_rssm.config import RSSMSettings
from planet_rssm.types import State
from planet_rssm.world_model.cells import GRUCell, GRUCore, core_from_settings
from planet_rssm.world_model.latents import (
    Gaussian,
    GaussianLatent,
    at_step,
    latent_from_settings,
    stack,
)
from planet_rssm.world_model.networks import mlp
from planet_rssm.world_model.plain import is_plain
from planet_rssm.world_model.products import fastest, linear
from planet_rssm.world_model.recurrence import gathered, gathered_linear
from planet_rssm.world_model.scan import Scan, ScanWeights


class RSSM(nn.Module):
    """Every state-space model of the family; the latent (latents.py) and the core (cells.py) vary.

    `kind` is the ablation of PlaNet's figure 4. `rssm` has both paths. `ssm` is stochastic only:
    `deter` carries nothing from step to step, and the heads do not read it. `rnn` is deterministic
    only: every latent is its mode, and no noise is used.
    """

    def __init__(self, settings: RSSMSettings, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.latent = latent_from_settings(settings)
        self.deter_size = settings.deter
        self.stoch_size = self.latent.size
        self.feat_size = self.stoch_size + (0 if settings.kind == "ssm" else self.deter_size)
        self.core = core_from_settings(settings, self.stoch_size, action_size)
        self.prior_net = mlp(
            settings.deter,
            settings.hidden,
            settings.prior_layers,
            self.latent.raw_size,
            settings.act,
            settings.norm,
        )
        self.posterior_net = mlp(
            settings.deter + embed_size,
            settings.hidden,
            settings.posterior_layers,
            self.latent.raw_size,
            settings.act,
            settings.norm,
        )
        if settings.initial == "learned":
            self.initial_deter = nn.Parameter(torch.zeros(settings.deter))

    @property
    def noise_size(self) -> int:
        """How many standard normal draws one latent sample takes."""
        return self.latent.noise_size

    def feat(self, state: State) -> Tensor:
        """Return what the heads read of states [*B, ...], [*B, feat_size]."""
        if self.settings.kind == "ssm":
            return state.stoch
        return torch.cat([state.deter, state.stoch], -1)

    def initial_state(self, batch: int) -> State:
        """Return the state of `batch` rows at the beginning.

        It is zeros, or learned: tanh of a parameter, and the mode of its prior.
        """
        like = next(self.parameters())
        if self.settings.initial == "zeros":
            return State(
                like.new_zeros(batch, self.deter_size), like.new_zeros(batch, self.stoch_size)
            )
        deter = torch.tanh(self.initial_deter).expand(batch, -1)
        return State(deter, self.latent.sample(self.prior(deter), None))

    def prior(self, deter: Tensor) -> tuple[Tensor, ...]:
        """Return the prior of `deter` [*B, D]: what is expected before the observation."""
        return self.latent.params(self.prior_net(deter))

    def observe_step(
        self, state: State, action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor | None
    ) -> tuple[State, tuple[Tensor, ...]]:
        """Advance by `action`, and filter the observation that it led to.

        Args:
            state: the previous posterior state, [B, D] and [B, S].
            action: [B, A], the action that led to this observation.
            embed: [B, E], the encoded observation.
            is_first: bool [B], rows that forget `state` and `action` first.
            noise: standard normal [B, noise_size]; None takes the mode.

        Returns:
            The new state, and the posterior it was sampled from.
        """
        drawn = None if noise is None else noise[:, None]
        states, posteriors = self.observe(
            embed[:, None], action[:, None], is_first[:, None], drawn, state
        )
        return State(states.deter[:, 0], states.stoch[:, 0]), at_step(posteriors, 0)

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None) -> State:
        """Advance by `action` [B, A] without an observation.

        `noise` is [B, noise_size]; None takes the mode.
        """
        deter = self.core(state.deter, state.stoch, action)
        return State(deter, self._sample(self.prior(deter), noise))

    def observe(
        self,
        embed: Tensor,
        action: Tensor,
        is_first: Tensor,
        noise: Tensor | None,
        state: State | None = None,
    ) -> tuple[State, tuple[Tensor, ...]]:
        """Filter a batch of sequences, step by step, from `state` or the initial one.

        Args:
            embed: [B, T, E].
            action: [B, T, A].
            is_first: bool [B, T].
            noise: standard normal [B, T, noise_size]; None takes modes.
            state: the state before the first step.

        Returns:
            States [B, T, ...] and the posteriors [B, T, ...] that they were sampled from.
        """
        if state is None and noise is not None and torch.is_grad_enabled() and self._scans:
            columns, of_embed = self._split_posterior(embed.transpose(0, 1))
            return self._scan(columns, of_embed, action, is_first, noise)
        state = self.initial_state(len(embed)) if state is None else state
        # One product over all steps, outside the recurrence.
        weight, of_embed = self._split_posterior(embed)
        states, posteriors = [], []
        learning = torch.is_grad_enabled()
        with gathered(self.core, self.posterior_net) if learning else nullcontext():
            gather = learning and weight.requires_grad
            of_deter = gathered_linear(weight, None) if gather else partial(linear, weight=weight)
            for t in range(embed.shape[1]):
                state = self.forget(state, is_first[:, t])
                taken = action[:, t] * (~is_first[:, t]).to(action.dtype)[:, None]
                deter = self.core(state.deter, state.stoch, taken)
                raw = of_deter(deter) + of_embed[:, t]
                for layer in list(self.posterior_net)[1:]:
                    raw = layer(raw)
                posterior = self.latent.params(raw)
                drawn = None if noise is None else noise[:, t]
                state = State(deter, self._sample(posterior, drawn))
                states.append(state)
                posteriors.append(posterior)
        return _stack_states(states), stack(posteriors, 1)

    @property
    def _scans(self) -> bool:
        """Whether `scan` is asked for and knows this model, on a CPU."""
        own, latent, cell = self.settings, self.latent, getattr(self.core, "cell", None)
        return (
            type(latent) is GaussianLatent
            and type(cell) is GRUCell
            and (own.kind, own.std, own.mean) == ("rssm", "softplus", "none")
            and (own.act, own.norm, own.initial) == ("relu", "none", "zeros")
            and (own.recurrent_depth, own.input_layers, own.posterior_layers) == (1, 1, 1)
            and cell.weight_hh.device.type == "cpu"
            and not is_plain()
        )

    def _scan(
        self,
        of_deter: Tensor,
        of_embed: Tensor,
        action: Tensor,
        is_first: Tensor,
        noise: Tensor,
    ) -> tuple[State, Gaussian]:
        """Return what `observe` does from zeros, by one function over all steps.

        `of_deter` [P, D] are the columns for deter of the posterior's first layer, `of_embed`
        [T, B, P] is what the rest of it makes of the embeddings.
        """
        core = self.core
        assert isinstance(core, GRUCore) and isinstance(core.cell, GRUCell)
        reader, raw, cell = core.inputs[0], self.posterior_net[2], core.cell
        assert isinstance(reader, nn.Linear) and isinstance(raw, nn.Linear)
        of_stoch, of_taken = reader.weight.split([self.stoch_size, action.shape[-1]], 1)
        keep = (~is_first.t()).to(noise.dtype)[..., None]
        of_action = linear(action.transpose(0, 1) * keep, of_taken, reader.bias)
        weights = ScanWeights(
            of_stoch.contiguous(), cell.weight_ih, cell.bias_ih, cell.weight_hh, cell.bias_hh,
            of_deter, raw.weight, raw.bias,
        )  # fmt: skip
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            weights = ScanWeights(*(weight.to(dtype) for weight in weights))
        matrices = of_stoch, cell.weight_ih, cell.weight_hh, of_deter, raw.weight
        by = [*map(partial(fastest, len(noise)), matrices)]
        drawn = noise.transpose(0, 1).contiguous()
        steps = Scan.apply(of_action, of_embed, keep, drawn, self.settings.min_std, by, *weights)
        deter, stoch, mean, std = (part.transpose(0, 1).contiguous() for part in steps)
        return State(deter, stoch), Gaussian(mean, std)

    def imagine(self, state: State, actions: Tensor, noise: Tensor | None) -> State:
        """Follow `actions` [B, H, A] by `imagine_step`s, and return states [B, H, ...].

        `noise` is [B, H, noise_size]; None takes modes.
        """
        states = []
        for h in range(actions.shape[1]):
            state = self.imagine_step(state, actions[:, h], None if noise is None else noise[:, h])
            states.append(state)
        return _stack_states(states)

    def forget(self, state: State, is_first: Tensor) -> State:
        """Return `state` [B, ...] with the initial one in the rows where `is_first` [B] is set."""
        if self.settings.initial == "zeros":
            keep = (~is_first).to(state.deter.dtype)[:, None]
            return State(state.deter * keep, state.stoch * keep)
        fresh = self.initial_state(len(is_first))
        return State(
            *(
                torch.where(is_first[:, None], new, old)
                for new, old in zip(fresh, state, strict=True)
            )
        )

    def _sample(self, params: tuple[Tensor, ...], noise: Tensor | None) -> Tensor:
        return self.latent.sample(params, None if self.settings.kind == "rnn" else noise)

    def _split_posterior(self, embed: Tensor) -> tuple[Tensor, Tensor]:
        """Split the posterior's first layer.

        Return its columns for `deter`, and the rest of it applied to `embed`.
        """
        first = self.posterior_net[0]
        assert isinstance(first, nn.Linear)
        deter, rest = first.weight.split([self.deter_size, embed.shape[-1]], 1)
        # the copy: products of every step read it, and are slow with gaps between rows
        return deter.contiguous(), linear(embed, rest, first.bias)


def _stack_states(states: list[State]) -> State:
    return State(
        torch.stack([s.deter for s in states], 1), torch.stack([s.stoch for s in states], 1)
    )
