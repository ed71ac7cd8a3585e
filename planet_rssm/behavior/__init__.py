"""Behaviour learned in imagination: Dreamer's actor and critic, as a planner or beside one."""

from planet_rssm.behavior.imagination import ImaginationNoise, Imagined, imagine
from planet_rssm.behavior.learning import Behavior, check_objective, untrained_behavior
from planet_rssm.behavior.networks import Actor, Critic
from planet_rssm.behavior.planner import ActorPlanner, ActorProposals, CriticValue
from planet_rssm.behavior.returns import lambda_return

__all__ = [
    "Actor",
    "ActorPlanner",
    "ActorProposals",
    "Behavior",
    "Critic",
    "CriticValue",
    "Imagined",
    "ImaginationNoise",
    "check_objective",
    "imagine",
    "lambda_return",
    "untrained_behavior",
]
