from pathlib import Path

import pytest

from planet_rssm import config
from planet_rssm.behavior import untrained_behavior
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.simulator.local import LocalPool
from planet_rssm.world_model import untrained_model


def spec_of(env):
    """The spec of resolved settings; of dm_control without OpenGL no worker is started for it."""
    if config.is_dm_control(env.id) and env.renderer in ("raycast", "none"):
        return LocalPool(env).spec
    with EnvPool(env, 1) as pool:
        return pool.spec


@pytest.fixture(scope="session")
def untrained_run():
    """untrained_run(folder, preset, *overrides): a run folder with an untrained checkpoint."""

    def make(folder: Path, preset: str, *overrides: str) -> Path:
        settings = config.load(preset, overrides)
        settings = settings.model_copy(update={"env": resolve(settings.env)})
        spec = spec_of(settings.env)
        model = untrained_model(settings, spec)
        behavior = untrained_behavior(settings, model)
        states = (dict(part.state_dict()) if part else {} for part in (model, None, behavior))
        (folder / location.FOLDER).mkdir(parents=True)
        checkpoints.save(
            Checkpoint(settings, spec, {"env_steps": 1, "updates": 0}, *states),
            location.path_of(folder, 1),
        )
        return folder

    return make
