"""The actor in the planner's place, and beside it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from planet_rssm.behavior.learning import Behavior
from planet_rssm.planners.noise import Rng
from planet_rssm.types import Dynamics, Plan, Planner, State
from planet_rssm.world_model import WorldModel

if TYPE_CHECKING:
    from planet_rssm.config import PlannerSettings


class ActorPlanner(Planner[tuple[()]]):
    """Decides by the actor: one pass of its network, no search. With `planner.act_by=draw` its action is drawn.

    A plan is one step long, its value is the critic's. Nothing has to be made ready, and it follows
    an actor that goes on learning.
    """

    populations = (1,)  # one candidate in one round
    settings: "PlannerSettings"

    def __init__(
        self, settings: "PlannerSettings", behavior: Behavior, feat: Callable[[State], Tensor]
    ) -> None:
        """Take the settings, of which `act_by` counts, the networks, and what they read of a state."""
        self.settings = settings.model_copy(update={"horizon": 1})
        self._behavior, self._feat = behavior, feat

    def initial(self, batch: int, device: torch.device | None = None) -> tuple[()]:
        """Return nothing: an actor remembers nothing."""
        return ()

    @torch.no_grad()
    def decide(self, state: State, generator: Rng = None) -> Plan:
        """Return the actions [B, A] of states [B, ...], in [-1, 1] or one-hot by group."""
        feat = self._feat(state)
        with torch.autocast(
            feat.device.type, enabled=False
        ):  # too little work for another precision to be worth it
            policy = self._behavior.actor(feat)
            value = self._behavior.critic(feat)
        action = policy.mode
        if self.settings.act_by == "draw":
            noise = normal((len(feat), self._behavior.actor.noise_size), generator, feat.device)
            action = policy.sample(noise).clamp(-1, 1)
        return Plan(action, action[:, None], value, {"entropy": policy.entropy})

    def plan(  # type: ignore[override]
        self,
        dynamics: Dynamics[Any] | None,
        objective: object,
        state: State,
        carry: tuple[()],
        is_first: Tensor,
        generator: Rng = None,
        **_: object,
    ) -> tuple[Plan, tuple[()]]:
        """Decide; nothing but state and generator counts."""
        return self.decide(state, generator), carry

    def prepare(
        self, dynamics: Dynamics[Any], objective: object, precision: str = "float32"
    ) -> "ActorSession":
        """Return what an agent decides with."""
        return ActorSession(self)


class ActorSession:
    """An actor where an agent expects a planner's session."""

    def __init__(self, planner: ActorPlanner) -> None:
        self.planner = planner

    def plan(
        self, state: State, carry: tuple[()], is_first: Tensor, generator: Rng = None, **_: object
    ) -> tuple[Plan, tuple[()]]:
        """Decide; see `ActorPlanner.plan`."""
        return self.planner.decide(state, generator), carry

    def refresh(self) -> None:
        """Do nothing: there are no copies of weights."""


class ActorProposals:
    """Sequences that the actor would act by, imagined in the model: candidates for a planner."""

    def __init__(self, model: WorldModel, behavior: Behavior, count: int, horizon: int) -> None:
        """Take the model, and how many sequences of which length are wanted."""
        self._model, self._actor, self.count, self.horizon = model, behavior.actor, count, horizon

    @torch.no_grad()
    def __call__(self, state: State, generator: Rng = None) -> Tensor:
        """Return sequences [B, K, H, A] from states [B, ...]: the first by modes, the others drawn."""
        batch, rssm, size = len(state.deter), self._model.rssm, self._actor.noise_size
        state = State(*(part.repeat_interleave(self.count, 0) for part in state))
        shape = (batch, self.count * self.horizon * (size + rssm.noise_size))
        noise = normal(shape, generator, state.deter.device).view(
            batch * self.count, self.horizon, -1
        )
        first = torch.arange(len(noise), device=noise.device) % self.count == 0
        actions = []
        for drawn in noise.unbind(1):
            policy = self._actor(rssm.feat(state))
            action = torch.where(first[:, None], policy.mode, policy.sample(drawn[:, :size])).clamp(
                -1, 1
            )
            state = rssm.imagine_step(
                state, action, drawn[:, size:] if rssm.settings.plan_by == "sample" else None
            )
            actions.append(action)
        return torch.stack(actions, 1).unflatten(0, (batch, self.count))


def normal(shape: tuple[int, int], generator: Rng, device: torch.device) -> Tensor:
    """Return standard normal draws [B, n]; of several generators each draws for a row."""
    if isinstance(generator, Sequence):
        return torch.cat(
            [torch.randn(1, shape[1], generator=one, device=device) for one in generator]
        )
    return torch.randn(shape, generator=generator, device=device)


class CriticValue:
    """What the critic says of the last states of a plan: an objective's `terminal_value`."""

    def __init__(self, model: WorldModel, behavior: Behavior) -> None:
        self._model, self._critic = model, behavior.critic

    def __call__(self, state: State) -> Tensor:
        """Return the values [M] of states [M, ...]."""
        return self._critic(self._model.rssm.feat(state))
