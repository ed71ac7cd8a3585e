"""Planners: how a model is searched for actions. They know torch and the contracts of `types`, and no network.

Any torch model will do. A pendulum that is swung up from hanging and held upright (angle 0):

    >>> import torch
    >>> from planet_rssm.planners import ICEM, FunctionDynamics, Objective, PlannerSettings
    >>> def step(state, action):  # [M, 2] of angle and speed, [M, 1] of torque in [-3, 3]; 0.1 s
    ...     speed = state[:, 1] + 0.1 * (15 * state[:, 0].sin() + 2 * action[:, 0])
    ...     return torch.stack([state[:, 0] + 0.1 * speed, speed], 1)
    >>> dynamics = FunctionDynamics(step, reward=lambda state, action, following: following[:, 0].cos())
    >>> settings = PlannerSettings(name="icem", horizon=15, candidates=100, iterations=2, elites=10)
    >>> planner = ICEM(settings, action_size=1, low=-3.0, high=3.0)
    >>> state, carry, generator = torch.tensor([[torch.pi, 0.0]]), planner.initial(1), torch.Generator().manual_seed(0)
    >>> for t in range(50):
    ...     plan, carry = planner.plan(dynamics, Objective(), state, carry, torch.tensor([t == 0]), generator)
    ...     state = step(state, plan.action)
    >>> bool(state[0, 0].cos() > 0.95)
    True
"""

from typing import TYPE_CHECKING, Any

from planet_rssm.errors import PlanetError
from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.box import Bound
from planet_rssm.planners.categorical import CategoricalCEM
from planet_rssm.planners.cem import CEM
from planet_rssm.planners.function import FunctionDynamics
from planet_rssm.planners.goal import goal_reward
from planet_rssm.planners.icem import ICEM
from planet_rssm.planners.memory import Carry
from planet_rssm.planners.mppi import MPPI
from planet_rssm.planners.noise import Noise
from planet_rssm.planners.objective import Objective
from planet_rssm.planners.shooting import RandomShooting

if TYPE_CHECKING:
    from planet_rssm.config import PlannerName, PlannerSettings

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "Carry",
    "CategoricalCEM",
    "FunctionDynamics",
    "Noise",
    "Objective",
    "PlannerSettings",
    "RandomShooting",
    "SearchPlanner",
    "goal_reward",
    "planner_from_settings",
]

PLANNERS: "dict[PlannerName, type[SearchPlanner[Any, Any]]]" = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "shooting": RandomShooting,
}
CHOOSERS: "tuple[PlannerName, ...]" = ("cem", "shooting")  # those for discrete actions


def planner_from_settings(
    settings: "PlannerSettings", action_size: int, discrete: bool = False, low: Bound = -1.0, high: Bound = 1.0
) -> SearchPlanner[Any, Any]:
    """Return the planner that the settings name, for actions of that size from `low` to `high` or so many choices.

    Raises:
        PlanetError: the planner does not search among choices, or the bounds are refused.
    """
    if settings.name == "actor":
        raise PlanetError("planner.name = 'actor': it is learned, not searched; load a run that has one: Agent.load")
    if not discrete:
        return PLANNERS[settings.name](settings, action_size, low, high)
    if settings.name not in CHOOSERS:
        raise PlanetError(
            f"planner.name = {settings.name!r}: not for discrete actions; use {' or '.join(map(repr, CHOOSERS))}"
        )
    if settings.name == "cem":
        return CategoricalCEM(settings, action_size)
    return RandomShooting(settings, action_size, discrete=True)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name != "PlannerSettings":  # pydantic: only for those who use it
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from planet_rssm.config import PlannerSettings

    return PlannerSettings
