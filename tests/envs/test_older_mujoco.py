import importlib.metadata

import pytest

from planet_rssm.envs import older_mujoco


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("mujoco==3.3.0", True),  # metaworld 3.1.1
        ("mujoco (>=3.0.0,<3.9.0)", True),  # gym-aloha 0.1.5
        ("mujoco>=2.2.0", False),
        ("mujoco<4", False),
        ("mujoco<3; extra == 'old'", False),
        ("mujoco-py<2.2", False),
    ],
)
def test_a_package_that_asks_for_an_older_mujoco_is_named(monkeypatch, wish, said):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.17.0")
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"metaworld": ["metaworld"]}
    )
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy<3", wish])
    line = older_mujoco.older_mujoco("metaworld.envs", "ValueError: could not broadcast")
    assert bool(line) == said
    assert not said or ("metaworld asks for mujoco" in line and "docs/environments.md" in line)
    assert older_mujoco.older_mujoco("other", "ValueError") == ""


def test_code_that_compares_a_number_of_the_model_with_an_enum_is_known():
    code = "assert joint_type in (mujoco.mjtJoint.mjJNT_HINGE,)"
    fault = f"AssertionError (mujoco_utils.py, line 142: {code})"
    assert "for an older mujoco than" in older_mujoco.older_mujoco("gymnasium_robotics", fault)
