"""The actor and the critic: networks that read the features of a state."""

import copy

import torch
from torch import Tensor, nn

from planet_rssm.behavior.actions import NUMBERS, ActionDistribution, OneHot
from planet_rssm.config import BehaviorSettings, ModelSettings
from planet_rssm.planners.choices import Groups
from planet_rssm.world_model.heads import BINS, TwohotEncoder
from planet_rssm.world_model.losses import half_squared_error
from planet_rssm.world_model.networks import initialise, mlp, precise, scale_last


class Actor(nn.Module):
    """Features [*B, F] to a distribution over actions [*B, A]."""

    def __init__(
        self,
        feat: int,
        action_size: int,
        groups: Groups,
        settings: BehaviorSettings,
        model: ModelSettings,
    ) -> None:
        """Build the network, with activation, norm and initial weights of the model's heads."""
        super().__init__()
        self.settings = settings
        self.groups = groups
        self.noise_size = len(groups) or action_size  # normal draws that one action takes
        outputs = action_size if groups else 2 * action_size
        self.net = mlp(feat, settings.units, settings.actor_layers, outputs, model.act, model.norm)
        initialise(self, model.init)
        scale_last(self.net, settings.actor_outscale)

    def forward(self, feat: Tensor) -> ActionDistribution:
        """Return what actions are drawn from in states of the features [*B, F]."""
        return self.distribution(self.raw(feat))

    def raw(self, feat: Tensor) -> Tensor:
        """Return the network's output, [*B, raw_size]."""
        return precise(self.net(feat))

    def distribution(self, raw: Tensor) -> ActionDistribution:
        """Return what `forward` does, of the network's output."""
        if self.groups:
            return OneHot(raw, self.settings.unimix, self.groups)
        return NUMBERS[self.settings.action](raw)


class Critic(nn.Module):
    """Features [*B, F] to the expected return, and a slow copy that follows.

    The network's output is the mean of a unit Gaussian, or logits of `TwohotEncoder`'s bins.
    """

    def __init__(self, feat: int, settings: BehaviorSettings, model: ModelSettings) -> None:
        """Build the networks, with activation, norm and initial weights of the model's heads."""
        super().__init__()
        self.settings = settings
        self.encoder = None
        if settings.critic != "gaussian":
            symlog = settings.critic == "symlog_twohot"
            self.encoder = TwohotEncoder(space="symlog" if symlog else "value")
        outputs = 1 if self.encoder is None else BINS
        self.net = mlp(feat, settings.units, settings.critic_layers, outputs, model.act, model.norm)
        initialise(self, model.init)
        scale_last(self.net, settings.critic_outscale)
        self.slow = None
        if settings.slow != "none":
            self.slow = copy.deepcopy(self.net).requires_grad_(False)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the values [*B] of states of the features [*B, F]."""
        return self.mean(self.raw(feat))

    def raw(self, feat: Tensor) -> Tensor:
        """Return the network's output, [*B, raw_size]."""
        return precise(self.net(feat))

    def slow_value(self, feat: Tensor) -> Tensor:
        """Return the values [*B] by the slow copy; without one by the critic itself."""
        return self(feat) if self.slow is None else self.mean(precise(self.slow(feat)))

    def mean(self, raw: Tensor) -> Tensor:
        """Return the values [*B] of the network's output."""
        return raw.squeeze(-1) if self.encoder is None else self.encoder.decode(raw)

    def loss(self, raw: Tensor, *targets: Tensor) -> Tensor:
        """Return the negative log likelihood [*B] of `targets` [*B], summed.

        No gradient reaches the targets.
        """
        targets = tuple(target.detach() for target in targets)
        if self.encoder is None:
            mean = self.mean(raw)
            return torch.stack([half_squared_error(mean, target, 0) for target in targets]).sum(0)
        places, shares = zip(*(self.encoder.pair(target) for target in targets), strict=True)
        log_probs = raw.log_softmax(-1).gather(-1, torch.cat(places, -1))
        return -(log_probs * torch.cat(shares, -1)).sum(-1)

    def share_after(self, updates: int) -> float:
        """Return by how much the slow copy moves: `slow_share`, every `slow_every` updates."""
        return 0.0 if updates % self.settings.slow_every else self.settings.slow_share

    def follow(self, updates: int) -> None:
        """Move the slow copy after update number `updates` (from 1)."""
        if share := self.share_after(updates):
            self.follow_by(share)

    @torch.no_grad()
    def follow_by(self, share: float | Tensor) -> None:
        """Move the slow copy, if there is one, by a `share` of the way."""
        if self.slow is not None:
            for slow, own in zip(self.slow.parameters(), self.net.parameters(), strict=True):
                slow.lerp_(own, share)
