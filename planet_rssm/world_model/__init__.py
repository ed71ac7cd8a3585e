"""What the agent believes: encoder, RSSM, heads, losses."""

from planet_rssm.world_model.dynamics import ModelDynamics
from planet_rssm.world_model.latents import Gaussian, GaussianLatent
from planet_rssm.world_model.model import LossNoise, WorldModel, untrained_model
from planet_rssm.world_model.rssm import RSSM

__all__ = ["RSSM", "Gaussian", "GaussianLatent", "LossNoise", "ModelDynamics", "WorldModel", "untrained_model"]
