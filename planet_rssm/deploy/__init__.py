"""A trained agent as one graph that runs without this package: `planet export`."""

from planet_rssm.deploy.graph import DecisionGraph
from planet_rssm.deploy.writing import FORMATS, export_agent

__all__ = ["FORMATS", "DecisionGraph", "export_agent"]
