"""SIGTERM at random moments, memory that runs out on the device, clocks that jump."""

import gc
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.runs.run import METRICS
from planet_rssm.training.learner import Learner

SIGNALS = 12
MOST = (
    100  # calls until enough of the signals have come while the run learned, and one run has ended
)


@pytest.fixture
def term_after() -> Iterator[Callable[[float], object]]:
    """Return a function that sends SIGTERM to this process after some seconds; 0 cancels it."""
    before = signal.signal(
        signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM)
    )
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def call(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
        raise SystemExit(0)
    return int(caught.value.code or 0)


# What a signal leaves half-made in this process, a process of its own takes with it.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_sigterm_at_any_moment_is_one_line_and_costs_nothing(
    tiny: list[str],
    peace: Path,
    same: Callable[[Path, Path], None],
    committed: Callable[[Path], list[str]],
    term_after: Callable[[float], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    words = [
        "train",
        "planet",
        *(word for setting in tiny for word in ("-s", setting)),
        "--plan-episodes",
        "0",
    ]
    for name in ("imports", "first"):
        began = time.perf_counter()
        assert call([*words, "--run-dir", str(tmp_path / name)]) == 0
        total = time.perf_counter() - began
    rng, codes, ended = random.Random(0), [], 0
    while len(codes) < MOST and (
        len(codes) - codes.count(0) < SIGNALS or codes.count(130) <= 3 or not ended
    ):
        folder = tmp_path / str(ended)
        before = committed(folder)
        capsys.readouterr()
        term_after(
            rng.uniform(0.0005 if len(codes) % 2 else 0.6 * total, total)
        )  # half of them while it learns
        codes.append(
            call(
                [
                    *words,
                    "--run-dir",
                    str(folder),
                    *["--resume"] * (folder / "config.yaml").exists(),
                ]
            )
        )
        term_after(0)
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert {130: "stopped at ", 143: "planet: terminated"}.get(codes[-1], "") in last
        assert set(before) <= set(committed(folder))
        if codes[-1] == 0:
            same(folder, peace)
            ended += 1
    assert set(codes) <= {0, 130, 143}
    assert codes.count(130) > 3 and ended
    gc.collect()  # here, where it may


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        (
            Learner,
            "update",
            "too little free memory for update 4; free some and go on.*lower train.batch_size",
        ),
        (Agent, "decide", "too little free memory for a decision; .*lower planner.candidates"),
    ],
)
def test_out_of_device_memory_is_one_line_and_the_run_goes_on(
    kind: type,
    name: str,
    says: str,
    train: Callable[..., None],
    peace: Path,
    same: Callable[[Path, Path], None],
    committed: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, real = 0, getattr(kind, name)

    def limited(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation"
            )
        return real(*arguments, **named)

    monkeypatch.setattr(kind, name, limited)
    with pytest.raises(PlanetError, match=says) as caught:
        train(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert len(committed(tmp_path / "run")) == 1
    train(tmp_path / "run")
    same(tmp_path / "run", peace)


def test_a_clock_that_jumps_back_never_takes_seconds_away(
    train: Callable[..., None],
    peace: Path,
    same: Callable[[Path, Path], None],
    tmp_path: Path,
    monkeypatch,
) -> None:
    wall, steady, calls = time.time, time.monotonic, 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return steady() - (1000 if calls > 30 else 0)

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", jumping)
        train(tmp_path / "run", "train.env_steps=600")
    with (
        monkeypatch.context() as patch
    ):  # years ago by the calendar, and the machine has just started
        patch.setattr(time, "time", lambda: wall() - 1e8)
        patch.setattr(time, "monotonic", lambda: steady() - 0.9 * steady())
        train(tmp_path / "run", "train.env_steps=900")
    assert calls > 30
    seconds = [
        json.loads(line)["seconds"]
        for line in (tmp_path / "run" / METRICS).read_text().splitlines()
    ]
    assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] < 500
    same(tmp_path / "run", peace)
