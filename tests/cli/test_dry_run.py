"""`planet train --dry-run`: what it says, that it leaves nothing, the forecast's arithmetic."""

import json
import math

import pytest
import torch

from planet_rssm import config
from planet_rssm.cli.main import main
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.training.forecast import Costs, forecast
from planet_rssm.training.learner import Learner

TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=50 model.depth=2
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16 planner.candidates=8
    planner.iterations=1 planner.elites=2 planner.horizon=3 train.env_steps=5000
    train.seed_episodes=2 train.envs=2 train.updates=5 train.batch_size=4 train.batch_length=8
    train.test_every=2 train.test_episodes=3 device=cpu
""".split()
WORDS = [
    "train",
    "planet",
    *(word for setting in TINY for word in ("-s", setting)),
    "--run-dir",
    "runs/a",
]
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    1,
    50,
    0.5,
    1000,
    "raycast",
    "mujoco 3.17.0",
)


PARTS = ("collect", "learn", "test", "commit", "plan")


def call(*words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_part_is_measured_and_nothing_is_left(tmp_path, capsys):
    assert call(*WORDS, "--dry-run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == "dmc/cartpole-swingup"
    assert result["run"] == {"env_steps": 6000, "episodes": 6, "frames": 126, "updates": 15,
                             "test_episodes": 6,
                             "plan_episodes": 20}  # fmt: skip
    assert all(value >= 0 for value in result["measured"].values())
    assert result["measured"]["frame_bytes"] == 32 * 32 * 3 + 4 + 4 + 3
    assert result["seconds"]["total"] > sum(result["seconds"][part] for part in PARTS)
    assert result["seconds"]["plan"] > 0
    assert result["free"]["disk"] > result["bytes"]["total"] > 0
    assert not list(tmp_path.iterdir())


def test_the_table_tells_time_disk_and_memory(tmp_path, capsys):
    assert call(*WORDS, "--dry-run") == 0
    said = capsys.readouterr()
    for word in (
        "plan",
        "20 episodes when trained",
        "collect",
        "learn",
        "test",
        "commit",
        "total",
        "disk:",
        "memory:",
        "15 updates",
        "6 episodes",
    ):
        assert word in said.out
    assert "checkpoint: written and read back" in said.err
    assert not list(tmp_path.iterdir())


def test_the_forecast_counts_what_a_run_does():
    """2 random episodes side by side, then 2 rounds of 2; tests in rounds 2 and 3, of 3 by 2."""
    settings = config.load("planet", TINY)
    costs = Costs(
        env_start=1000.0,
        env_reset=10.0,
        env_step=1.0,
        decision=100.0,
        update=7.0,
        checkpoint=3.0,
        fsync=0.0,
        disk=0.0,
        checkpoint_bytes=50,
        frame_bytes=2,
    )
    result = forecast(settings, SPEC, costs)
    blind, seeing = 10 + 20 * 1, 10 + 20 * 101
    assert result.seconds == {
        "collect": blind + 2 * seeing,
        "learn": 15 * 7,
        "test": 2 * 2 * seeing,
        "commit": 5 * 3,
        "plan": 0.0,
        "total": 1000 + blind + 6 * seeing + 15 * 7 + 15,
    }
    assert result.bytes == {"episodes": 6 * 21 * 2, "checkpoints": 3 * 50, "total": 402}


@pytest.mark.parametrize(("update", "waits"), [(7.0, 2030 - 35), (500.0, 0.0)])
def test_of_what_is_done_side_by_side_the_longer_counts(update, waits):
    """2 random episodes, 2 planned ones in turns with learning, 2 that are planned beside it."""
    settings = config.load("planet", [*TINY, "train.staleness=1"])
    costs = Costs(0, 10, 1, 70, 4, 0, 0, 0, 0, 0, update_beside=update, decision_beside=100)
    result = forecast(settings, SPEC, costs)
    assert result.seconds["collect"] == (10 + 20) + (10 + 20 * 71) + waits
    assert result.seconds["learn"] == 2 * 5 * 4 + 5 * update


def test_the_forecast_counts_the_plan_at_the_end():
    """4 rows where 2 were measured; 5 episodes take two turns, 3 in each of two blind rows."""
    settings = config.load("planet", TINY)
    costs = Costs(0, 10, 1, 100, 0, 0, 0, 0, 0, 0, blind_step=0.5)
    result = forecast(settings, SPEC, costs, plan_episodes=5)
    assert result.seconds["plan"] == 2 * 2 * (10 + 20 * 2 * 101) + 13 * 3 * 20 * 0.5
    without = forecast(settings, SPEC, costs).seconds
    assert result.seconds["total"] == without["total"] + result.seconds["plan"]


def test_episodes_shorter_than_a_chunk_are_foretold(capsys):
    assert call(*WORDS, "--dry-run", "-s", "train.batch_length=63") == 0
    line = "train.batch_length = 63: most episodes are shorter, 67% of each batch is padding"
    assert line in capsys.readouterr().out


def test_a_replay_that_is_full_takes_no_more_disk():
    settings = config.load("planet", [*TINY, "train.env_steps=1e6", "data.capacity=210"])
    result = forecast(settings, SPEC, Costs(0, 0, 0, 0, 0, 0, 0, 0, 0, 1))
    assert result.run.episodes == 1000
    assert result.bytes["episodes"] == (10 + 2) * 21


def test_too_little_memory_on_the_device_is_one_line(tmp_path, monkeypatch, capsys):
    def update(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Learner, "update", update)
    assert call(*WORDS, "--dry-run") == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("planet: device cpu: too little free memory for")
    )
    assert not list(tmp_path.iterdir())


def test_a_signal_leaves_nothing_behind(tmp_path, monkeypatch):
    import planet_rssm.training.part_times as parts

    def stop(*_):
        assert [path.name[:16] for path in tmp_path.iterdir()] == [".planet-dry-run-"]
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_decision", stop)
    assert call(*WORDS, "--dry-run") == 130
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_comes_back_differently_is_told(monkeypatch, capsys, tmp_path):
    load = checkpoints.load

    def changed(path, **options):
        kept = load(path, **options)
        next(iter(kept.model.values())).fill_(math.pi)
        return kept

    monkeypatch.setattr(checkpoints, "load", changed)
    assert call(*WORDS, "--dry-run") == 1
    assert "a checkpoint read back differs from what was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--dry-run", "--resume"],
            "--dry-run: predicts a complete run that collects; leave --resume out",
        ),
        (["--json"], "--json: only with --dry-run"),
        (["--dry-run", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (
            ["--dry-run", "--run-dir", "/dev/null/run"],
            "/dev/null: Not a directory; fix that, or give another",
        ),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys, tmp_path):
    assert call(*WORDS, *words) == 1
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.startswith("planet: ")
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_episodes_that_end_early_make_more_rounds_and_that_is_told(capsys):
    words = ["train", "cartpole-vectors", "-s", "train.envs=2", "--dry-run"]
    assert call(*words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    short = result["short_episodes"]
    assert 5 < short["steps"] < 60  # a pole that is pushed at random
    assert short["run"]["updates"] > 10 * result["run"]["updates"]
    assert call(*words) == 0
    said = capsys.readouterr().out
    assert "gym/CartPole-v1, vectors, cpu" in " ".join(said.split())
    assert "episodes may end early: all as short as random ones" in said
