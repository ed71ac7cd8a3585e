"""Filter the observation, decide, add noise: all that a control loop needs."""

from planet_rssm.agent.agent import (
    Agent,
    AgentCarry,
    AgentPolicy,
    RoundTimes,
    behavior_of,
    check_noise,
    model_of,
    parts_of,
    require_search,
)

__all__ = [
    "Agent",
    "AgentCarry",
    "AgentPolicy",
    "RoundTimes",
    "behavior_of",
    "check_noise",
    "model_of",
    "parts_of",
    "require_search",
]
