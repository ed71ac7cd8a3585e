"""How many threads learn and plan: what is measured, what is chosen, and that a run keeps it."""

from pathlib import Path

import pytest
import torch

from planet_rssm import config
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs.run import Run
from planet_rssm.training import threads
from planet_rssm.training.collector import Threads
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner
from planet_rssm.training.start import train
from planet_rssm.training.threads import BY_USER, choose_threads

CPU = torch.device("cpu")
SPEC = EnvSpec("gym/Test-v0", {"speed": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0")
TINY = """
    env.observe=vectors rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8
    model.vector_units=8 planner.candidates=4 planner.iterations=1 planner.elites=2
    planner.horizon=2 train.batch_size=2 train.batch_length=4 train.envs=2
""".split()
DMC = """
    env.id=dmc/cartpole-swingup env.renderer=none env.action_repeat=10 env.time_limit=100
    train.env_steps=300
    train.seed_episodes=2 train.updates=2 train.test_episodes=1 device=cpu
""".split()


def settings_of(*more: str) -> Settings:
    return config.load("planet", [*TINY, *more])


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight threads, whose user says nothing."""
    monkeypatch.delenv(BY_USER, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def times(updates: dict[int, float], decisions: dict[int, float]):
    return lambda settings, spec, device, pairs: (updates, decisions)


@pytest.mark.usefixtures("eight")
def test_fewer_threads_are_chosen_where_they_are_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_threads = {8: 0.02, 4: 0.019, 2: 0.03, 1: 0.05}, {8: 0.01, 4: 0.006, 2: 0.005, 1: 0.007}
    monkeypatch.setattr(threads, "_times", times(*by_threads))
    chosen = choose_threads(settings_of(), SPEC, CPU)
    assert chosen.threads == (8, 2)
    assert chosen.why == (
        "threads: 8 to learn, 2 to plan (an update takes 50 ms with 1, 30 ms with 2, 19 ms with 4, "
        "20 ms with 8, a decision 7 ms with 1, 5 ms with 2, 6 ms with 4, 10 ms with 8)"
    )
    assert choose_threads(settings_of("train.threads=3"), SPEC, CPU).threads == (3, 2)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("decision", "expected"),
    [(0.001, (7, 1)), (0.07, (4, 4)), (0.3, (2, 6))],  # seconds of one thread
)
def test_threads_are_shared_so_that_a_round_is_over_first(
    decision: float, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = (1, 2, 4, 6, 7)
    by_threads = {n: 0.08 / n for n in counts}, {n: decision / n for n in counts}
    monkeypatch.setattr(threads, "_times", times(*by_threads))
    settings = settings_of("train.staleness=1", "train.updates=100")
    assert choose_threads(settings, SPEC, CPU).threads == expected


@pytest.mark.usefixtures("eight")
def test_long_updates_are_shared_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_times", times({7: 2.0}, {7: 2.0}))
    assert choose_threads(settings_of("train.staleness=1"), SPEC, CPU).threads == (4, 4)
    monkeypatch.setattr(threads, "_times", times({8: 2.0}, {8: 2.0}))
    assert choose_threads(settings_of(), SPEC, CPU).threads == (8, 8)


@pytest.mark.usefixtures("eight")
def test_nothing_is_measured_where_there_is_nothing_to_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(threads, "_times")
    both = settings_of("train.threads=3", "train.collect_threads=5")
    assert choose_threads(both, SPEC, CPU) == (Threads(3, 5), None)
    assert choose_threads(settings_of(), SPEC, torch.device("meta")) == (Threads(8, 8), None)
    monkeypatch.setenv(BY_USER, "8")
    assert choose_threads(settings_of(), SPEC, CPU) == (Threads(8, 8), None)
    assert choose_threads(settings_of("train.staleness=1"), SPEC, CPU) == (Threads(4, 4), None)
    monkeypatch.delenv(BY_USER)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert choose_threads(settings_of("train.staleness=1"), SPEC, CPU) == (Threads(1, 1), None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert choose_threads(settings_of(), SPEC, CPU) == (Threads(1, 1), None)


def test_updates_and_decisions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BY_USER, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        chosen = choose_threads(settings_of(), SPEC, CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(chosen.threads) <= {1, 2} and chosen.why is not None


def test_a_long_call_is_made_with_all_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    clock = iter(range(100))
    monkeypatch.setattr(threads.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert threads._by_threads(lambda: calls.append(0), {1, 2, 4}) == {4: 1}
    assert len(calls) == 1


def test_stages_beside_which_nothing_runs_take_both_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    beside, turns = (settings_of(f"train.staleness={one}").train for one in (1, 0))
    assert Threads(3, 1).in_turns(beside) == (4, 4)
    assert Threads(3, 1).in_turns(turns) == (3, 1)
    assert Threads(4, 2).in_turns(beside) == (4, 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert Threads.asked(beside).in_turns(beside) == (1, 1)


@pytest.mark.usefixtures("at_hand")
def test_a_run_keeps_and_uses_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(*DMC)
    resolved = settings.train.model_copy(update={"threads": 2, "collect_threads": 1})
    run = Run.create(tmp_path, settings.model_copy(update={"train": resolved}), "cpu")
    used: list[int] = []
    update = Learner.update

    def note(self: Learner, *arguments):
        used.append(torch.get_num_threads())
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", note)
    before = torch.get_num_threads()
    train(run, Display())
    assert set(used) == {2} and torch.get_num_threads() == before
    again = Run.open(tmp_path, settings).settings.train  # as `planet train --resume` asks
    assert (again.threads, again.collect_threads) == (2, 1)
    other = config.override(settings, ["train.threads=1"])
    assert Run.open(tmp_path, other).settings.train.threads == 1
