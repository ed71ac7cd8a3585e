"""Planners: how a model is searched for actions. They import torch and `types`, and no network.

Any torch model will do. A pendulum is swung up from hanging and kept upright (angle 0):

    >>> import torch
    >>> from planet_rssm.planners import ICEM, FunctionDynamics, Objective, PlannerSettings
    >>> def step(state, action):  # [M, 2] of angle and speed, [M, 1] of torque in [-3, 3]; 0.1 s
    ...     speed = state[:, 1] + 0.1 * (15 * state[:, 0].sin() + 2 * action[:, 0])
    ...     return torch.stack([state[:, 0] + 0.1 * speed, speed], 1)
    >>> def upright(state, action, following):
    ...     return following[:, 0].cos()
    >>> dynamics = FunctionDynamics(step, reward=upright)
    >>> settings = PlannerSettings(name="icem", horizon=15, candidates=100, iterations=2, elites=10)
    >>> planner = ICEM(settings, action_size=1, low=-3.0, high=3.0)
    >>> search = planner.prepare(dynamics, Objective())
    >>> state = torch.tensor([[torch.pi, 0.0]])
    >>> carry = planner.initial(1)
    >>> rng = torch.Generator().manual_seed(0)
    >>> for t in range(50):
    ...     plan, carry = search.plan(state, carry, torch.tensor([t == 0]), rng)
    ...     state = step(state, plan.action)
    >>> bool(state[0, 0].cos() > 0.95)
    True
"""

from typing import TYPE_CHECKING, Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.plugins import build
from planet_rssm.planners.base import SearchPlanner
from planet_rssm.planners.box import Bound
from planet_rssm.planners.carry import Carry
from planet_rssm.planners.cem import CEM
from planet_rssm.planners.choices import Groups
from planet_rssm.planners.function import FunctionDynamics
from planet_rssm.planners.goal import goal_reward
from planet_rssm.planners.icem import ICEM
from planet_rssm.planners.limits import require_choices
from planet_rssm.planners.mppi import MPPI
from planet_rssm.planners.noise import Noise, normal
from planet_rssm.planners.objective import Objective, score
from planet_rssm.planners.shooting import RandomShooting
from planet_rssm.types import Planner, PreparedPlanner

if TYPE_CHECKING:
    from planet_rssm.config import PlannerSettings

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "Carry",
    "CategoricalCEM",
    "FunctionDynamics",
    "Noise",
    "Objective",
    "Planner",
    "PlannerSettings",
    "PreparedPlanner",
    "RandomShooting",
    "SearchPlanner",
    "goal_reward",
    "normal",
    "planner_from_settings",
    "score",
]

PLANNERS: dict[str, type[SearchPlanner[Any, Any]]] = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "shooting": RandomShooting,
}


def CategoricalCEM(settings: "PlannerSettings", action_size: int) -> CEM:  # noqa: N802
    """Return a CEM over one choice among `action_size`, one-hot."""
    return CEM(settings, action_size, discrete=True)


def planner_from_settings(
    settings: "PlannerSettings",
    action_size: int,
    discrete: bool | Groups = False,
    low: Bound = -1.0,
    high: Bound = 1.0,
) -> Planner[Any, Any]:
    """Return the planner that the settings name, for actions from `low` to `high` or choices.

    A class of your own, `module:Class`, is any Planner that is built as SearchPlanner is:
    `discrete` means that actions are choices, and in which groups.

    Raises:
        PlanetError: the bounds or groups are refused, or candidates of so many choices take too
            much memory.
    """
    if settings.name == "actor":
        raise PlanetError(
            "planner.name = 'actor': it is learned, not searched; load a run that has one: "
            "Agent.load"
        )
    if discrete:
        require_choices(settings, action_size)
    if settings.name in PLANNERS:
        return PLANNERS[settings.name](settings, action_size, low, high, discrete=discrete)
    kind: type[Planner[Any, Any]] = Planner  # type: ignore[type-abstract]
    return build(
        "planner.name", settings.name, kind, settings, action_size, low, high, discrete=discrete
    )


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name != "PlannerSettings":  # pydantic: only for those who use it
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from planet_rssm.config import PlannerSettings

    return PlannerSettings
