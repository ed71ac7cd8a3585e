"""Twenty seconds of learning from random episodes predicts the rewards of unknown pixels."""

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.collect import RandomPolicy, collect
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.training.learner import Learner, to_batch
from planet_rssm.world_model import WorldModel, untrained_model

CPU = torch.device("cpu")
SMALLER = """
    rssm.deter=100 rssm.hidden=100 train.batch_size=16 train.batch_length=20
    model.decode_fraction=0.125 optimizer.lr=3e-3
"""
SETTINGS = config.load("quickstart", SMALLER.split())
UPDATES = 350  # after 250 it explains half
WARM_UP = 4  # steps before the filter knows speeds


def explained_variance(model: WorldModel, replay: Replay) -> float:
    """Share of the reward's variance that filtering explains, on chunks of the replay."""
    batch = to_batch(replay.sample(np.random.default_rng(0), 32, 32), CPU)
    with torch.no_grad():
        noise = model.draw(32, 32, torch.Generator().manual_seed(0), CPU)
        embed = model.encode(batch.observation, noise.pixels)
        states, _ = model.rssm.observe(embed, batch.action, batch.is_first, noise.latent)
        error = (model.predict_reward(states) - batch.reward)[:, WARM_UP:]
    return 1 - float(error.square().mean() / batch.reward[:, WARM_UP:].var())


@pytest.mark.slow
def test_the_model_learns_to_predict_rewards_of_unknown_episodes(tmp_path):
    known, unknown = Replay(tmp_path / "known", 10**6), Replay(tmp_path / "unknown", 10**6)
    with EnvPool(resolve(SETTINGS.env), 2) as pool:
        for replay, seeds in ((known, range(30)), (unknown, range(1000, 1006))):
            for index, episode in collect(pool, RandomPolicy(1, seeds[0]), seeds):
                replay.add(episode, index)
    learner = Learner(untrained_model(SETTINGS, pool.spec), SETTINGS, CPU)
    assert explained_variance(learner.model, unknown) < 0.1
    for update in range(UPDATES):
        chunks = known.sample(
            np.random.default_rng(update), SETTINGS.train.batch_size, SETTINGS.train.batch_length
        )
        learner.update(chunks, update)
    assert explained_variance(learner.model, unknown) > 0.5
