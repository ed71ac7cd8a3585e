"""docs/models.md names settings that exist, all presets, and the values that they have."""

import re
from pathlib import Path

import pytest

from planet_rssm import config

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
KEYS = set(config.flatten(config.Settings()))
SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key})


def test_every_setting_named_exists() -> None:
    named = set(re.findall(rf"`(?:-s )?((?:{'|'.join(SECTIONS)})\.\w+)(?:[:=][^`]*)?`", PAGE))
    assert len(named) > 30
    assert not named - KEYS


def test_every_published_model_and_system_is_on_the_page() -> None:
    named = {
        name for name in config.presets() if name.startswith(("systems/", "planet", "dreamer"))
    }
    assert {name for name in named if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        (
            "dreamer-v1",
            {
                "rssm.act": "elu",
                "kl.free": "mean",
                "kl.free_nats": 3,
                "model.reward_units": 400,
                "model.reward_scale": 1,
                "model.continue_layers": 3,
                "model.continue_scale": 10,
                "model.continue_discount": 0.99,
                "optimizer.lr": 6e-4,
                "optimizer.clip": 100,
                "train.updates": 100,
                "env.action_repeat": 2,
            },
        ),
        (
            "dreamer-v2",
            {
                "rssm.norm": "none",
                "rssm.cell": "norm_gru",
                "rssm.deter": 200,
                "rssm.unimix": 0,
                "kl.dyn": 0.8,
                "kl.rep": 0.2,
                "kl.free": "mean",
                "kl.free_nats": 1,
                "model.depth": 48,
                "model.reward_layers": 4,
                "model.continue_discount": 0.99,
                "optimizer.eps": 1e-5,
                "train.batch_size": 16,
            },
        ),
        (
            "dreamer-v3-2023",
            {
                "rssm.deter": 512,
                "rssm.norm": "layer",
                "rssm.unimix": 0.01,
                "rssm.initial": "learned",
                "kl.dyn": 0.5,
                "kl.rep": 0.1,
                "kl.free": "step",
                "kl.free_nats": 1,
                "model.image_scale": 2,
                "model.reward": "symlog_twohot",
                "model.reward_layers": 2,
                "model.continue_discount": 1,
                "optimizer.name": "adam",
                "optimizer.lr": 1e-4,
                "optimizer.eps": 1e-8,
                "optimizer.clip": 1000,
                "train.batch_length": 64,
                "train.updates": 250,
            },
        ),
        (
            "dreamer-v3",
            {
                "rssm.blocks": 8,
                "rssm.prior_layers": 2,
                "rssm.posterior_layers": 1,
                "rssm.norm": "rms",
                "rssm.initial": "zeros",
                "kl.dyn": 1,
                "kl.rep": 0.1,
                "model.conv": "dreamer-v3",
                "model.reward": "twohot",
                "model.reward_layers": 1,
                "optimizer.agc": 0.3,
                "optimizer.lr": 4e-5,
                "optimizer.eps": 1e-20,
                "optimizer.warmup": 1000,
                "env.action_repeat": 1,
            },
        ),
    ],
)
def test_presets_have_the_values_of_the_table(preset: str, values: dict[str, object]) -> None:
    settings = config.flatten(config.load(preset))
    assert {key: settings[key] for key in values} == values
