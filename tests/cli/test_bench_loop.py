"""`planet bench loop`: what is counted and reported, not how fast this machine is."""

import json
from pathlib import Path

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.bench.loop import bench_loop
from planet_rssm.cli.main import main
from planet_rssm.control import ControlLoop, SimulatedTime
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import untrained_model

SPEC = EnvSpec(
    "gym/Arm-v0",
    {"image": ((32, 32, 3), "uint8"), "joints": ((3,), "float32")},
    2,
    1,
    0.05,
    100,
    "own",
    "fake 0",
)
SETTINGS = config.load(
    "planet",
    "env.observe=both env.size=32 model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 "
    "model.vector_units=8 "
    "planner.candidates=8 planner.elites=2 planner.iterations=2 planner.horizon=4".split(),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / location.FOLDER).mkdir()
    kept = Checkpoint(
        SETTINGS, SPEC, {"env_steps": 5}, dict(untrained_model(SETTINGS, SPEC).state_dict()), {}
    )
    checkpoints.save(kept, location.path_of(folder, 5))
    return folder


def test_each_decision_is_timed_and_each_tick_counted(run, monkeypatch):
    frames, tick, clock = [], ControlLoop.tick, SimulatedTime(0.07)
    monkeypatch.setattr(
        ControlLoop, "tick", lambda loop, frame: frames.append(frame) or tick(loop, frame)
    )
    result = bench_loop(
        run, seconds=1, camera=(48, 36), device="cpu", clock=clock, delay=2, execute=2
    )
    # the tenth decision is under way
    assert (result.ticks, result.misses, result.decisions) == (20, 0, 9)
    assert clock.now() < 1 and result.dropped == 0  # nothing is slept after the last
    assert result.counts == {"plan": 18, "tail": 0, "fallback": 0, "start": 2, "skipped": 0}
    assert result.latency_ms == pytest.approx({"p50": 70, "p95": 70, "p99": 70, "max": 70})
    assert {frame["image"].shape for frame in frames} == {(36, 48, 3)}
    assert not np.array_equal(frames[0]["image"], frames[1]["image"])
    result = bench_loop(run, seconds=1, device="cpu", clock=SimulatedTime(0.07))
    assert result.misses == result.ticks == 20
    result = bench_loop(run, seconds=0.1, device="cpu", clock=SimulatedTime(1.0))
    # it waits for one
    assert result.decisions == 1 and result.misses == result.ticks >= 20


def test_the_command_prints_it(run, capsys):
    words = [
        "bench",
        "loop",
        str(run),
        "--seconds",
        "0.2",
        "--device",
        "cpu",
        "-s",
        "planner.iterations=1",
    ]
    main([*words, "--json", "--budget-ms", "40", "--planner", "icem"])
    result = json.loads(capsys.readouterr().out)
    assert result["planner"] == {"name": "icem", "candidates": [8], "horizon": 4}
    assert (
        result["hz"] == result["trained_hz"] == 20
        and result["budget_ms"] == 40
        and result["rounds"] == 1
    )
    assert result["ticks"] == sum(result["counts"].values()) >= 4
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    main([*words, "--hz", "50"])
    said = capsys.readouterr()
    assert "gym/Arm-v0, cem of 8 candidates, horizon 4, 1 of 1 rounds; cpu" in said.out
    assert (
        "50 Hz, delay 0, execute 1: " in said.out
        and "from frame (640x480) to plan, ms: p50 " in said.out
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--hz", "0"], "planet: hz 0: must be more than 0, in ticks a second; 20 for example"),
        (["--delay", "-1"], "planet: delay -1: must be at least 0 ticks"),
        (["--execute", "5"], "planet: execute 5: must be 1 to planner.horizon = 4 ticks"),
        (
            ["--budget-ms", "0"],
            "planet: budget_ms 0: must be more than 0 and at most 50, "
            "what a plan has at 20 Hz with "
            "delay 0 and execute 1",
        ),
        (
            ["--camera", "640"],
            "planet: Invalid value for '--camera': '640': "
            "give width and height in pixels, 640x480 "
            "for example",
        ),
        *(
            (
                ["--seconds", given],
                f"planet: seconds {given}: must be more than 0 and finite; 60 for example",
            )
            for given in ("0", "nan", "inf")
        ),
        (
            ["-s", "rssm.deter=9"],
            "planet: -s rssm.deter=9: "
            "only planner.…, rssm.filter_by and rssm.plan_by may "
            "change now; train another run",
        ),
    ],
)
def test_a_mistake_is_one_line(run, words, line, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "loop", str(run), "--device", "cpu", *words])
    said = capsys.readouterr()
    assert said.err.strip() == line and not said.out


def test_no_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "loop", str(tmp_path / "none")])
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
