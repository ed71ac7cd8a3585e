"""kill -9 at random moments, resume each time: the run ends, nothing is corrupt.

The metrics are those of an undisturbed run.

KILLS=100 ./scripts/test tests/faults/test_kill.py    # as often as one likes; the run grows with it
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planet_rssm.data.episode import Episode
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.training.metrics import repeatable_lines as measured

KILLS = int(os.environ.get("KILLS", "6"))
MOST = 4  # lines between two kills, of two or three a round: the run outlasts them on any machine
SETTINGS = f"""
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast
    env.action_repeat=10 env.time_limit=200 model.depth=2
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16 planner.candidates=8
    planner.iterations=1 planner.elites=2 planner.horizon=3 train.env_steps={600 * KILLS}
    train.seed_episodes=2 train.envs=1 train.updates=4 train.batch_size=2 train.batch_length=8
    train.test_every=4 device=cpu
""".split()


def start(folder: Path, *, resume: bool) -> subprocess.Popen:
    words = [word for setting in SETTINGS for word in ("-s", setting)]
    command = [
        sys.executable,
        "-m",
        "planet_rssm",
        "train",
        "planet",
        "--run-dir",
        str(folder),
        "--plan-episodes",
        "0",
    ]
    if resume:
        command += ["--resume"]
    with open(folder.parent / "log", "ab") as log:
        return subprocess.Popen(command + words, stdout=log, stderr=log, start_new_session=True)


def let_it_work(metrics: Path, run: subprocess.Popen, seconds: float, most: int = MOST) -> None:
    """Wait so long, or until it has measured `most` lines more, or has ended."""
    before, end = lines(metrics), time.monotonic() + seconds
    while lines(metrics) < before + most and run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def lines(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    peace, war = tmp_path / "peace", tmp_path / "war"
    assert start(peace, resume=False).wait(60 * KILLS) == 0
    rng = random.Random(0)
    kills = 0
    run = start(war, resume=False)
    while kills < KILLS:
        if kills % 2:
            # from the start of the process: the first seed episodes, or what a resumed run does at
            # first
            let_it_work(war / "metrics.jsonl", run, rng.uniform(0.02, 1.5))
        else:  # from the first line that it measures
            let_it_work(war / "metrics.jsonl", run, 60, most=1)
            let_it_work(war / "metrics.jsonl", run, rng.uniform(0.0, 1.0), MOST - 1)
        if run.poll() is not None:
            break
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        kills += 1
        run = start(war, resume=(war / "config.yaml").exists())
    assert run.wait(60 * KILLS) == 0, (tmp_path / "log").read_text()
    assert kills == KILLS, f"the run ended after {kills} kills: make it longer"
    assert measured(war) == measured(peace)
    ours, theirs = (checkpoints.load(location.find(folder)) for folder in (war, peace))
    assert all((ours.model[key] == theirs.model[key]).all() for key in theirs.model)
    for path in sorted((peace / "episodes").glob("*.safetensors")):
        assert path.read_bytes() == (war / "episodes" / path.name).read_bytes()
        Episode.load(path)
    assert not list(war.rglob("*.tmp")) + list(war.rglob("*.damaged"))
