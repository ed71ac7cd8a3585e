"""Make an environment in this process, by the adapter that its id asks for."""

from planet_rssm.config import EnvSettings, is_dm_control
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.gym_env import GymEnv


def make(settings: EnvSettings) -> DMControlEnv | GymEnv:
    """Make the environment of resolved settings; see its class for what is raised."""
    return (DMControlEnv if is_dm_control(settings.id) else GymEnv)(settings)
