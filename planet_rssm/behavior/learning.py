"""What the actor and the critic learn from: one imagination, from every posterior state of a batch.

    s_0 -- a_0 --> s_1, r_0, d_0 -- a_1 --> ...  s_H        s_0 a posterior of the batch, the rest imagined
    R_h = r_h + d_h ((1 - trace) v(s_{h+1}) + trace R_{h+1})          lambda-returns, d the discount
    w_h = d_0 ... d_{h-1}                                             weights: how likely it is to get there
                                                                      (`reached`; see `_weights` for
                                                                      the others)

The actor's loss never touches the model. The critic's touches it only on the batch itself
(`replay_value`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

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
        choice = "reinforce" if spec.groups else "dynamics"
        self.share = {"dynamics": 1.0, "reinforce": 0.0, "mix": own.mix}[
            choice if own.objective == "auto" else own.objective
        ]
        ends = settings.model.continue_discount if spec.terminates else 1.0
        self.discount = own.discount / ends  # the continue head's answers hold its own
        self.actor = Actor(feat, spec.action_size, spec.groups, own, settings.model)
        self.critic = Critic(feat, own, settings.model)
        self.register_buffer("bounds", torch.zeros(2))

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters that learn by part; the slow copy is none of them."""
        parts = self.named_children()
        return {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad)
            for name, part in parts
        }

    def draw(
        self, rows: int, latent: int, generator: torch.Generator, device: torch.device
    ) -> ImaginationNoise:
        """Draw the noise of an imagination from so many states whose samples take `latent` draws; moved to `device`."""
        where, horizon = generator.device, self.settings.horizon
        sizes = (self.actor.noise_size, latent)
        return ImaginationNoise(
            *(
                torch.randn(rows, horizon, size, generator=generator, device=where).to(device)
                for size in sizes
            )
        )

    def loss(
        self, model: WorldModel, batch: Batch, context: Context, noise: ImaginationNoise
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the loss to minimise beside the model's, metrics, and what `settle` takes after the step.

        Args:
            model: the world model, which `context` comes from.
            batch: chunks [B, T].
            context: what the model made of them.
            noise: of B * T rows.
        """
        starts = State(*(part.flatten(0, 1) for part in context.states))
        ends = (
            batch.is_terminal
            if self.settings.weights == "reached"
            else torch.zeros_like(batch.is_terminal)
        )
        alive = (batch.mask & ~ends).flatten()  # padding and ends are no beginnings
        learned = self.imagined(model, starts, alive, noise)
        loss, metrics = self.replayed(
            model, batch, context, learned.returns[:, 0].view_as(batch.reward)
        )
        return learned.loss + loss, learned.metrics | metrics, learned.bounds

    def imagined(
        self, model: WorldModel, starts: State, alive: Tensor, noise: ImaginationNoise
    ) -> Learned:
        """Return the losses of actor and critic in imagination from `starts` [M, ...]; rows not `alive` [M] count 0."""
        dreamed = imagine(model, self.actor, starts, noise, gradient=self.share > 0)
        discount = self.discount * dreamed.goes_on
        read = self.critic.raw(dreamed.feat.detach())
        following, ahead = dreamed.feat[:, 1:], read.detach()[:, 1:]
        value = self._target_values(following, ahead)
        returns = lambda_return(dreamed.reward, value, discount, self.settings.trace)
        with torch.no_grad():
            passed = self._weights(model, starts, alive, discount)
            bounds = range_after(self.bounds, returns, alive)
        here = self._own_values(dreamed.feat[:, :-1].detach(), read[:, :-1].detach())
        policy = self.actor.distribution(dreamed.raw)
        scale = (
            scale_of(bounds)
            if self.settings.normalise == "percentiles"
            else torch.ones_like(bounds[0])
        )
        objective = passed * self._objective(policy, dreamed, returns, here, scale)
        if not self.settings.weigh_entropy:
            objective = objective + alive[:, None] * self.settings.entropy * policy.entropy
        actor = -objective.sum()
        critic = (
            passed * self._critic_loss(read[:, :-1], returns, dreamed.feat[:, :-1].detach())
        ).sum()
        steps = alive.sum() * passed.shape[1]
        metrics = self._told(policy, dreamed, returns, here, alive) | {
            "behavior/advantage_scale": scale
        }
        metrics |= {"loss/actor": actor / steps, "loss/critic": critic / steps}
        return Learned(
            (actor + critic) / steps,
            {k: v.detach() for k, v in metrics.items()},
            returns.detach(),
            bounds,
        )

    def replayed(
        self, model: WorldModel, batch: Batch, context: Context, ahead: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critic's loss on the batch itself, 0 without `replay_value`, and how far off its values are.

        `ahead` [B, T] are returns imagined from each of its states, to which the real rewards lead.
        """
        weight = self.settings.replay_value
        feat = model.rssm.feat(context.states)[:, :-1]
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            read = self.critic.raw(feat)
        real = batch.mask[:, 1:]  # whether there is a step from here
        goes_on = torch.cat([real[:, 1:], torch.zeros_like(real[:, :1])], 1).to(ahead)
        discount = self.settings.discount * (~batch.is_terminal[:, 1:]).to(ahead)
        returns = lambda_return(
            batch.reward[:, 1:], ahead[:, 1:], discount, self.settings.trace * goes_on
        )
        error = (self.critic.mean(read.detach()) - returns).abs()
        metrics = {
            "behavior/return_replayed": masked_mean(returns, real),
            "behavior/value_error": masked_mean(error, real),
        }
        if not weight:
            return ahead.new_zeros(()), metrics
        loss = weight * masked_mean(self._critic_loss(read, returns, feat.detach()), real)
        return loss, metrics | {"loss/replay_value": loss.detach()}

    @torch.no_grad()
    def settle(self, updates: int, bounds: Tensor) -> None:
        """Take in what the loss of update number `updates` (from 1) found, now that its step was taken."""
        self.bounds.copy_(bounds)
        self.critic.follow(updates)

    def _target_values(self, feat: Tensor, read: Tensor) -> Tensor:
        """Return the values [M, H] that returns are made of, with a gradient to the features if those have one."""
        slow = self.settings.slow == "target"
        if not feat.requires_grad:
            return self._own_values(feat, read)
        with frozen(self.critic):
            return self.critic.slow_value(feat) if slow else self.critic(feat)

    @torch.no_grad()
    def _own_values(self, feat: Tensor, read: Tensor) -> Tensor:
        """Return the same without a gradient; `read` is what the critic has already said of the features."""
        return (
            self.critic.slow_value(feat)
            if self.settings.slow == "target"
            else self.critic.mean(read)
        )

    @torch.no_grad()
    def _weights(self, model: WorldModel, starts: State, alive: Tensor, discount: Tensor) -> Tensor:
        """Return how much the step from each imagined state counts, [M, H], of the `discount` [M, H] after it.

        reached: 1, 0 at a real end, then d_0 ... d_{h-1}, as DreamerV3's first release. head: the
        first is what the continue head says of the start, as DreamerV3 has it today. late: 1, then
        the head's of the start and so on, a step behind, as NM512's dreamerv3-torch.
        """
        first, later = alive[:, None].to(discount), discount
        if self.settings.weights != "reached":
            start = model.predict_continue(starts)[:, None].to(discount)
            head = self.settings.weights == "head"
            first, later = (
                (first * start, later)
                if head
                else (first, torch.cat([self.discount * start, later], 1))
            )
        return torch.cat([first, later], 1)[:, : discount.shape[1]].cumprod(1)

    def _objective(
        self,
        policy: ActionDistribution,
        dreamed: Imagined,
        returns: Tensor,
        here: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Return what the actor maximises at each step, [M, H], but for an entropy that is not weighed."""
        objective = (self.settings.entropy if self.settings.weigh_entropy else 0.0) * policy.entropy
        if self.share > 0:
            gain = returns
            if self.settings.subtract_value:
                with frozen(self.critic):
                    gain = gain - self.critic(dreamed.feat[:, :-1])
            objective = objective + self.share * gain / scale
        if self.share < 1:
            advantage = (returns.detach() - here) / scale
            objective = (
                objective + (1 - self.share) * policy.log_prob(dreamed.action.detach()) * advantage
            )
        return objective

    def _critic_loss(self, read: Tensor, returns: Tensor, feat: Tensor) -> Tensor:
        """Return the critic's loss [M, H] towards `returns`, and towards its slow copy if that regularises."""
        if self.settings.slow != "regulariser":
            return self.critic.loss(read, returns)
        with torch.no_grad():
            slow = self.critic.slow_value(feat)
        return self.critic.loss(read, returns, slow)

    @torch.no_grad()
    def _told(
        self,
        policy: ActionDistribution,
        dreamed: Imagined,
        returns: Tensor,
        values: Tensor,
        alive: Tensor,
    ) -> dict[str, Tensor]:
        clipped = (dreamed.action.abs() > 1 + 1e-6).to(returns).mean(-1)
        each = {
            "return_imagined": returns,
            "value": values,
            "entropy": policy.entropy,
            "clipped_actions": clipped,
        }
        counted = alive[:, None].expand_as(returns)
        return {f"behavior/{name}": masked_mean(value, counted) for name, value in each.items()}


def check_objective(settings: Settings, spec: EnvSpec) -> None:
    """Refuse what no actor can be trained by.

    Raises:
        PlanetError: the objective is the dynamics' gradient and actions are choices, which have
            none.
    """
    if (
        spec.groups
        and settings.behavior.name != "none"
        and settings.behavior.objective == "dynamics"
    ):
        raise PlanetError(
            f"behavior.objective = 'dynamics': {spec.id} has {' and '.join(map(str, spec.groups))} choices, which have "
            "no gradient; train with -s behavior=v3, or -s behavior.objective=reinforce"
        )


def untrained_behavior(settings: Settings, model: WorldModel) -> Behavior | None:
    """Return the actor and critic as a run of these settings starts with them, on the model's device; None: none."""
    if settings.behavior.name == "none":
        return None

    def make() -> Behavior:
        torch.manual_seed(stream_seed(settings.seed, Stream.INIT, 1))
        return Behavior(settings, model.spec, model.rssm.feat_size)

    with torch.random.fork_rng(devices=[]):  # as untrained_model does
        behavior = affordable(make, torch.device("cpu"), "actor and critic")
    return behavior.to(next(model.parameters()).device)
