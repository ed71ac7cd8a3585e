"""A run whose actor decides, through every verb that acts or measures: finite, under its name."""

import contextlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from planet_rssm.bench.loop import bench_loop
from planet_rssm.cli.main import main
from planet_rssm.control import SimulatedTime
from planet_rssm.data.replay import Replay
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location

TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none env.action_repeat=5
    env.time_limit=15 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.vector_units=8
    model.reward_units=8 behavior=v3 behavior.units=8 planner.name=actor planner.candidates=4
    planner.iterations=1 planner.elites=2 planner.horizon=2 device=cpu
""".split()


@pytest.fixture(scope="module")
def run(at_hand, untrained_run, tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("actor") / "run", "planet", *TINY)


def printed(capsys, *words: str | Path) -> dict:
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def test_eval_plays_the_actor_and_calls_it_so(run, capsys):
    result = printed(capsys, "eval", run, "--episodes", "2", "--device", "cpu")
    (played,), (group,) = result["results"], result["groups"]
    assert (played["planner"], group["group"], group["planner"], result["errors"]) == (
        "actor",
        "actor",
        "actor",
        [],
    )
    assert len(played["episodes"]) == 2 and all(
        math.isfinite(episode["return"]) for episode in played["episodes"]
    )
    assert [path.name.split("-")[:2] for path in (run / "eval").iterdir()] == [["last", "actor"]]


def test_eval_names_what_helps_a_planner(run, capsys):
    mix = [
        "--planner",
        "cem",
        "-s",
        "planner.proposals=actor",
        "-s",
        "planner.terminal_value=critic",
    ]
    result = printed(capsys, "eval", run, *mix, "--episodes", "1", "--device", "cpu")
    assert {result["results"][0]["planner"], result["groups"][0]["group"]} == {"cem+actor+critic"}


def test_collect_keeps_what_the_actor_did(run, tmp_path, capsys):
    words = [
        "cartpole-swingup",
        "--policy",
        run,
        "--episodes",
        "2",
        "--envs",
        "1",
        "--device",
        "cpu",
    ]
    result = printed(capsys, "collect", *words, "--out", tmp_path / "set")
    returns = [episode["return"] for episode in result["episodes"]]
    assert result["policy"] == str(run) and all(map(math.isfinite, returns))
    assert [entry.episode_return for entry in Replay(tmp_path / "set", 100).episodes] == returns


def test_diagnose_exchanges_the_actor(run, capsys):
    words = ["-s", "rssm.filter_by=mode", "--episodes", "2", "--every", "3", "--budget", "2"]
    result = printed(capsys, "diagnose", run, *words, "--device", "cpu")
    assert result["planner"] == "actor" and list(result["returns"]) == ["as is", "planner", "model"]
    assert all(math.isfinite(part["mean"]) for part in result["returns"].values())


def test_config_counts_actor_and_critic(run, capsys, monkeypatch):
    kept = checkpoints.load(location.find(run))
    pool = SimpleNamespace(spec=kept.spec)
    monkeypatch.setattr("planet_rssm.envs.pool.EnvPool", lambda *_: contextlib.nullcontext(pool))
    main(["config", "planet", *(word for setting in TINY for word in ("-s", setting)), "--summary"])
    counts = json.loads(capsys.readouterr().out)["parameters"]
    feat = 8 + 4
    assert counts["actor"] == (feat + 1) * 8 + 2 * 9 * 8 + 9 * 2
    assert counts["critic"] == (feat + 1) * 8 + 2 * 9 * 8 + 9 * 255
    assert counts.pop("total") == sum(counts.values())


def test_a_loop_is_timed_with_the_actors_one_step(run):
    result = bench_loop(run, seconds=4, device="cpu", clock=SimulatedTime(0.01))
    assert result.planner == {"name": "actor", "candidates": [1], "horizon": 1}
    assert result.misses == 0 and result.rounds == 1
