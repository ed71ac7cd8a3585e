"""What the agent believes: encoder, RSSM, heads, losses."""

from planet_rssm.world_model.dynamics import ModelDynamics
from planet_rssm.world_model.heads import TwohotEncoder
from planet_rssm.world_model.latents import (
    Categorical,
    CategoricalLatent,
    Gaussian,
    GaussianLatent,
    Latent,
)
from planet_rssm.world_model.losses import Context, LossNoise, LossOutput, kl_balanced_loss
from planet_rssm.world_model.model import WorldModel, model_for, untrained_model
from planet_rssm.world_model.networks import symexp, symlog
from planet_rssm.world_model.rssm import RSSM

__all__ = [
    "RSSM",
    "Categorical",
    "CategoricalLatent",
    "Context",
    "Gaussian",
    "GaussianLatent",
    "Latent",
    "LossNoise",
    "LossOutput",
    "ModelDynamics",
    "TwohotEncoder",
    "WorldModel",
    "kl_balanced_loss",
    "model_for",
    "symexp",
    "symlog",
    "untrained_model",
]
