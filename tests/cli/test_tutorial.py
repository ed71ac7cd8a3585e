"""The commands of README and tutorial run in the order in which a reader types them, only smaller.

Words are added to each; models of the package are untrained ones of the same kind.
"""

import json
import shlex
from pathlib import Path

import pytest
from pages import DOCS, README, commands_of

from planet_rssm.cli.main import main
from planet_rssm.runs import location

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("at_hand", "one_thread_and_seed")]

PLANNER = "planner.candidates=4 planner.iterations=1 planner.elites=2 planner.horizon=2"
MODEL = f"""
    model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8
    model.continue_units=8 device=cpu {PLANNER}
"""
ENV = "env.action_repeat=10 env.time_limit=100 env.renderer=raycast"  # ten decisions an episode
ACTOR = "behavior.units=8 behavior.horizon=2"
LEARN = """
    train.env_steps=200 train.seed_episodes=2 train.updates=1 train.batch_size=2
    train.batch_length=5 train.test_every=2 train.test_episodes=1 train.staleness=0
    train.offline_updates=2
"""


def settings(text: str) -> list[str]:
    return [word for setting in text.split() for word in ("-s", setting)]


SMALLER = {
    "collect": [*settings(ENV), "--episodes", "2"],
    "compare": ["--ms", "5", "--episodes", "2"],
    "diagnose": shlex.split("--episodes 2 --every 5 --budget 2"),
    "dream": shlex.split("--episodes 2 --context 1 --horizon 1 --horizon 3"),
    "eval": ["--episodes", "2"],
    "plan": ["--episodes", "1"],
    "train": settings(f"{MODEL} {ENV} {LEARN}"),
    "watch": ["--json"],  # looks once
}


FEWER = {
    "base.device.GEMM_SECONDS": 0.0,
    "cli.doctor.DISK_SECONDS": 0.0,
    "evaluation.equal_time.STEPS": (1, 2),
    "evaluation.film.VIDEO_SIZE": 64,
    "evaluation.xray.SIZE": 64,
}


@pytest.fixture(scope="module")
def packaged(untrained_run, tmp_path_factory):
    """A folder of untrained models with names of models in the package."""
    folder = tmp_path_factory.mktemp("packaged")
    for packaged in location._PACKAGED.iterdir():
        task = f"env.id=dmc/{packaged.name}"
        untrained_run(
            folder / packaged.name, "quickstart", *f"{MODEL} {ENV} {ACTOR} {task}".split()
        )
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, packaged):
    monkeypatch.setattr(location, "_PACKAGED", packaged)
    for name, value in FEWER.items():
        monkeypatch.setattr(f"planet_rssm.{name}", value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smaller(words: list[str]) -> list[str]:
    """The words of a command as a shell hands them on, and those that make it small."""
    typed = [
        path
        for word in words
        for path in ([str(path) for path in sorted(Path().glob(word))] if "*" in word else [word])
    ]
    added = SMALLER.get(words[0], [])
    if words[0] == "train" and "quickstart" in words:
        added = [*added, *settings(ACTOR)]
    if words[0] == "train" and "--offline" not in words and "--dry-run" not in words:
        added = [*added, "--plan-episodes", "1"]
    if words[1:] and words[1].startswith("simulator:"):
        added = [*added, *settings(f"{PLANNER} {ENV.rpartition(' ')[0]}")]
    return [*typed, *added]


def test_every_command_of_the_tutorial_runs(here, capsys):
    for words in commands_of(DOCS / "tutorial.md"):
        main(smaller(words))
    run = Path("runs/quickstart-cartpole-swingup-seed0")
    package = Path("runs/pretrained-cartpole-swingup")
    for made in (
        *(package / "videos" / name for name in ("plan.mp4", "xray.mp4", "dream.mp4")),
        run / "diagnosis" / "diagnosis.png",
        run / "report.html",
        Path("table.tex"),
    ):
        assert made.stat().st_size, made


def test_every_command_of_the_readme_runs(here, capsys):
    for words in commands_of(README):
        if "RUN" not in words and words != ["doctor"]:  # which is any; the tutorial has it too
            main(smaller(words))
    assert json.loads(Path("runs/planet-walker-walk-seed1/run.json").read_text())
