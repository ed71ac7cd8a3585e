"""What the precision of a search costs: the value of its plans on a trained model.

It stands beside the value of float32's plans and of random ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from planet_rssm import config
from planet_rssm.base.device import generator
from planet_rssm.behavior import ActorPlanner, Behavior
from planet_rssm.config import PlannerSettings
from planet_rssm.planners import Objective, planner_from_settings
from planet_rssm.planners.choices import one_hots
from planet_rssm.types import Plan, Planner, State
from planet_rssm.world_model import ModelDynamics, WorldModel

STATES = 64  # that the value of a plan is averaged over
DRAWS = 32  # of the model's noise, common to all plans of a state, by which it is valued
STEPS = 50  # random actions that reach a state, at most


@torch.no_grad()
def value_gaps(
    model: WorldModel, settings: PlannerSettings, precisions: Sequence[str]
) -> dict[str, float] | None:
    """Return (V_float32 - V_fast) / (V_float32 - V_random) by precision.

    V is the mean over STATES of the return of the plan, by the model in float32 over DRAWS of its
    noise. Those, and the noise that the plans are searched with, are the same for all. V_float32 is
    of the plain path. None where V_float32 is not above V_random.
    """
    where = next(model.parameters()).device
    states = states_of(model, STATES)
    slow = settings.model_copy(update={"fast": False})
    plans = {"float32": _plans(model, slow, "float32", states)} | {
        f"fast {name}": _plans(model, settings, name, states) for name in precisions
    }
    plans["random"] = _random_actions(model, (STATES, settings.horizon), generator(1, where))
    dynamics = ModelDynamics(model)
    rng = generator(2, where)
    values = dict.fromkeys(plans, 0.0)
    shape = dynamics.noise_shape(1, DRAWS, settings.horizon)
    for row in range(STATES):
        state = State(*(leaf[row : row + 1] for leaf in states))
        noise = None if shape is None else torch.randn(shape, generator=rng, device=where)
        for name, plan in plans.items():
            actions = plan[row].expand(1, DRAWS, -1, -1)
            values[name] += (
                float(Objective()(dynamics.rollout(state, actions, noise)).mean()) / STATES
            )
    best, random = values["float32"], values["random"]
    if not best > random:
        return None
    return {name: (best - values[f"fast {name}"]) / (best - random) for name in precisions}


def planner_for(model: WorldModel, settings: PlannerSettings) -> Planner[State, Any]:
    """Return the planner of these settings for the model; an actor is untrained."""
    if settings.name != "actor":
        return planner_from_settings(settings, model.spec.action_size, model.spec.groups)
    behavior = Behavior(config.load("planet", ["behavior=v3"]), model.spec, model.rssm.feat_size)
    return ActorPlanner(settings, behavior.to(next(model.parameters()).device), model.rssm.feat)


def decider(
    model: WorldModel, settings: PlannerSettings, precision: str, batch: int
) -> Callable[[State], tuple[Plan, Any]]:
    """Return our decision from a cold start."""
    where = next(model.parameters()).device
    planner = planner_for(model, settings)
    prepared = planner.prepare(ModelDynamics(model), Objective(), precision)
    carry, first = planner.initial(batch, where), torch.ones(batch, dtype=torch.bool, device=where)
    rng = generator(0, where)
    return lambda state: prepared.plan(state, carry, first, rng)


@torch.no_grad()
def states_of(model: WorldModel, batch: int) -> State:
    """Return states [batch, ...] of the model, each after another number of random actions."""
    where = next(model.parameters()).device
    rng, state = generator(0, where), model.rssm.initial_state(batch)
    steps = torch.linspace(1, STEPS, batch, device=where).round()[:, None]
    for step in range(STEPS):
        action = _random_actions(model, (batch,), rng)
        noise = torch.randn(batch, model.rssm.noise_size, generator=rng, device=where)
        after = model.rssm.imagine_step(state, action, noise)
        state = State(
            *(torch.where(step < steps, new, old) for new, old in zip(after, state, strict=True))
        )
    return state


def _plans(model: WorldModel, settings: PlannerSettings, precision: str, states: State) -> Tensor:
    """Return the sequences [STATES, H, A] decided on, each state's with other noise."""
    decide = decider(model, settings, precision, 1)
    return torch.cat(
        [
            decide(State(*(leaf[row : row + 1] for leaf in states)))[0].sequence
            for row in range(STATES)
        ]
    )


def _random_actions(model: WorldModel, lead: tuple[int, ...], rng: torch.Generator) -> Tensor:
    groups, where = model.spec.groups, rng.device
    if not groups:
        return 2 * torch.rand((*lead, model.spec.action_size), generator=rng, device=where) - 1
    drawn = [torch.randint(size, lead, generator=rng, device=where) for size in groups]
    return one_hots(torch.stack(drawn, -1), groups, torch.float32)
