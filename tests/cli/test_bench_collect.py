"""`planet bench collect` at tiny sizes: the parts are all of it."""

import json

import pytest

from planet_rssm.cli.main import main

TINY = """
    env.size=16 env.action_repeat=5 env.time_limit=100 model.depth=2
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16
    model.reward_units=16 planner.candidates=8 planner.iterations=1 planner.elites=2
    planner.horizon=3 train.envs=2 device=cpu
""".split()
OPTIONS = [word for setting in TINY for word in ("-s", setting)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SECONDS", 0.0)
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SIDE", {"cpu": 128})


def test_the_parts_are_all_of_a_step(capsys):
    """25 steps: an episode of 20 ends within them."""
    words = ["bench", "collect", *OPTIONS, "--repeats", "25", "--precision", "float32"]
    main([*words, "--device", "cpu", "--json"])
    result = json.loads(capsys.readouterr().out)
    (case,) = result["cases"]
    named = ("preset", "task", "renderer", "envs", "planner", "precision")
    assert [case[name] for name in named] == [
        "quickstart",
        "dmc/cartpole-swingup",
        "raycast",
        2,
        "actor",
        "float32",
    ]
    parts = [case[f"{part}_ms"] for part in ("physics", "draw", "filter", "plan")]
    assert min(parts) >= 0 and case["ms"] == pytest.approx(sum(parts), abs=0.05)
    assert case["env_steps_per_s"] == pytest.approx(1000 * 2 * 5 / case["ms"], rel=0.01)


def test_people_get_a_table(capsys):
    words = [*OPTIONS, "-s", "env.observe=vectors", "-s", "env.renderer=none", "--repeats", "1"]
    main(["bench", "collect", *words, "--precision", "float32", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "physics" in printed and "2 x dmc/cartpole-swingup, none" in printed
