"""Two processes that learn together take the steps of one: the second is a real `planet train`."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import forks
import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.behavior import untrained_behavior
from planet_rssm.cli.main import main
from planet_rssm.config.files import presets
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner
from planet_rssm.training.metrics import repeatable_lines
from planet_rssm.training.progress import Progress
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.training.start import train
from planet_rssm.training.team import Team
from planet_rssm.world_model import untrained_model

ROWS, LENGTH = 3, 4  # rows that two do not divide
SIZE = f"""
    env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=3 rssm.classes=4 rssm.hidden=8
    model.vector_units=8 model.reward_units=8 model.continue_units=8 behavior.units=8
    behavior.horizon=2 train.batch_size={ROWS} train.batch_length={LENGTH} device=cpu
    train.precision=float32
""".split()
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, 2, 1, 0.1, 100, "own", "fake 0", terminates=True
)
IMAGES = replace(SPEC, observation={"image": ((32, 32, 3), "uint8"), **SPEC.observation})
# Of bins up to e^20 a mean has no digit left where its probabilities are rounded otherwise.
NARROW = "behavior.critic=symlog_twohot"
CASES = {name: [name] for name in presets()} | {
    "dreamer-v3": ["dreamer-v3", "rssm.blocks=4", "optimizer.warmup=16"],
    "quickstart": ["quickstart", NARROW],
    "dreamer-vectors": ["dreamer-vectors", NARROW],
    "images": ["quickstart-search", "kl.overshooting=3"],
    "starts": ["dreamer-v2", "behavior.starts=0.4", "behavior.normalise=percentiles"],
}
PLANET = "planet_rssm", "train", "planet"
LONG = "planet", "dreamer-v2"  # twenty steps, the others two
TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none
    env.action_repeat=5 env.time_limit=100
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16 model.vector_units=16
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=400 train.seed_episodes=2 train.envs=2 train.updates=4 train.batch_size=5
    train.batch_length=8 train.test_every=5 train.test_episodes=1 device=cpu
""".split()


@contextlib.contextmanager
def second(monkeypatch: pytest.MonkeyPatch, *words: str) -> Iterator[subprocess.Popen]:
    """The process `python -m WORDS`; here are the variables that torchrun sets in the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    said = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    other = subprocess.Popen(
        [sys.executable, "-m", *words], env=os.environ | forks.OURS | said | {"RANK": "1"}
    )
    try:
        with monkeypatch.context() as patch:
            for name, value in (said | {"RANK": "0"}).items():
                patch.setenv(name, value)
            yield other
    except BaseException:
        other.kill()
        raise
    finally:
        other.wait(20)


@pytest.fixture(autouse=True)
def _left_group(one_thread_and_seed: None) -> Iterator[None]:
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def learner_of(spec: EnvSpec, preset: str, *overrides: str) -> Learner:
    settings = config.load(preset, [*SIZE, *overrides])
    model = untrained_model(settings, spec)
    return Learner(model, settings, torch.device("cpu"), untrained_behavior(settings, model))


def batch_of(spec: EnvSpec, index: int) -> Chunks:
    """Chunks of which most is padding in one half, with ends."""
    rng = np.random.default_rng(index)
    chunks = random_chunks(spec, ROWS, LENGTH)
    chunks.mask[0, 2 + index % 2 :] = False
    chunks.mask[1, 1:] = False
    chunks.is_terminal[2, -1] = True
    reward = rng.uniform(size=chunks.reward.shape).astype(np.float32)
    speed = rng.standard_normal((ROWS, LENGTH, 3), np.float32)
    return chunks._replace(reward=reward, observation={**chunks.observation, "speed": speed})


def test_two_take_the_steps_of_one(
    monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    with second(monkeypatch, "follower", str(len(CASES))) as other, Team.joined() as team:
        for name, words in CASES.items():
            with subtests.test(name):
                spec = IMAGES if name == "images" else SPEC
                alone, together = learner_of(spec, *words), learner_of(spec, *words)
                checkpoint = together.checkpoint(spec, asdict(Progress()))
                team.share(checkpoints.to_bytes(checkpoint))
                together.join(team)
                compare_steps(alone, together, 20 if name in LONG else 2)
                team.end()
    assert other.returncode == 0


def test_its_threads_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of the group of DistributedDataParallel, which end with the learner."""
    before = of_gloo()
    with second(monkeypatch, "follower", "1") as other, Team.joined() as team:
        assert more_than(before, 2) == 2, "a group has two"
        together = learner_of(SPEC, "planet")
        team.share(checkpoints.to_bytes(together.checkpoint(SPEC, asdict(Progress()))))
        together.join(team)
        together.update(batch_of(SPEC, 0), 0)
        assert more_than(before, 4) == 4, "a second group"
    assert other.returncode == 0
    assert more_than(before, 2) == 2, "the first group's are gone"
    del together
    gc.collect()
    assert more_than(before, 0) == 0


def more_than(before: set[str], expected: int) -> int:
    """Return how many threads of gloo's came since, at the latest in ten seconds.

    A thread names itself when it first runs, and those of earlier tests may still end.
    """
    until = time.monotonic() + 10
    while (count := len(of_gloo() - before)) != expected and time.monotonic() < until:
        time.sleep(0.01)
    return count


def of_gloo() -> set[str]:
    """Return which threads run gloo's work here."""
    found = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            if path.read_text().startswith("pt_gloo_runloop"):
                found.add(path.parent.name)
    return found


def compare_steps(alone: Learner, together: Learner, updates: int) -> None:
    for index in range(updates):
        batch = batch_of(alone.model.spec, index)
        expected, measured = (one.update(batch, index) for one in (alone, together))
        assert expected.keys() == measured.keys() != {"skipped"}
        if not index:
            numbers = list(measured.values()), list(expected.values())
            np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-6)
            compare(gradients(together), gradients(alone), 1e-5)
    compare(weights(together), weights(alone), 1e-4)


def gradients(learner: Learner) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in learner.parameters().items()}


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in learner.parameters().items()}


def compare(ours: dict, theirs: dict, share: float) -> None:
    """Check that no tensor differs by more than this share of its greatest number."""
    for name, tensor in theirs.items():
        if tensor is None:
            assert ours[name] is None, name
            continue
        scale = tensor.abs().max().clamp(min=1e-4)
        error = float((ours[name] - tensor).abs().max() / scale)
        assert error < share, f"{name}: {error:.1e} of {scale:.1e}"


def test_a_run_of_two_is_that_of_one_and_goes_on_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for setting in TINY for word in ("-s", setting)]
    command = ["train", "planet", *words, "--plan-episodes", "0", "--run-dir"]
    assert call(*command, str(tmp_path / "one")) == 0
    first = ["-s", "train.env_steps=300"]
    with second(monkeypatch, *PLANET) as other:
        assert call(*command, str(tmp_path / "two"), *first) == 0
    assert other.returncode == 0
    assert "2 processes learn together" in capsys.readouterr().err
    assert call(*command, str(tmp_path / "two"), "--resume") == 0
    assert "processes that learn: 1, 2 before" in capsys.readouterr().err
    alone, together = (repeatable_lines(tmp_path / name) for name in ("one", "two"))
    assert len(alone) == len(together) > 4
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        assert one["phase"] == two["phase"]
        for key in ("env_steps", "updates", "episodes"):
            assert one[key] == two[key]
        assert one.get("loss/total", 0) == pytest.approx(two.get("loss/total", 0), rel=1e-4)


def test_a_run_whose_second_process_dies_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config.load("planet", TINY)
    run = Run.create(tmp_path, settings.model_copy(update={"env": resolve(settings.env)}), "cpu")
    with second(monkeypatch, *PLANET) as other, pytest.raises(PlanetError) as error:
        with Team.joined() as team:
            train(run, KillAt(6, other.pid), team)
    assert str(error.value) == (
        "another process of this run has ended, so no update can be made; what was committed is "
        "kept: start torchrun again with --resume"
    )
    train(Run.open(tmp_path), Display())
    assert repeatable_lines(tmp_path)[-1]["updates"] == 8


def test_a_leader_that_is_stopped_commits_and_lets_the_other_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config.load("planet", TINY)
    run = Run.create(tmp_path, settings.model_copy(update={"env": resolve(settings.env)}), "cpu")
    with second(monkeypatch, *PLANET) as other, pytest.raises(Interrupted):
        with Team.joined() as team:  # torchrun asks all of them
            train(run, KillAt(6, other.pid, os.getpid(), number=signal.SIGTERM), team)
    assert other.returncode == 0
    train(Run.open(tmp_path), Display())
    assert repeatable_lines(tmp_path)[-1]["updates"] == 8


def test_more_processes_than_rows_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "x"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    assert (
        call("train", "planet", "-s", "train.batch_size=1", "--run-dir", str(tmp_path / "run")) == 1
    )
    assert "train.batch_size = 1: 2 processes learn and each needs a row" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert call("train", "planet", "--dry-run") == 1
    assert "--dry-run: measures one process; run it without torchrun" in capsys.readouterr().err


def test_a_variable_of_torchrun_that_is_no_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")
    assert call("train", "planet") == 1
    assert "RANK = 'x': torchrun sets it to a number; unset it" in capsys.readouterr().err


class KillAt(Display):
    """Signals processes after the n-th update."""

    def __init__(self, update: int, *pids: int, number: int = signal.SIGKILL) -> None:
        super().__init__()
        self.left, self.pids, self.number = update, pids, number

    def advance(self, **values: object) -> None:
        self.left -= "loss" in values
        if not self.left and "loss" in values:
            for pid in self.pids:
                os.kill(pid, self.number)
            time.sleep(0.1)


def call(*words: str) -> int:
    try:
        main(list(words))
    except SystemExit as end:
        return int(end.code or 0)
    return 0
