"""Sets of episodes from and to Minari (https://minari.farama.org).

Minari is the exchange format of offline learning.

A Minari dataset holds what an environment gave and took, in its own units. Here it becomes what
`envs.gym_env` would have made of it: the same names of observations, actions in [-1, 1] or one-hot
by group. What is exported is in our units, without loss, and says so: importing it again gives the
same episodes.
"""

from planet_rssm.datasets.minari.reading import import_dataset, look_at_dataset
from planet_rssm.datasets.minari.writing import export_dataset

__all__ = ["export_dataset", "import_dataset", "look_at_dataset"]
