"""Episodes that another process plans while the learner learns: the same ones, whatever happens."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.base.seeding import Stream
from planet_rssm.envs.registry import resolve
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import METRICS, Run
from planet_rssm.training.collector import Networks, Order, Threads, Watch
from planet_rssm.training.collector_process import ProcessCollector
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines as lines
from planet_rssm.training.start import train
from planet_rssm.world_model import untrained_model

# 4 rounds of 2 episodes after 2 random ones; 20 agent steps an episode
TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none
    env.action_repeat=5 env.time_limit=100
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=1000 train.seed_episodes=2 train.envs=2 train.updates=4 train.batch_size=4
    train.batch_length=8 train.staleness=1 train.test_every=2 train.test_episodes=1 device=cpu
""".split()


def new_run(folder: Path, *overrides: str) -> Run:
    settings = config.load("planet", [*TINY, *overrides])
    return Run.create(folder, settings.model_copy(update={"env": resolve(settings.env)}), "cpu")


class At(Display):
    """Does something at the n-th update of the run's process, or as the n-th of its tests ends."""

    def __init__(self, *wanted: tuple[str, int, Callable[[], object]]) -> None:
        super().__init__()
        self.wanted, self.counts, self.now = wanted, Counter[str](), ""

    def stage(self, name: str, total: int) -> None:
        self.now = name

    def advance(self, **_: object) -> None:
        self.counts[self.now] += 1
        for stage, number, do in self.wanted:
            if (stage, number) == (self.now, self.counts[stage]):
                do()


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("complete")
    train(new_run(folder), Display())
    return folder


def test_all_is_collected_and_learned_from_and_says_how_old_the_weights_were(
    complete: Path,
) -> None:
    measured = lines(complete)
    assert [line["phase"] for line in measured] == (
        "collect train collect train collect test train collect train collect test train test"
    ).split()
    collected = [line for line in measured if line["phase"] == "collect"]
    assert [line["env_steps"] for line in collected] == [200, 400, 600, 800, 1000]
    assert [line.get("age") for line in collected] == [None, None, 4, 4, 4]
    assert [line["updates"] for line in measured if line["phase"] == "train"] == [4, 8, 12, 16, 20]
    seconds = json.loads((complete / METRICS).read_text().splitlines()[4])["collector_seconds"]
    assert seconds.keys() == {"environment", "filter", "plan"}


def test_the_weights_that_plan_are_those_that_the_round_began_with(complete: Path) -> None:
    """The first two planned rounds have the same weights, the third has not."""
    other = complete.parent / "in_turns"
    train(new_run(other, "train.staleness=0", "train.env_steps=400"), Display())
    name = "episodes/000002.safetensors"
    assert (complete / name).read_bytes() == (other / name).read_bytes()


def test_stopped_and_killed_it_goes_on_as_if_nothing_had_happened(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collectors: list[ProcessCollector] = []
    send = ProcessCollector.begin_with

    def note(self: ProcessCollector, *arguments) -> None:
        collectors.append(self)
        send(self, *arguments)

    monkeypatch.setattr(ProcessCollector, "begin_with", note)
    with pytest.raises(Interrupted):  # while the next round's episodes are being planned
        train(new_run(tmp_path), At(("learn", 6, stop)))
    assert checkpoints.load(location.find(tmp_path)).collecting
    kill = "learn", 1, lambda: os.kill(collectors[-1].pid, signal.SIGKILL)
    with pytest.raises(Interrupted):  # when they have been taken
        train(Run.open(tmp_path), At(kill, ("test", 1, stop)))
    train(Run.open(tmp_path), Display())
    same(tmp_path, complete)


def same(ours: Path, theirs: Path) -> None:
    """Check that nothing tells the two runs apart."""
    assert lines(ours) == lines(theirs)
    for name in ("0000001000", "best"):
        mine, other = (
            checkpoints.load(location.path_of(folder, name)) for folder in (ours, theirs)
        )
        assert not mine.collecting
        assert all((mine.model[key] == other.model[key]).all() for key in other.model)
        assert all((mine.optimizer[key] == other.optimizer[key]).all() for key in other.optimizer)
    for path in (theirs / "episodes").glob("*.safetensors"):
        assert path.read_bytes() == (ours / "episodes" / path.name).read_bytes()


def test_what_its_environment_cannot_do_is_the_same_line_as_in_one_process(tmp_path: Path) -> None:
    settings = config.load("planet", [*TINY, "env.id=gym/CartPole-v1", "env.kwargs.nonsense=1"])
    said = []
    for staleness in (0, 1):
        changed = settings.train.model_copy(update={"staleness": staleness})
        run = Run(tmp_path, settings.model_copy(update={"train": changed}))
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        with pytest.raises(PlanetError) as caught:
            train(run, Display())
        said.append(str(caught.value))
    assert said[0] == said[1] and "nonsense" in said[0]


def test_an_error_that_nobody_expected_is_one_line_and_is_not_tried_again(
    capfd: pytest.CaptureFixture,
) -> None:
    settings = config.load("planet", [*TINY, "planner.precision=float32"])
    with ProcessCollector(settings, torch.device("cpu")) as collector:
        networks = Networks(untrained_model(settings, collector.spec), None)
        collector.begin(Order(Stream.COLLECT, 1, ["no seed"], 1), networks)
        with pytest.raises(PlanetError, match=r"^the process that collects: ValueError: .*line \d"):
            collector.finish(Watch(lambda: None, lambda index, episode: None))
    assert capfd.readouterr().err.count("Traceback") == 1


@pytest.mark.parametrize(
    ("count", "learn", "collect"), [(1, 1, 1), (2, 1, 1), (3, 2, 1), (8, 4, 4)]
)
def test_threads_are_shared(count: int, learn: int, collect: int) -> None:
    assert Threads.of(count) == (learn, collect)


def test_a_value_that_is_neither_is_one_line() -> None:
    with pytest.raises(PlanetError, match="train.staleness = 2"):
        config.load("planet", ["train.staleness=2"])
