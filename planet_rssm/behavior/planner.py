"""The actor in the planner's place, and beside it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from planet_rssm.behavior.learning import Behavior
from planet_rssm.planners.noise import normal
from planet_rssm.types import (
    Dynamics,
    ObjectiveFunction,
    Plan,
    Planner,
    PreparedPlanner,
    Rng,
    S,
    State,
)
from planet_rssm.world_model import WorldModel

if TYPE_CHECKING:
    from planet_rssm.config import PlannerSettings


class ActorPlanner(Planner[S, tuple[()]]):
    """Decides by the actor: one pass of its network, no search.

    With `planner.act_by=draw` its action is drawn. A plan is one step long, its value is the
    critic's. Nothing has to be made ready, and it follows an actor that goes on learning.
    """

    horizon = 1

    def __init__(
        self, settings: "PlannerSettings", behavior: Behavior, feat: Callable[[S], Tensor]
    ) -> None:
        """Take the settings, of which `act_by` counts, the networks, and what they read."""
        self.draws = settings.act_by == "draw"
        self.noise_size = behavior.actor.noise_size  # normal draws of an action, if it is drawn
        self.behavior = behavior
        self._feat = feat

    def initial(self, batch: int, device: torch.device | None = None) -> tuple[()]:
        """Return nothing: an actor remembers nothing."""
        return ()

    def plan(
        self,
        dynamics: Dynamics[S],
        objective: ObjectiveFunction,
        state: S,
        carry: tuple[()],
        is_first: Tensor,
        generator: Rng = None,
        *,
        executed: int = 1,
        rounds: int | None = None,
        proposals: Tensor | None = None,
        previous: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Plan, tuple[()]]:
        """Return the actions [B, A] in states [B, ...]; nothing but state and draws counts.

        They lie in [-1, 1], or are one-hot by group. Where they are drawn, `noise` [B, noise_size]
        takes the place of what the generator would draw.
        """
        with torch.no_grad():
            feat = self._feat(state)
            # too little work for another precision to be worth it
            with torch.autocast(feat.device.type, enabled=False):
                policy = self.behavior.actor(feat)
                value = self.behavior.critic(feat)
            action = policy.mode
            if self.draws:
                if noise is None:
                    noise = normal((len(feat), self.noise_size), generator, feat.device)
                action = policy.sample(noise).clamp(-1, 1)
            return Plan(action, action[:, None], value, {"entropy": policy.entropy}), carry

    def prepare(
        self, dynamics: Dynamics[S], objective: ObjectiveFunction, precision: str = "float32"
    ) -> PreparedPlanner[S, tuple[()]]:
        """Bind to a model, of which an actor makes no copies."""
        return PreparedPlanner(self, dynamics, objective)


class ActorProposals:
    """Sequences that the actor would act by, imagined in the model: candidates for a planner."""

    def __init__(self, model: WorldModel, behavior: Behavior, count: int, horizon: int) -> None:
        """Take the model, and how many sequences of which length are wanted."""
        self._model = model
        self._actor = behavior.actor
        self.count = count
        self.horizon = horizon

    @torch.no_grad()
    def __call__(self, state: State, generator: Rng = None) -> Tensor:
        """Return sequences [B, K, H, A] from states [B, ...]: one by modes, the others drawn."""
        rssm = self._model.rssm
        batch = len(state.deter)
        size = self._actor.noise_size
        state = State(*(part.repeat_interleave(self.count, 0) for part in state))
        shape = (batch, self.count * self.horizon * (size + rssm.noise_size))
        drawn = normal(shape, generator, state.deter.device)
        noise = drawn.view(batch * self.count, self.horizon, -1)
        first = torch.arange(len(noise), device=noise.device) % self.count == 0
        actions = []
        for step in noise.unbind(1):
            policy = self._actor(rssm.feat(state))
            action = torch.where(first[:, None], policy.mode, policy.sample(step[:, :size]))
            action = action.clamp(-1, 1)
            latent = step[:, size:] if rssm.settings.plan_by == "sample" else None
            state = rssm.imagine_step(state, action, latent)
            actions.append(action)
        return torch.stack(actions, 1).unflatten(0, (batch, self.count))


class CriticValue:
    """The critic's value of the last states of a plan: an objective's `terminal_value`."""

    def __init__(self, model: WorldModel, behavior: Behavior) -> None:
        self._model = model
        self.behavior = behavior

    def __call__(self, state: State) -> Tensor:
        """Return the values [M] of states [M, ...]."""
        return self.behavior.critic(self._model.rssm.feat(state))
