"""The loop on a real task, made tiny: what it leaves behind; a resumed run equals any other."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.config import Settings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import METRICS, Run
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines as lines
from planet_rssm.training.start import train

# 3 rounds of 2 episodes after 2 random ones; 20 agent steps an episode
TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast
    env.action_repeat=5 env.time_limit=100
    model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    model.decode_fraction=0.5
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=600 train.seed_episodes=2 train.envs=2 train.updates=5 train.batch_size=4
    train.batch_length=8
    train.test_every=2 train.test_episodes=2 device=cpu
""".split()


def new_run(folder: Path, *overrides: str) -> Run:
    settings = config.load("planet", [*TINY, *overrides])
    return Run.create(folder, settings.model_copy(update={"env": resolve(settings.env)}), "cpu")


def changed(folder: Path, *overrides: str) -> Settings:
    return config.override(Run.open(folder).settings, overrides)


class StopAt(Display):
    """Asks the process to stop at the n-th advance of a stage, as Ctrl-C or SIGTERM would."""

    def __init__(self, stage: str, advance: int, number: int) -> None:
        super().__init__()
        self.wanted, self.left, self.number, self.now = stage, advance, number, ""

    def stage(self, name: str, total: int) -> None:
        self.now = name

    def advance(self, **_: object) -> None:
        if self.now == self.wanted:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("complete")
    train(new_run(folder), Display())
    return folder


def test_a_run_leaves_what_the_design_says(complete: Path) -> None:
    measured = lines(complete)
    assert [line["phase"] for line in measured] == ["collect", "train"] + [
        "collect",
        "train",
        "test",
    ] * 2
    assert [line["env_steps"] for line in measured if line["phase"] == "collect"] == [
        200,
        400,
        600,
    ]
    assert measured[-1]["updates"] == 15
    assert measured[-1]["agent_steps"] == 120
    for line in measured:
        assert {"format", "phase", "env_steps", "agent_steps", "updates", "episodes"} <= line.keys()
    assert [path.stem for path in location.numbered(complete)] == ["0000000400", "0000000600"]
    assert location.find(complete, "best").is_file()
    assert sorted(path.name for path in (complete / "episodes").glob("*.safetensors")) == [
        f"{index:06d}.safetensors" for index in range(6)
    ]
    record = json.loads((complete / "run.json").read_text())
    assert record["versions"]["mujoco"]
    assert checkpoints.load(location.find(complete)).spec.renderer == "raycast"


def test_a_run_says_where_its_time_went(complete: Path) -> None:
    *_, last = [
        line
        for line in map(json.loads, (complete / METRICS).read_text().splitlines())
        if line["phase"] == "train"
    ]
    spent = last["stage_seconds"]
    named = {
        "start",
        "environment",
        "filter",
        "plan",
        "collect",
        "waiting",
        "learn",
        "test",
        "checkpoint",
    }
    assert set(spent) == named and min(spent.values()) >= 0


@pytest.mark.parametrize(
    ("stage", "advance", "number"),
    [
        ("learn", 8, signal.SIGTERM),
        ("learn", 5, signal.SIGTERM),
        ("collect", 3, signal.SIGINT),
        ("test", 1, signal.SIGTERM),
    ],
)
def test_a_run_that_was_asked_to_stop_goes_on_as_if_it_had_not(
    complete: Path, tmp_path: Path, stage: str, advance: int, number: int
) -> None:
    run = new_run(tmp_path)
    with pytest.raises(Interrupted):
        train(run, StopAt(stage, advance, number))
    assert len(lines(tmp_path)) < len(lines(complete))
    train(Run.open(tmp_path), Display())
    assert lines(tmp_path) == lines(complete)
    for name in ("0000000600", "best"):
        ours, theirs = (
            checkpoints.load(location.path_of(folder, name)) for folder in (tmp_path, complete)
        )
        assert all((ours.model[key] == theirs.model[key]).all() for key in theirs.model)
        assert all((ours.optimizer[key] == theirs.optimizer[key]).all() for key in theirs.optimizer)
    for path in (complete / "episodes").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "episodes" / path.name).read_bytes()


def test_a_finished_run_does_nothing_more_and_can_be_given_more(
    complete: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(complete, tmp_path / "copy")
    train(Run.open(copy), Display())
    assert lines(copy) == lines(complete)
    train(Run.open(copy, changed(copy, "train.env_steps=800")), Display())
    assert lines(copy)[: len(lines(complete))] == lines(complete)
    assert lines(copy)[-1]["env_steps"] == 800


def test_names_that_were_resolved_may_be_given_again(complete: Path) -> None:
    settings = changed(
        complete, "env.id=cartpole_swingup", "env.renderer=auto", "env.action_repeat=null"
    )
    assert Run.open(complete, settings).settings == Run.open(complete).settings


def test_two_processes_do_not_train_in_one_folder(complete: Path) -> None:
    run = Run.open(complete)
    with run.lock(), pytest.raises(PlanetError, match="another process is training in it"):
        train(run, Display())


def test_a_folder_with_episodes_is_not_taken_for_a_new_run(complete: Path, tmp_path: Path) -> None:
    shutil.copytree(complete / "episodes", tmp_path / "episodes")
    with pytest.raises(PlanetError, match="holds episodes/[^ ]* but no config.yaml"):
        new_run(tmp_path)
    assert len(list((tmp_path / "episodes").glob("*.safetensors"))) == 6


def test_checkpoints_that_cannot_be_read_cost_no_episode(complete: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(complete, tmp_path / "copy")
    for path in location.numbered(copy):
        path.write_bytes(b"nothing")
    with pytest.raises(PlanetError, match="damaged or not a checkpoint"):
        train(Run.open(copy), Display())
    assert len(list((copy / "episodes").glob("*.safetensors"))) == 6


def test_another_environment_is_refused_before_anything_is_collected(
    complete: Path, tmp_path: Path, monkeypatch
) -> None:
    copy = shutil.copytree(complete, tmp_path / "copy")
    spec = EnvSpec.from_json(
        {**checkpoints.load(location.find(copy)).spec.to_json(), "simulator": "mujoco 3.99.0"}
    )
    monkeypatch.setattr(
        EnvPool, "spec", property(lambda pool: spec, lambda pool, value: None), raising=False
    )
    with pytest.raises(
        PlanetError, match="simulator is mujoco 3.99.0 here, the run has learned from mujoco 3"
    ):
        train(Run.open(copy), Display())


def test_a_resumed_run_may_not_change_what_was_learned_from(complete: Path) -> None:
    with pytest.raises(PlanetError, match="rssm.deter = 32.*a resumed run may change only"):
        Run.open(complete, changed(complete, "rssm.deter=32"))


def test_a_loss_that_is_not_finite_is_skipped_counted_and_stops_the_run_in_the_end(
    tmp_path: Path,
) -> None:
    run = new_run(tmp_path, "model.image_scale=1e38", "train.max_skipped=3", "train.updates=50")
    with pytest.raises(PlanetError, match="not finite 4 times in a row.*lower optimizer.lr"):
        train(run, Display())


def test_a_damaged_newest_checkpoint_costs_one_round(
    complete: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    train(new_run(tmp_path), Display())
    newest = location.find(tmp_path)
    newest.write_bytes(newest.read_bytes()[:1000])
    train(Run.open(tmp_path), Display())
    assert "going back to the one before" in capfd.readouterr().err
    assert lines(tmp_path)[:8] == lines(complete)[:8]
    checkpoints.load(newest)
    assert newest.with_name(newest.name + ".damaged").is_file()
