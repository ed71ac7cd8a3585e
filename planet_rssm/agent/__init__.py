"""Filter the observation, decide, add noise: all that a control loop needs."""

from planet_rssm.agent.agent import Agent, AgentCarry
from planet_rssm.agent.explain import Decision, Explainer
from planet_rssm.agent.exploration import check_noise
from planet_rssm.agent.parts import behavior_of, model_of, parts_of
from planet_rssm.agent.policy import AgentPolicy
from planet_rssm.agent.timing import RoundTimes

__all__ = [
    "Agent",
    "AgentCarry",
    "AgentPolicy",
    "Decision",
    "Explainer",
    "RoundTimes",
    "behavior_of",
    "check_noise",
    "model_of",
    "parts_of",
]
