"""Sets of episodes from and to Minari (https://minari.farama.org), the exchange format of offline learning.

A Minari dataset holds what an environment gave and took, in its own units: here it becomes what `envs.gym_env` would
have shown of it, actions in [-1, 1] or one-hot. What is exported is in our units, without loss, and says so: importing
it gives the same episodes.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm.config import EnvSettings
from planet_rssm.data.episode import Episode
from planet_rssm.data.manifest import check_free
from planet_rssm.data.replay import Replay
from planet_rssm.envs.registry import UNLIMITED
from planet_rssm.envs.spaces import Observer, action_map
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.errors import PlanetError

Array = np.ndarray
INTERVAL = 1 / 30  # seconds a step, where the environment that would know is not installed
OURS = "planet_rssm"  # key of what we tell of a dataset and of each of its episodes
_log = logging.getLogger("planet_rssm")
