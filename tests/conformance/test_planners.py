"""Every planner and dynamics of the package passes the checks that other libraries run on theirs.

And each check reports what is broken in a line: every contract is broken once here.
"""

from dataclasses import replace

import pytest
import torch

from planet_rssm.agent import Agent
from planet_rssm.config import ModelSettings, PlannerSettings, RSSMSettings, Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import PLANNERS, FunctionDynamics, normal, planner_from_settings
from planet_rssm.planners.choices import likeliest
from planet_rssm.testing import check_dynamics, check_planner
from planet_rssm.types import Dynamics, Plan, Planner, Rollout
from planet_rssm.world_model import ModelDynamics, untrained_model

FORMS = {
    **{name: {"name": name} for name in PLANNERS},
    "warm": {"name": "cem", "warm_start": True, "momentum": 0.2, "min_std": 0.1, "max_std": 0.6},
    "shooting-warm": {"name": "shooting", "warm_start": True},
    "cvar": {"name": "icem", "particles": 3, "risk": 0.5},
    "mppi-elites": {"name": "mppi", "weigh": "elites", "temperature": 2.0},
    "mppi-draw": {"name": "mppi", "weigh": "elites", "act_by": "draw"},
}
LOW, HIGH = torch.tensor([0.0, -3.0]), torch.tensor([0.1, 20.0])
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0", terminates=True
)
RSSM = RSSMSettings(deter=8, stoch=3, classes=4, hidden=8)


def made(form: dict, *box, size: int = 2, discrete: bool | tuple[int, ...] = False):
    small = {"horizon": 5, "candidates": 20, "iterations": 3, "elites": 4}
    return planner_from_settings(PlannerSettings(**small, **form), size, discrete, *box)


def test_a_state_of_two_precisions_is_searched_in_the_higher():
    dynamics = FunctionDynamics(
        lambda s, a: s | {"x": s["x"] + a}, lambda s, a, after: -after["x"].square().sum(-1)
    )
    check_planner(
        made({"name": "cem"}),
        2,
        dynamics=dynamics,
        state={"mass": torch.ones(3), "x": torch.ones(3, 2).double()},
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_every_planner_keeps_the_contract(form):
    check_planner(made(form), 2)
    check_planner(made(form, LOW, HIGH), 2, low=LOW, high=HIGH)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_over_choices_keeps_the_contract(name, warm):
    check_planner(made({"name": name, "warm_start": warm}, discrete=True), 2, discrete=True)


@pytest.mark.parametrize("groups", [(3, 2), (2, 2, 2), (1, 4, 4, 2)], ids=str)
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_every_planner_over_several_choices_keeps_the_contract(form, groups):
    check_planner(made(form, size=sum(groups), discrete=groups), sum(groups), discrete=groups)


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_an_agent_decides_by_every_planner(form):
    small = PlannerSettings(horizon=3, candidates=12, iterations=2, elites=3, discount=0.9, **form)
    settings = Settings(rssm=RSSM, model=ModelSettings(vector_units=8), planner=small)
    agent = Agent.build(settings, SPEC, untrained_model(settings, SPEC), device=torch.device("cpu"))
    carry = agent.initial(2)
    for first in (True, False):
        plan, carry = agent.act(
            carry, {"speed": torch.zeros(2, 3)}, torch.zeros(2, 2), torch.tensor([first, first])
        )
        assert plan.action.shape == (2, 2) and plan.action.abs().max() <= 1
    assert agent.prepared.objective.discount == 0.9


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_an_agent_chooses_in_every_group_by_every_planner(form):
    small = PlannerSettings(horizon=3, candidates=12, iterations=2, elites=3, discount=0.9, **form)
    settings = Settings(rssm=RSSM, model=ModelSettings(vector_units=8), planner=small)
    spec = replace(SPEC, action_size=7, discrete=True, groups=(2, 2, 3))
    agent = Agent.build(settings, spec, untrained_model(settings, spec), device=torch.device("cpu"))
    carry = agent.initial(2)
    for first in (True, False):
        plan, carry = agent.act(
            carry, {"speed": torch.zeros(2, 3)}, torch.zeros(2, 7), torch.tensor([first, first])
        )
        assert torch.equal(plan.action, likeliest(plan.action, spec.groups))


class Walk(Dynamics[torch.Tensor]):
    """A point with a normal step of its own."""

    differentiable = True

    def noise_shape(self, batch, candidates, horizon):
        return (batch, candidates, horizon, 2)

    def rollout(self, state, actions, noise):
        path = state[:, None, None] + (actions + noise).cumsum(2)
        return Rollout(-path.square().sum(-1), torch.ones_like(path[..., 0]), path[:, :, -1])


PLACES = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
@pytest.mark.parametrize("plan_by", ["sample", "mode"])
def test_every_dynamics_keeps_the_contract(latent, plan_by):
    rssm = RSSM.model_copy(update={"latent": latent, "plan_by": plan_by})
    settings = Settings(
        rssm=rssm, model=ModelSettings(vector_units=8, reward_units=8, continue_units=8)
    )
    model = untrained_model(settings, SPEC)
    state = model.rssm.initial_state(3)
    state = type(state)(torch.randn_like(state.deter), state.stoch)
    with torch.no_grad():
        check_dynamics(ModelDynamics(model), state, 2)


def test_dynamics_of_functions_and_of_ones_own_keep_the_contract():
    check_dynamics(Walk(), PLACES, 2)
    check_dynamics(Walk(), PLACES, 2, discrete=True)
    check_dynamics(Walk(), PLACES, 2, discrete=(1, 1))
    functions = FunctionDynamics(
        lambda s, a: {"x": s["x"] + a}, lambda s, a, y: -y["x"].abs().sum(1)
    )
    check_dynamics(functions, {"x": PLACES.double()}, 2, low=LOW, high=HIGH)


class Broken(Walk):
    def __init__(self, **changes):
        for name, value in changes.items():
            setattr(self, name, value)

    def noise_shape(self, batch, candidates, horizon):
        return self.shape(batch, candidates, horizon)

    def rollout(self, state, actions, noise):
        return self.roll(Walk().rollout(state, actions, noise), state, actions)

    def prepare(self, precision):
        return self.other

    shape = staticmethod(Walk().noise_shape)
    roll = staticmethod(lambda rollout, state, actions: rollout)
    other = Walk()


def in_place(rollout, state, actions):
    state += 1
    return rollout


def reward(change):
    return lambda rollout, state, actions: rollout._replace(reward=change(rollout.reward))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"roll": reward(lambda r: r[..., None])},
            r"reward of shape \(3, 3, 4, 1\): must be \[B, N, H\] = ",
        ),
        ({"roll": reward(lambda r: r.double())}, "reward of torch.float64: must be torch.float32"),
        ({"roll": lambda r, s, a: r._replace(discount=r.reward)}, "discount outside 0 to 1"),
        (
            {"roll": lambda r, s, a: r._replace(last=r.last.flatten(0, 1))},
            r"last .* must begin with \[B, N\]",
        ),
        (
            {"shape": lambda b, n, h: (n * b, h, 2)},
            r"noise_shape\(3, 3, 4\) = .* first axis must be the batch, 3",
        ),
        ({"roll": in_place}, "rollout changes its inputs"),
        ({"roll": reward(lambda r: r + torch.rand(()))}, "two rollouts on the same noise differ"),
        ({"roll": reward(lambda r: r + 0 * torch.rand(()))}, "draws from torch's global generator"),
        (
            {"roll": reward(lambda r: r - r.mean(0, keepdim=True))},
            "row 0 alone .* rows must not depend on each other",
        ),
        (
            {"roll": reward(lambda r: r - r.mean(1, keepdim=True))},
            "candidates must not depend on each other",
        ),
        ({"roll": reward(lambda r: r.flip(2))}, "reward depends on later actions"),
        ({"roll": reward(lambda r: r.detach())}, "differentiable is True, but no gradient"),
        (
            {"other": Broken(roll=reward(lambda r: 2 * r))},
            r"prepare\('float32'\) predicts something else",
        ),
    ],
)
def test_what_a_broken_dynamics_breaks_is_reported(changes, line):
    with pytest.raises(AssertionError, match=line) as caught:
        check_dynamics(Broken(**changes), PLACES.clone(), 2)
    assert all(len(one) < 150 for one in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda r, s, a: r._replace(states=s),
            r"trace gives states that do not begin with \[B, N, H\]",
        ),
        (
            lambda r, s, a: r._replace(states=r.last[:, :, None].expand_as(a)),
            "the first state of trace is not the one",
        ),
        (
            lambda r, s, a: r._replace(reward=-r.reward, states=s[:, None, None].expand_as(a)),
            "trace and rollout differ",
        ),
    ],
)
def test_what_a_broken_trace_breaks_is_reported(change, line):
    class Traced(Walk):
        def trace(self, state, actions, noise):
            return change(self.rollout(state, actions, noise), state, actions)

    with pytest.raises(AssertionError, match=line):
        check_dynamics(Traced(), PLACES.clone(), 2)


class Rusher(Planner[torch.Tensor, torch.Tensor]):
    """Decides without looking at the state; `change` breaks it.

    Unbroken, its actions are random numbers less those of the last decision.
    """

    def __init__(self, change=lambda plan, carry, given: (plan, carry)):
        self.change = change

    def initial(self, batch, device=None):
        return torch.zeros(batch, 2)

    horizon = 3

    def plan(self, dynamics, objective, state, carry, is_first, generator=None, **options):
        before = torch.where(is_first[:, None], 0.0, carry)
        drawn = normal((len(is_first), 2), generator, torch.device("cpu")).sigmoid()
        sequence = (drawn - before)[:, None].repeat(1, 3, 1).clamp(-1, 1)
        plan = Plan(sequence[:, 0], sequence, sequence.sum((1, 2)), {})
        return self.change(plan, drawn, (dynamics, state, carry, is_first))


def far(plan, carry, given):
    return Plan(2 + plan.action, 2 + plan.sequence, plan.value, {}), carry


def only_when_sound(plan, carry, given):
    dynamics, state, _, _ = given
    reward = dynamics.rollout(state, plan.sequence[:, None].repeat(1, 2, 1, 1), None).reward.sum()
    return plan._replace(sequence=plan.sequence + 0 * reward), carry


def forgets_all(plan, carry, given):
    drawn = carry
    sequence = torch.where(given[3].any(), drawn, drawn - given[2])[:, None].repeat(1, 3, 1)
    return plan._replace(action=sequence[:, 0], sequence=sequence), carry


def carry_in_place(plan, carry, given):
    given[2].add_(1)
    return plan, carry


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda p, c, g: (p._replace(value=p.value[:, None]), c),
            r"value of shape \(3, 1\): must be \(3,\)",
        ),
        (
            lambda p, c, g: (p._replace(action=p.action.double()), c),
            "action of torch.float64: must be torch.float32",
        ),
        (
            lambda p, c, g: (p._replace(diagnostics={"x": p.value[0]}), c),
            r"diagnostics\['x'\] of shape \(\)",
        ),
        (
            lambda p, c, g: (p._replace(value=p.value.requires_grad_()), c),
            "the plan has a gradient graph",
        ),
        (
            lambda p, c, g: (p._replace(value=torch.rand(3)), c),
            "draws from torch's global generator",
        ),
        (carry_in_place, "plan changes its inputs"),
        (lambda p, c, g: (p, c[:, :1]), "the carry after a plan is shaped otherwise"),
        (
            forgets_all,
            "row 0 with is_first False forgets, as another row does, its carry: reset by row",
        ),
        (far, "the plan is not within the bounds with a model that is sound"),
        (only_when_sound, "the plan is not finite with a model that is broken in part"),
    ],
)
def test_what_a_broken_planner_breaks_is_reported(change, line):
    with pytest.raises(AssertionError, match=line):
        check_planner(Rusher(change), 2)


def test_a_planner_that_is_no_search_passes():
    check_planner(Rusher(), 2)


class Endless(Rusher):
    horizon = None


class Deaf(Rusher):
    def plan(self, dynamics, objective, state, carry, is_first, generator=None, *, executed=1):
        return super().plan(dynamics, objective, state, carry, is_first, generator)


class Crowd(Rusher):
    def plan(self, dynamics, objective, state, carry, is_first, generator=None, **options):
        one = generator[0] if isinstance(generator, list) else generator
        return super().plan(dynamics, objective, state, carry, is_first, one)


class Hasty(Rusher):
    def plan(
        self, dynamics, objective, state, carry, is_first, generator=None, *, rounds=None, **options
    ):
        plan, carry = super().plan(dynamics, objective, state, carry, is_first, generator)
        return plan._replace(sequence=plan.sequence[:, :rounds]), carry


class Bare(Rusher):
    def prepare(self, dynamics, objective, precision="float32"):
        return self


class Fickle(Rusher):
    def prepare(self, dynamics, objective, precision="float32"):
        return Rusher(far).prepare(dynamics, objective, precision)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Endless, "horizon is None: must be an int from 1 on"),
        (Deaf, r"plan\(\) does not take rounds, proposals, previous: an agent gives them by name"),
        (Crowd, "row 1 with a generator of its own plans otherwise alone"),
        (Hasty, r"rounds 1 gives a sequence of shape \(3, 1, 2\)"),
        (Bare, r"prepare\(\) returns a Bare: must be a PreparedPlanner"),
        (Fickle, r"prepare\(\) gives a planner that decides otherwise than plan\(\)"),
    ],
)
def test_what_an_agent_could_not_use_is_reported(kind, line):
    with pytest.raises(AssertionError, match=line):
        check_planner(kind(), 2)
