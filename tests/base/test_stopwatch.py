import time

import pytest

from planet_rssm.base.stopwatch import Stages, shares


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_stage_within_another_is_not_counted_twice(clock):
    stages = Stages()
    with stages("environment"):
        clock(1)
        for _ in range(2):
            with stages("plan"):
                clock(3)
                with stages("filter"):
                    clock(0.5)
        clock(1)
    clock(4)
    assert stages.report() == {"plan": 6.0, "environment": 2.0, "filter": 1.0, "total": 13.0}
    assert shares(stages.report()) == "13.0 s: plan 46%, environment 15%, filter 8%, other 31%"


def test_what_raises_is_counted_too(clock):
    stages = Stages()
    with pytest.raises(KeyError), stages("learn"), stages("waiting"):
        clock(2)
        raise KeyError
    with stages("learn"):
        clock(1)
    assert stages.seconds == {"waiting": 2.0, "learn": 1.0}


def test_a_resumed_run_goes_on_counting(clock):
    stages, before = Stages(), {"learn": 10.0, "test": 1.0}
    with stages("start"):
        stages.continue_into(before)
        with stages("learn"):
            clock(2)
    assert before == {"learn": 12.0, "test": 1.0, "start": 0.0}
