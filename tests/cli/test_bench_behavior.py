"""`planet bench behavior` at tiny sizes: what it measures; the reference learns the same."""

import json

import pytest
import torch

from planet_rssm import config
from planet_rssm.bench import behavior as bench
from planet_rssm.cli.main import main
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import untrained_model

TINY = """
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    behavior.units=8 behavior.horizon=3 train.batch_size=2 train.batch_length=4
""".split()
OPTIONS = [word for setting in TINY for word in ("-s", setting)]
SPEC = EnvSpec(
    "dmc/cartpole-swingup", {"speed": ((3,), "float32")}, 1, 8, 0.08, 1000, "none", "fake 0"
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SECONDS", 0.0)
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SIDE", {"cpu": 128})
    monkeypatch.setattr("planet_rssm.precision.relative_time", lambda *_: 0.5)
    monkeypatch.setattr(bench, "spec_of", lambda settings: SPEC)


def test_each_precision_is_reported_beside_the_reference(capsys):
    main(
        [
            "bench",
            "behavior",
            "quickstart",
            *OPTIONS,
            "--repeats",
            "1",
            "--device",
            "cpu",
            "--json",
        ]
    )
    cases = json.loads(capsys.readouterr().out)["cases"]
    assert [case["precision"] for case in cases] == ["float32", "bfloat16"]
    for case in cases:
        assert (case["preset"], case["states"], case["horizon"]) == ("quickstart", 8, 3)
        assert case["speedup"] == pytest.approx(case["reference_ms"] / case["ms"], rel=1e-2)


def test_another_recipe_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "behavior", "dreamer-v1", *OPTIONS])
    assert "behavior.name = 'v1'; add -s behavior=v3" in capsys.readouterr().err


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("objective", ["dynamics", "reinforce"])
def test_both_ways_move_actor_and_critic(monkeypatch, ours, objective):
    changed = ["behavior.critic_outscale=1", "optimizer.lr=1e-3", f"behavior.objective={objective}"]
    settings = config.load("quickstart", [*TINY, *changed])
    model, made = untrained_model(settings, SPEC), []
    monkeypatch.setattr(
        bench, "untrained_behavior", lambda *parts: made.append(own(*parts)) or made[-1]
    )
    own = __import__("planet_rssm.behavior", fromlist=["x"]).untrained_behavior
    starts = bench._starts(model, 8, CPU)
    update = (
        bench._ours(settings, model, starts, "float32")
        if ours
        else bench._plain(settings, model, starts)
    )
    before = {name: p.clone() for name, p in made[0].named_parameters()}
    update()
    assert [name for name, p in made[0].named_parameters() if torch.equal(p, before[name])] == []
    assert all(p.grad is None for p in model.parameters())
