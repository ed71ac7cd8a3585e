"""Every verb, with tiny settings and the device."""

import json
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.cli.main import main
from planet_rssm.collect import _Rows

pytestmark = pytest.mark.gpu
TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=100 env.time_limit=1000
    model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8 model.vector_units=8
    planner.candidates=6 planner.iterations=2 planner.elites=2 planner.horizon=2
    train.batch_size=2 train.batch_length=4 train.seed_episodes=1 train.updates=2 train.test_every=1
    train.test_episodes=1 train.precision=float32 planner.precision=float32
""".split()
BEHAVIOR = """
    behavior=v3 behavior.units=8 planner.proposals=actor planner.terminal_value=critic env.observe=vectors
    env.renderer=none
""".split()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SECONDS", 0.0)
    monkeypatch.setattr("planet_rssm.bench.plan_value.STATES", 3)
    monkeypatch.setattr("planet_rssm.bench.plan_value.DRAWS", 2)
    monkeypatch.setattr("planet_rssm.bench.plan_value.STEPS", 3)


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
        raise SystemExit(0)
    return int(caught.value.code or 0)


def options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("-s", setting)]


@pytest.fixture(scope="module", autouse=True)
def any_numbers():
    """What the pretended device computes is whatever lay in memory: infinities in a checkpoint, NaN in an action."""
    clip = _Rows.clip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planet_rssm.runs.checkpoint._finite", lambda tensor: True)
        patch.setattr(_Rows, "clip", lambda rows, action: clip(rows, np.nan_to_num(action)))
        yield


@pytest.fixture(scope="module", params=["planner", "actor"])
def run(request, pretended, at_hand, tmp_path_factory) -> Path:
    """A run of two rounds, the second after a resume."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    more = BEHAVIOR if request.param == "actor" else []
    words = [
        "train",
        "planet",
        *options([*TINY, *more, "device=cuda"]),
        "--run-dir",
        folder,
        "--plan-episodes",
        "0",
    ]
    with pretended.counted() as found:
        assert call(*words, "-s", "train.env_steps=2000") == 0
        assert call(*words, "-s", "train.env_steps=3000", "--resume") == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("loss/total" in line for line in lines)
    assert (
        found["illegal"] == found["failed capture"] == found["outside"] == found["device wait"] == 0
    )
    return folder


def test_plan(device, run):
    with device.counted() as found:
        assert call("plan", run, "--episodes", "1", "--no-video", "--device", "cuda", "--json") == 0
    assert found["capture"] <= 8  # however many decisions there are


def test_eval(device, run):
    assert call("eval", run, "--episodes", "2", "--device", "cuda", "--json") == 0


def test_diagnose(device, run):
    words = ["--episodes", "2", "--every", "5", "--device", "cuda", "--json"]
    assert call("diagnose", run, *words) == 0


def test_compare(device, run, monkeypatch):
    monkeypatch.setattr("planet_rssm.evaluation.equal_time.STEPS", (1, 2))
    words = ["--ms", "1000", "--episodes", "1", "--device", "cuda", "--json"]
    assert call("compare", run, *words) == 0


def test_collect(device, run, tmp_path):
    words = [
        "cartpole-swingup",
        "--policy",
        run,
        "--episodes",
        "1",
        "--envs",
        "1",
        "--device",
        "cuda",
    ]
    assert call("collect", *words, "--out", tmp_path / "set") == 0


def test_dream(device, run):
    if run.parent.name.startswith("actor"):
        pytest.skip("it sees no images")
    assert call("dream", run, "--device", "cuda", "--episodes", "2", "--horizon", "3") == 0


def test_bench_loop(device, run):
    assert call("bench", "loop", run, "--seconds", "1", "--device", "cuda", "--json") == 0


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_bench(device, verb):
    words = {
        "plan": options("rssm.deter=16 rssm.stoch=4 rssm.classes=4 rssm.hidden=8".split()),
        "train": ["planet", *options(TINY)],
    }
    assert call("bench", verb, *words[verb], "--repeats", "1", "--device", "cuda", "--json") == 0
