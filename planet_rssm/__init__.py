"""Learn a recurrent state-space model from pixels, then act by searching in it.

The public names are loaded when first used, so that `import planet_rssm` imports no torch, mujoco
or matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors and type checkers see what __getattr__ finds
    from planet_rssm.agent import Agent
    from planet_rssm.base.errors import PlanetError
    from planet_rssm.base.malloc import keep_memory
    from planet_rssm.config import Settings
    from planet_rssm.control import ControlLoop
    from planet_rssm.data.episode import Episode
    from planet_rssm.data.replay import Replay
    from planet_rssm.envs.pool import EnvPool
    from planet_rssm.envs.spec import EnvSpec
    from planet_rssm.planners import (
        CEM,
        ICEM,
        MPPI,
        CategoricalCEM,
        FunctionDynamics,
        Objective,
        RandomShooting,
        goal_reward,
    )
    from planet_rssm.simulator.dynamics import SimulatorDynamics
    from planet_rssm.testing import check_dynamics, check_planner
    from planet_rssm.training.learner import to_batch
    from planet_rssm.types import Batch, Dynamics, Plan, Planner, Rollout, State
    from planet_rssm.world_model import (
        RSSM,
        Context,
        Latent,
        ModelDynamics,
        TwohotEncoder,
        WorldModel,
        kl_balanced_loss,
        symexp,
        symlog,
        untrained_model,
    )

_MODULE_OF = {
    "Agent": "agent",
    "Batch": "types",
    "CEM": "planners",
    "CategoricalCEM": "planners",
    "Context": "world_model",
    "ControlLoop": "control",
    "Dynamics": "types",
    "EnvPool": "envs.pool",
    "EnvSpec": "envs.spec",
    "Episode": "data.episode",
    "FunctionDynamics": "planners",
    "ICEM": "planners",
    "Latent": "world_model",
    "MPPI": "planners",
    "ModelDynamics": "world_model",
    "Objective": "planners",
    "Plan": "types",
    "PlanetError": "base.errors",
    "Planner": "types",
    "RSSM": "world_model",
    "RandomShooting": "planners",
    "Replay": "data.replay",
    "Rollout": "types",
    "Settings": "config",
    "SimulatorDynamics": "simulator.dynamics",
    "State": "types",
    "TwohotEncoder": "world_model",
    "WorldModel": "world_model",
    "check_dynamics": "testing",
    "check_planner": "testing",
    "goal_reward": "planners",
    "keep_memory": "base.malloc",
    "kl_balanced_loss": "world_model",
    "symexp": "world_model",
    "symlog": "world_model",
    "to_batch": "training.learner",
    "untrained_model": "world_model",
}

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "RSSM",
    "Agent",
    "Batch",
    "CategoricalCEM",
    "Context",
    "ControlLoop",
    "Dynamics",
    "EnvPool",
    "EnvSpec",
    "Episode",
    "FunctionDynamics",
    "Latent",
    "ModelDynamics",
    "Objective",
    "Plan",
    "PlanetError",
    "Planner",
    "RandomShooting",
    "Replay",
    "Rollout",
    "Settings",
    "SimulatorDynamics",
    "State",
    "TwohotEncoder",
    "WorldModel",
    "check_dynamics",
    "check_planner",
    "goal_reward",
    "keep_memory",
    "kl_balanced_loss",
    "symexp",
    "symlog",
    "to_batch",
    "untrained_model",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
