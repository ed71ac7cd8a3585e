"""What the actor and the critic learn from: one imagination, from the posteriors of a batch.

    s_0 -- a_0 --> s_1, r_0, d_0 -- a_1 --> ...  s_H     s_0 a posterior, the rest imagined
    R_h = r_h + d_h ((1 - lam) v(s_{h+1}) + lam R_{h+1})          lambda-returns, d the discount
    w_h = d_0 ... d_{h-1}                                         weights, see `_weights`

lam is the setting `behavior.trace`. The actor's loss never touches the model. The critic's touches
it only on the batch itself (`replay_value`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from planet_rssm import ranks
from planet_rssm.base.device import affordable
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior.actions import ActionDistribution
from planet_rssm.behavior.imagination import ImaginationNoise, Imagined, frozen, imagine
from planet_rssm.behavior.networks import Actor, Critic
from planet_rssm.behavior.returns import lambda_return, range_after, scale_of
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Batch, State
from planet_rssm.world_model import Context, WorldModel
from planet_rssm.world_model.losses import masked_mean


class Learned(NamedTuple):
    """What one imagination is worth."""

    loss: Tensor  # a scalar: the actor's and the critic's
    metrics: dict[str, Tensor]  # detached scalars by name
    returns: Tensor  # [M, H], without gradient
    bounds: Tensor  # [2], the range of returns as it is now; see `Behavior.settle`


class Behavior(nn.Module):
    """An actor and a critic, and how they learn in a world model's imagination."""

    bounds: Tensor  # [2], the range of returns, moving slowly

    def __init__(self, settings: Settings, spec: EnvSpec, feat: int) -> None:
        """Build both for actions as in `spec` and states of `feat` features.

        Raises:
            PlanetError: see `check_objective`.
        """
        super().__init__()
        check_objective(settings, spec)
        own = self.settings = settings.behavior
        objective = own.objective
        if objective == "auto":
            objective = "reinforce" if spec.groups else "dynamics"
        # of the dynamics' gradient in the actor's objective
        self.share = {"dynamics": 1.0, "reinforce": 0.0, "mix": own.mix}[objective]
        # the continue head's probabilities include its own discount
        included = settings.model.continue_discount if spec.terminates else 1.0
        self.discount = own.discount / included
        self.actor = Actor(feat, spec.action_size, spec.groups, own, settings.model)
        self.critic = Critic(feat, own, settings.model)
        self.register_buffer("bounds", torch.zeros(2))

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters that learn by part, without the slow copy."""
        return {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad)
            for name, part in self.named_children()
        }

    def begin_at(self, rows: int) -> int:
        """Return at how many of a batch's `rows` states imaginations begin: at least 1."""
        return max(1, round(self.settings.starts * rows))

    def draw(
        self, rows: int, latent: int, generator: torch.Generator, device: torch.device
    ) -> ImaginationNoise:
        """Draw the noise of an imagination for a batch of `rows` states, moved to `device`.

        It begins at `behavior.starts` of them. A state's sample takes `latent` draws.
        """
        count = self.begin_at(rows)

        def draw(size: int) -> Tensor:
            shape = (count, self.settings.horizon, size)
            return torch.randn(shape, generator=generator, device=generator.device).to(device)

        noise = ImaginationNoise(action=draw(self.actor.noise_size), latent=draw(latent))
        if count == rows:
            return noise
        drawn = torch.rand(rows, generator=generator, device=generator.device)
        return noise._replace(start=drawn.topk(count).indices.to(device))

    def loss(
        self, model: WorldModel, batch: Batch, context: Context, noise: ImaginationNoise
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the loss to minimise, metrics, and the bounds that `settle` takes after the step.

        Args:
            model: the world model, which `context` comes from.
            batch: chunks [B, T].
            context: what the model made of them.
            noise: what `draw` drew for B * T rows.
        """
        states = State(*(part.flatten(0, 1) for part in context.states))
        alive = batch.mask  # padding is no beginning
        if self.settings.weights == "reached":
            alive = alive & ~batch.is_terminal  # nor is an end
        learned = self.imagined(model, states, alive.flatten(), noise)
        bootstrap = learned.returns[:, 0]
        if noise.start is not None:
            with torch.no_grad():  # where nothing was imagined from, the critic's value
                feat = model.rssm.feat(states)
                value = self._values(feat, self.critic.raw(feat)).to(bootstrap)
            bootstrap = value.index_copy(0, noise.start, bootstrap)
        loss, metrics = self.replayed(model, batch, context, bootstrap.view_as(batch.reward))
        return learned.loss + loss, learned.metrics | metrics, learned.bounds

    def imagined(
        self, model: WorldModel, starts: State, alive: Tensor, noise: ImaginationNoise
    ) -> Learned:
        """Return the losses of actor and critic in imagination from `starts` [M, ...].

        Rows that are not `alive` [M] count 0. Where the noise names some rows, it is from those.
        """
        if noise.start is not None:
            starts = State(*(part[noise.start] for part in starts))
            alive = alive[noise.start]
        imagined = imagine(model, self.actor, starts, noise, gradient=self.share > 0)
        discount = self.discount * imagined.continues
        feat = imagined.feat.detach()
        # Of all states, also where the first or the last is not asked for: a part would be a copy.
        raw = self.critic.raw(feat)
        values = self._values(imagined.feat, raw.detach())
        returns = lambda_return(imagined.reward, values[:, 1:], discount, self.settings.trace)
        with torch.no_grad():
            weight = self._weights(model, starts, alive, discount)
            bounds = range_after(self.bounds, returns, alive)
            normalised = self.settings.normalise == "percentiles"
            scale = scale_of(bounds) if normalised else torch.ones_like(bounds[0])
        value = values.detach()[:, :-1]
        policy = self.actor.distribution(imagined.raw)
        objective = weight * self._objective(policy, imagined, returns, value, scale)
        if not self.settings.weigh_entropy:
            objective = objective + alive[:, None] * self.settings.entropy * policy.entropy
        steps = ranks.count(alive) * weight.shape[1]
        actor_loss = -objective.sum()
        targets = torch.nn.functional.pad(returns.detach(), (0, 1))
        critic_loss = (weight * self._critic_loss(raw, targets, feat)[:, :-1]).sum()
        metrics = self._metrics(policy, imagined, returns, value, alive)
        metrics["behavior/advantage_scale"] = ranks.share_of(scale)
        metrics["loss/actor"] = (actor_loss / steps).detach()
        metrics["loss/critic"] = (critic_loss / steps).detach()
        loss = (actor_loss + critic_loss) / steps
        return Learned(loss, metrics, returns.detach(), bounds)

    def replayed(
        self, model: WorldModel, batch: Batch, context: Context, bootstrap: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss on the batch itself, 0 without `replay_value`, and metrics.

        `bootstrap` [B, T] are returns imagined from each of its states, to which the real rewards
        lead.
        """
        scale = self.settings.replay_value
        feat = model.rssm.feat(context.states)[:, :-1]
        with torch.set_grad_enabled(scale > 0 and torch.is_grad_enabled()):
            raw = self.critic.raw(feat)
        real = batch.mask[:, 1:]  # whether there is a step from here
        followed = torch.cat([real[:, 1:], torch.zeros_like(real[:, :1])], 1)
        discount = self.settings.discount * (~batch.is_terminal[:, 1:]).to(bootstrap)
        lam = self.settings.trace * followed.to(bootstrap)
        returns = lambda_return(batch.reward[:, 1:], bootstrap[:, 1:], discount, lam)
        error = (self.critic.mean(raw.detach()) - returns).abs()
        metrics = {
            "behavior/return_replayed": masked_mean(returns, real),
            "behavior/value_error": masked_mean(error, real),
        }
        if not scale:
            return bootstrap.new_zeros(()), metrics
        loss = scale * masked_mean(self._critic_loss(raw, returns, feat.detach()), real)
        return loss, metrics | {"loss/replay_value": loss.detach()}

    @torch.no_grad()
    def settle(self, updates: int, bounds: Tensor) -> None:
        """Take in the `bounds` of the loss of update number `updates` (from 1) after its step."""
        self.bounds.copy_(bounds)
        self.critic.follow(updates)

    @torch.no_grad()
    def settle_where(self, finite: Tensor, share: Tensor, bounds: Tensor) -> None:
        """Do what `settle` does where `finite` [] is set, without asking the host.

        `share` [] is what `Critic.share_after` returned.
        """
        self.bounds.copy_(torch.where(finite, bounds, self.bounds))
        self.critic.follow_by(share * finite)

    def _values(self, feat: Tensor, raw: Tensor) -> Tensor:
        """Return the values [*B] of features [*B, F] that returns are made of.

        They have a gradient to the features if those have one; `raw` is the critic's output there.
        """
        slow = self.settings.slow == "target"
        if feat.requires_grad:
            with frozen(self.critic):
                return self.critic.slow_value(feat) if slow else self.critic(feat)
        with torch.no_grad():
            return self.critic.slow_value(feat) if slow else self.critic.mean(raw)

    @torch.no_grad()
    def _weights(self, model: WorldModel, starts: State, alive: Tensor, discount: Tensor) -> Tensor:
        """Return the weight [M, H] of the step from each imagined state, whose `discount` follows.

        reached: 1, 0 at a real end, then d_0 ... d_{h-1}, as DreamerV3's first release. head: the
        first is the continue head's probability at the start, as DreamerV3 has it today. late: 1,
        then the head's of the start and so on, a step behind, as NM512's dreamerv3-torch.
        """
        first = alive[:, None].to(discount)
        later = discount
        if self.settings.weights != "reached":
            start = model.predict_continue(starts)[:, None].to(discount)
            if self.settings.weights == "head":
                first = first * start
            else:
                later = torch.cat([self.discount * start, discount], 1)
        return torch.cat([first, later], 1)[:, : discount.shape[1]].cumprod(1)

    def _objective(
        self,
        policy: ActionDistribution,
        imagined: Imagined,
        returns: Tensor,
        value: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Return what the actor maximises at each step, [M, H], before the weights.

        An entropy that is not weighed is left out.
        """
        entropy = self.settings.entropy if self.settings.weigh_entropy else 0.0
        objective = entropy * policy.entropy
        if self.share > 0:
            gain = returns
            if self.settings.subtract_value:
                with frozen(self.critic):
                    gain = gain - self.critic(imagined.feat[:, :-1])
            objective = objective + self.share * gain / scale
        if self.share < 1:
            advantage = (returns.detach() - value) / scale
            log_prob = policy.log_prob(imagined.action.detach())
            objective = objective + (1 - self.share) * log_prob * advantage
        return objective

    def _critic_loss(self, raw: Tensor, returns: Tensor, feat: Tensor) -> Tensor:
        """Return the critic's loss [M, H] to `returns`, also to a slow copy that regularises."""
        if self.settings.slow != "regulariser":
            return self.critic.loss(raw, returns)
        with torch.no_grad():
            slow = self.critic.slow_value(feat)
        return self.critic.loss(raw, returns, slow)

    @torch.no_grad()
    def _metrics(
        self,
        policy: ActionDistribution,
        imagined: Imagined,
        returns: Tensor,
        value: Tensor,
        alive: Tensor,
    ) -> dict[str, Tensor]:
        clipped = (imagined.action.abs() > 1 + 1e-6).to(returns).mean(-1)
        by_step = {
            "return_imagined": returns,
            "value": value,
            "entropy": policy.entropy,
            "clipped_actions": clipped,
        }
        counted = alive[:, None].expand_as(returns)
        return {f"behavior/{name}": masked_mean(part, counted) for name, part in by_step.items()}


def check_objective(settings: Settings, spec: EnvSpec) -> None:
    """Refuse an objective by which no actor can be trained.

    Raises:
        PlanetError: the objective is the dynamics' gradient and actions are choices, which have
            none.
    """
    behavior = settings.behavior
    if spec.groups and behavior.name != "none" and behavior.objective == "dynamics":
        raise PlanetError(
            f"behavior.objective = 'dynamics': {spec.id} has "
            f"{' and '.join(map(str, spec.groups))} choices, which have no gradient; train with "
            "-s behavior=v3, or -s behavior.objective=reinforce"
        )


def untrained_behavior(settings: Settings, model: WorldModel) -> Behavior | None:
    """Return the actor and critic that a run of these settings starts with; None: it has none.

    They are on the model's device.
    """
    if settings.behavior.name == "none":
        return None

    def make() -> Behavior:
        torch.manual_seed(stream_seed(settings.seed, Stream.INIT, 1))
        return Behavior(settings, model.spec, model.rssm.feat_size)

    with torch.random.fork_rng(devices=[]):  # as untrained_model does
        behavior = affordable(make, torch.device("cpu"), "actor and critic")
    return behavior.to(next(model.parameters()).device)
