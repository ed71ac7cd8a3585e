"""Learning from episodes alone: what it leaves behind, resuming bit for bit, what is refused."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.cli.main import main
from planet_rssm.data.episode import EpisodeWriter
from planet_rssm.data.replay import Replay
from planet_rssm.envs.pool import EnvPool
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines as lines
from planet_rssm.training.offline import adopt_environment, open_episodes
from planet_rssm.training.player import simple_player
from planet_rssm.training.record import write_episodes
from planet_rssm.training.start import train

ENV = ["env.size=32", "env.renderer=raycast", "env.action_repeat=5", "env.time_limit=100"]
TINY = """
    model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    model.decode_fraction=0.5
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.updates=5 train.offline_updates=12 train.batch_size=4 train.batch_length=8 device=cpu
""".split()
TINY_WORDS = [word for setting in TINY for word in ("-s", setting)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random episodes of 21 frames."""
    folder = tmp_path_factory.mktemp("set") / "random"
    write_episodes(folder, simple_player("dmc/cartpole-swingup", ENV, "random", 0), 2, 0, 2)
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random episodes of images and vectors."""
    folder = tmp_path_factory.mktemp("both") / "random"
    write_episodes(
        folder,
        simple_player("dmc/cartpole-swingup", [*ENV, "env.observe=both"], "random", 0),
        2,
        0,
        2,
    )
    return folder


@pytest.fixture(autouse=True)
def no_environment(
    request: pytest.FixtureRequest, data: Path, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing here may start one, but the test that plans."""

    def start(*_: object) -> None:
        raise AssertionError("an environment was started")

    if "plan" not in request.node.name:
        monkeypatch.setattr(EnvPool, "__init__", start)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An uninterrupted run of 12 updates, in rounds of 5."""
    folder = tmp_path_factory.mktemp("complete")
    train(new_run(folder, data), Display())
    return folder


def new_run(folder: Path, data: Path, *overrides: str) -> Run:
    settings = config.load("planet", [*TINY, f"data.folder={data}", *overrides])
    return Run.create(folder, adopt_environment(settings, overrides)[0], "cpu")


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
        raise SystemExit(0)
    return int(caught.value.code or 0)


class StopAt(Display):
    """Asks the process to stop at the n-th update."""

    def __init__(self, update: int) -> None:
        super().__init__()
        self.left = update

    def advance(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_leaves_checkpoints_by_updates_and_lines_of_learning_alone(complete: Path) -> None:
    measured = lines(complete)
    assert [(line["phase"], line["updates"]) for line in measured] == [
        ("train", 5),
        ("train", 10),
        ("train", 12),
    ]
    assert {(line["env_steps"], line["agent_steps"], line["episodes"]) for line in measured} == {
        (200, 40, 2)
    }
    assert [path.stem for path in location.numbered(complete)] == ["0000000010", "0000000012"]
    assert checkpoints.load(location.find(complete)).spec.renderer == "raycast"
    assert not (complete / "episodes").exists()


@pytest.mark.parametrize("update", [1, 5, 7, 12])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    complete: Path, data: Path, tmp_path: Path, update: int
) -> None:
    run = new_run(tmp_path, data)
    with pytest.raises(Interrupted):
        train(run, StopAt(update))
    assert len(lines(tmp_path)) < len(lines(complete))
    train(Run.open(tmp_path), Display())
    assert lines(tmp_path) == lines(complete)
    ours, theirs = (checkpoints.load(location.find(folder)) for folder in (tmp_path, complete))
    assert all((ours.model[key] == theirs.model[key]).all() for key in theirs.model)
    assert all((ours.optimizer[key] == theirs.optimizer[key]).all() for key in theirs.optimizer)


def test_a_finished_run_does_nothing_more_and_can_be_given_more(
    complete: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(complete, tmp_path / "copy")
    train(Run.open(copy), Display())
    assert lines(copy) == lines(complete)
    more = config.override(Run.open(copy).settings, ["train.offline_updates=20"])
    train(Run.open(copy, more), Display())
    assert lines(copy)[:3] == lines(complete)
    assert lines(copy)[-1]["updates"] == 20


def test_episodes_that_changed_are_reported_and_learned_from(
    complete: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(data, tmp_path / "set")
    run = new_run(tmp_path / "run", other)
    with pytest.raises(Interrupted):
        train(run, StopAt(5))
    replay = Replay(other, 10_000)
    replay.truncate(1)
    train(run, Display())
    assert (
        "not the episodes that the checkpoint had learned from (1 now, 2 then)"
        in capfd.readouterr().err
    )
    assert lines(tmp_path / "run")[-1]["episodes"] == 1


@pytest.mark.parametrize("observe", ["pixels", "vectors"])
def test_of_episodes_with_images_and_vectors_either_may_be_learned_from_alone(
    both: Path, tmp_path: Path, observe: str, capsys: pytest.CaptureFixture
) -> None:
    run = new_run(tmp_path / "run", both, f"env.observe={observe}", "train.offline_updates=2")
    train(run, Display())
    checkpoint = checkpoints.load(location.find(tmp_path / "run"))
    kept = {
        key
        for key, (shape, _) in checkpoint.spec.observation.items()
        if (len(shape) == 3) == (observe == "pixels")
    }
    assert set(checkpoint.spec.observation) == kept and 0 < len(kept) < len(
        Replay(both, 10_000).env["observation"]
    )
    assert checkpoint.settings.env.observe == observe
    train(Run.open(tmp_path / "run"), Display())  # it can be opened again
    assert call("dream", tmp_path / "run", "--data", both, "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["image_error"] is None) == (observe == "vectors")
    assert (measured["vector_error"] is None) == (observe == "pixels")


def test_what_the_episodes_do_not_show_is_refused(data: Path) -> None:
    settings = config.load("planet", [f"data.folder={data}", *TINY, "env.observe=vectors"])
    with pytest.raises(
        PlanetError, match="env.observe = vectors: the episodes have only image; leave it out"
    ):
        adopt_environment(settings, ["env.observe=vectors"])


def test_the_environment_is_that_of_the_episodes(data: Path) -> None:
    settings = config.load("planet", [f"data.folder={data}", *TINY])
    assert settings.env.id == "dmc/cheetah-run"
    adopted, line = adopt_environment(settings, [])
    asked = ["env.id=cartpole_swingup", "env.renderer=auto", "env.action_repeat=5"]  # agrees
    assert adopt_environment(config.override(settings, asked), asked) == (adopted, line)
    env = adopted.env
    assert (env.id, env.size, env.renderer, env.action_repeat) == (
        "dmc/cartpole-swingup",
        32,
        "raycast",
        5,
    )
    assert "learning from 2 episodes, 42 frames" in line
    assert "dmc/cartpole-swingup, raycast 32x32 pixels, action repeat 5" in line


def test_episodes_shorter_than_a_chunk_are_learned_from(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--offline", "--data", data, "--run-dir", tmp_path / "run", "--updates", "2"]
    assert call("train", "planet", *TINY_WORDS, *words, "-s", "train.batch_length=50") == 0
    assert "58% of each batch is padding" in capsys.readouterr().err
    assert lines(tmp_path / "run")[-1]["loss/total"] > 0


def test_what_was_left_out_of_the_episodes_stays_out(both: Path, tmp_path: Path) -> None:
    spec = open_episodes(config.load("planet", [f"data.folder={both}", *TINY]))[1]
    first, second = sorted(key for key in spec.observation if key != "image")
    asked = [f"env.drop={first}"]
    adopted, _ = adopt_environment(
        config.load("planet", [f"data.folder={both}", *TINY, *asked]), asked
    )
    assert (adopted.env.drop, adopted.env.keys, adopted.env.observe) == ((first,), (), "both")
    train(Run.create(tmp_path / "run", adopted, "cpu"), Display())
    checkpoint = checkpoints.load(location.find(tmp_path / "run", "last"))
    assert sorted(checkpoint.spec.observation) == sorted(["image", second])
    resumed, _ = adopt_environment(adopted, asked)
    assert resumed == adopted
    fewer = dataclasses.replace(spec.select_observations("both", names := [first]), drop=(first,))
    assert fewer.select_observations("both", names) == fewer  # out already
    drawn = dataclasses.replace(
        spec, drop=("image",)
    )  # a vector had that name, and made room for the frame
    assert drawn.select_observations("both", ["image"]) == drawn
    wrong = [f"env.drop={first}x"]
    with pytest.raises(PlanetError, match=f"env.drop = '{first}x': .* did you mean '{first}'"):
        adopt_environment(config.load("planet", [f"data.folder={both}", *TINY, *wrong]), wrong)


def test_the_command_learns_then_plans(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [
        "train",
        "planet",
        *TINY_WORDS,
        "--offline",
        "--data",
        data,
        "--run-dir",
        tmp_path / "run",
    ]
    assert call(*words, "--updates", "3") == 0
    assert "the environment is theirs" in capsys.readouterr().err
    assert lines(tmp_path / "run")[-1]["updates"] == 3
    assert call(*words, "--updates", "6", "--resume") == 0
    assert lines(tmp_path / "run")[-1]["updates"] == 6
    capsys.readouterr()
    assert (
        call("train", tmp_path / "run" / "config.yaml", "--resume", "--run-dir", tmp_path / "run")
        == 0
    )
    assert call("plan", tmp_path / "run", "--episodes", "1", "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["task"] == "dmc/cartpole-swingup"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--data", "SET"], "only with --offline"),
        (["--offline"], "--offline: nothing to learn from; add --data DIR"),
        (["--updates", "5"], "--updates 5: only with --offline"),
        (
            ["--offline", "--data", "missing"],
            "missing: no such folder; give one that `planet collect` wrote",
        ),
        (
            ["--offline", "--data", "EMPTY"],
            "holds no episode; give a folder that `planet collect` wrote",
        ),
        (
            ["--offline", "--data", "ZARR"],
            "holds no episode: it is a .zarr folder, which is another program's; give a folder",
        ),
        (
            ["--offline", "--data", "TFRECORD"],
            "a .tfrecord file, which is another program's, not a folder of episodes; give a folder",
        ),
        (
            ["--offline", "--data", "SMALL"],
            "observes image [12, 12, 3]; needs images [size, size, 3] of size 16 to",
        ),
        (["--offline", "--data", "SET", "-s", "env.size=64"], "env.size = 64: the episodes in"),
        (
            ["--offline", "--data", "SET", "-s", "env.renderer=egl"],
            "have raycast; leave env.renderer out",
        ),
        (
            ["--offline", "--data", "SET", "-s", "env.id=walker-walk"],
            "env.id = dmc/walker-walk: the episodes in",
        ),
        (
            ["--offline", "--data", "SET", "--dry-run"],
            "--dry-run: predicts a complete run that collects; leave --offl",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(
    data: Path, words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    empty, small = tmp_path / "empty", tmp_path / "small"
    empty.mkdir()
    env = Replay(data, 10_000).env
    assert env is not None
    writer = EpisodeWriter(
        {"image": np.zeros((12, 12, 3), np.uint8)},
        {"env": {**env, "observation": {"image": [[12, 12, 3], "uint8"]}}, "seed": 0},
    )
    for _ in range(20):
        writer.append(
            np.zeros(1, np.float32),
            {"image": np.zeros((12, 12, 3), np.uint8)},
            0.0,
            False,
            False,
            1,
        )
    Replay(small, 100).add(writer.finish(), 0)
    zarr = tmp_path / "demo.zarr"
    (zarr / "data").mkdir(parents=True)
    tfrecord = tmp_path / "demo.tfrecord"
    tfrecord.write_bytes(b"")
    known = {"SET": data, "EMPTY": empty, "SMALL": small, "ZARR": zarr, "TFRECORD": tfrecord}
    folder = tmp_path / "run"
    assert (
        call(
            "train",
            "planet",
            *TINY_WORDS,
            "--run-dir",
            folder,
            *(known.get(word, word) for word in words),
        )
        == 1
    )
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.strip().splitlines()[-1].startswith("planet: ")
    assert not folder.exists()


def test_a_run_that_collected_is_not_taken_up_offline(
    data: Path, complete: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = shutil.copytree(complete, tmp_path / "copy")
    saved = Run.open(copy).settings
    config.save(config.resolve(config.flatten(saved) | {"data.folder": None}), copy / "config.yaml")
    assert (
        call(
            "train",
            "planet",
            *TINY_WORDS,
            "--offline",
            "--data",
            data,
            "--run-dir",
            copy,
            "--resume",
        )
        == 1
    )
    assert "a resumed run may change only" in capsys.readouterr().err
