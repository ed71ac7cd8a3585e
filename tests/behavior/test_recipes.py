"""What the names of the recipes stand for, and what wins over them."""

import pytest

from planet_rssm import config


def flat(*overrides: str, preset: str = "planet") -> dict[str, object]:
    return config.flatten(config.load(preset, overrides))


def test_a_name_stands_for_a_recipe_and_what_is_given_beside_it_wins() -> None:
    short = flat("behavior=v1")
    long = flat("behavior.name=v1")
    assert (
        short == long and short["behavior.objective"] == "dynamics" and short["behavior.lr"] == 8e-5
    )
    assert flat("behavior.lr=1e-3", "behavior=v1")["behavior.lr"] == 1e-3


def test_another_name_replaces_the_whole_recipe() -> None:
    """A preset's and a run's alike."""
    assert flat("behavior=v2", preset="dreamer-v3")["behavior.lr"] == 8e-5
    changed = config.flatten(
        config.override(config.load("planet", ["behavior=v1"]), ["behavior=v3"])
    )
    assert changed == flat("behavior=v3")


def test_a_size_sets_the_width_of_behaviour_too() -> None:
    assert flat("model.size=1m", preset="dreamer-v3")["behavior.units"] == 64
    assert flat("model.size=1m", "behavior=v3", preset="dreamer-v3")["behavior.units"] == 64


def test_the_size_of_a_file_or_a_run_sets_it_too(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("model.size: 1m\n")
    for way in (config.load, lambda path, overrides: config.override(config.load(path), overrides)):
        learned = way(tmp_path / "mine.yaml", ["behavior=v3"]).behavior
        assert (learned.name, learned.units, learned.actor_layers) == ("v3", 64, 3)
        assert way(tmp_path / "mine.yaml", ["behavior=v3", "behavior.units=7"]).behavior.units == 7
        assert way(tmp_path / "mine.yaml", ["behavior=v3", "model.size=25m"]).behavior.units == 384


def test_settings_from_before_there_was_behaviour_have_none() -> None:
    old = {key: value for key, value in flat().items() if not key.startswith("behavior.")}
    assert config.resolve(old) == config.load("planet")


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        (
            "dreamer-v1",
            {
                "objective": "dynamics",
                "horizon": 15,
                "discount": 0.99,
                "trace": 0.95,
                "entropy": 0,
                "action": "tanh_normal",
                "slow": "none",
                "actor_layers": 4,
                "critic_layers": 3,
                "units": 400,
                "lr": 8e-5,
            },
        ),
        (
            "dreamer-v2",
            {
                "objective": "auto",
                "action": "trunc_normal",
                "entropy": 1e-4,
                "slow": "target",
                "slow_every": 100,
                "slow_share": 1,
                "discount": 0.99,
                "normalise": "none",
            },
        ),
        (
            "dreamer-v3",
            {
                "objective": "reinforce",
                "action": "normal",
                "entropy": 3e-4,
                "discount": 0.997,
                "slow": "regulariser",
                "slow_every": 1,
                "slow_share": 0.02,
                "replay_value": 0.3,
                "critic": "twohot",
                "normalise": "percentiles",
                "unimix": 0.01,
                "actor_layers": 3,
                "lr": None,
            },
        ),
    ],
)
def test_presets_have_the_published_numbers_and_act_by_their_actor(
    preset: str, values: dict[str, object]
) -> None:
    resolved = flat(preset=preset)
    assert {key: resolved[f"behavior.{key}"] for key in values} == values
    assert resolved["planner.name"] == "actor"
