"""What an agent is made of: the networks of a checkpoint, and the planner of its settings."""

from dataclasses import dataclass
from typing import Any

import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import (
    ActorPlanner,
    ActorProposals,
    Behavior,
    CriticValue,
    untrained_behavior,
)
from planet_rssm.config import PlannerSettings, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, SearchPlanner, planner_from_settings
from planet_rssm.runs.checkpoint import Checkpoint, fill
from planet_rssm.types import Planner, State
from planet_rssm.world_model import WorldModel, model_for


@dataclass(frozen=True)
class Decider:
    """How an agent decides."""

    planner: Planner[State, Any]
    objective: Objective | None = None  # None: the sum of the predicted rewards
    proposals: ActorProposals | None = None


def decider_for(
    settings: Settings, spec: EnvSpec, model: WorldModel, behavior: Behavior | None
) -> Decider:
    """Return the planner of `settings`, what a plan is worth to it, and who proposes.

    Raises:
        PlanetError: there is no such planner, or it has no place for proposals.
    """
    chosen = settings.planner
    if chosen.name == "actor" and behavior is not None:
        return Decider(ActorPlanner(chosen, behavior, model.rssm.feat))
    planner = planner_from_settings(chosen, spec.action_size, spec.groups)
    objective = Objective(chosen.discount)
    if chosen.terminal_value == "critic" and behavior is not None:
        discount = min(chosen.discount, behavior.discount)
        objective = Objective(discount, CriticValue(model, behavior))
    proposals = None
    if chosen.proposals == "actor" and behavior is not None:
        count = _proposal_count(chosen, planner)
        proposals = ActorProposals(model, behavior, count, chosen.horizon)
    return Decider(planner, objective, proposals)


def _proposal_count(settings: PlannerSettings, planner: Planner[State, Any]) -> int:
    if not isinstance(planner, SearchPlanner):
        raise PlanetError(
            f"planner.proposals = 'actor': {settings.name} is no search, it has no candidates; set "
            "planner.proposals=none"
        )
    most = min(planner.populations) - planner.reserved
    if most < 1:
        counts = f"planner.candidates = {settings.candidates}, planner.reuse = {settings.reuse}"
        raise PlanetError(
            f"planner.proposals = 'actor': {settings.name} has no place for them ({counts}); raise "
            "the first"
        )
    return min(most, max(1, round(settings.proposal_share * planner.populations[0])))


def model_of(checkpoint: Checkpoint) -> WorldModel:
    """Build the world model of a checkpoint and fill in its weights, on the CPU."""
    model = model_for(checkpoint.settings, checkpoint.spec, checkpoint.name)
    fill(model, checkpoint.model, f"{checkpoint.name}: model")
    return model


def behavior_of(checkpoint: Checkpoint, model: WorldModel) -> Behavior | None:
    """Build the actor and critic of a checkpoint for its `model`; None: it has none."""
    behavior = untrained_behavior(checkpoint.settings, model)
    if behavior is not None:
        fill(behavior, checkpoint.behavior, f"{checkpoint.name}: behavior")
    return behavior


def parts_of(checkpoint: Checkpoint, device: torch.device) -> tuple[WorldModel, Behavior | None]:
    """Build the networks of a checkpoint, on `device`: the world model, and behaviour if any."""
    model = model_of(checkpoint).to(device)
    return model, behavior_of(checkpoint, model)
