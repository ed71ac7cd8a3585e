"""The lines and the bar that a person sees, on a clock that the test moves."""

import math

import pytest

from planet_rssm.training import display
from planet_rssm.training.display import Display, TimeLeft


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def counters(env_steps, updates=0):
    return {
        "env_steps": env_steps,
        "agent_steps": env_steps // 2,
        "updates": updates,
        "episodes": 1,
    }


def play_round(shown, clock, env_steps, updates=100, seconds=9.0):
    shown.stage("collect", 1)
    clock.now += 60
    shown.advance(episode_return=25.0)
    shown.wrote("collect", counters(env_steps), clock.now - 1000, {"return": 25.0})
    shown.stage("learn", updates)
    for _ in range(updates):
        clock.now += seconds
        shown.advance(loss=3.25)
    shown.wrote("train", counters(env_steps, updates), clock.now - 1000, {"loss/total": 3.25})


def test_a_long_round_off_a_terminal_is_never_silent(clock, capsys):
    shown = Display()
    shown.start(10_000, 0)
    for env_steps in (1000, 2000, 3000):
        play_round(shown, clock, env_steps)
    shown.stop()
    lines = capsys.readouterr().err.splitlines()
    first, last = ([line for line in lines if line.startswith("learn 40/100")][i] for i in (0, -1))
    assert first == "learn 40/100, 0.111/s, stage 0:09:00 left, return 25.00, loss 3.25"
    # A round takes 60 + 900 s; seven are to come, and 540 s of this one. The estimate counts
    # complete rounds.
    assert last.startswith(first)
    assert last.endswith("run 2:02:00 left")
    learning = [line for line in lines if line.startswith("learn")]
    assert 3 * 900 / 40 < len(learning) <= 3 * 900 / 30


def test_quick_updates_print_no_line_each(clock, capsys):
    shown = Display()
    shown.start(10_000, 0)
    play_round(shown, clock, 1000, updates=1000, seconds=0.05)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("learn")]
    assert len(said) == 1


def test_the_time_left_of_a_run_falls_with_the_clock_to_nothing():
    left = TimeLeft(5000)
    assert left.seconds(0.0) is None
    left.collected(3000, 20.0)  # the seed episodes: their pace says nothing
    assert left.seconds(50.0) is None
    left.collected(4000, 120.0)
    assert left.seconds(120.0) == 200.0
    assert left.seconds(150.0) == 170.0
    left.collected(5000, 220.0)
    assert left.seconds(220.0) == 100.0
    assert left.seconds(400.0) == 0.0


def test_a_measurement_shows_the_few_numbers_that_a_person_reads(capsys):
    losses = {
        "loss/image": 9.0,
        "loss/vector": 8.0,
        "loss/reward": 1.5,
        "loss/kl": math.pi,
        "loss/total": 20.0,
    }
    values = losses | {
        "grad_norm": 7.0,
        "grad_norm/rssm": 7.0,
        "memory_mib": 256.3,
        "skipped": 2,
        "lost": 0,
    }
    Display().wrote("train", counters(4000, 30), 3723.4, values)
    Display().wrote(
        "collect", counters(4000, 30), 3723.4, {"return": 12.5, "returns": [12.0, 13.0], "lost": 0}
    )
    assert capsys.readouterr().err.splitlines() == [
        "1:02:03 train   4000 env_steps 30 updates loss/total 20 loss/kl 3.142 loss/reward 1.5 "
        "loss/image 9 skipped 2",
        "1:02:03 collect 4000 env_steps 30 updates return 12.5",
    ]


def test_the_time_left_counts_the_plan_at_the_end(clock, capsys):
    shown = Display(plan_episodes=20)
    shown.start(10_000, 0)
    for env_steps in (1000, 2000):
        play_round(shown, clock, env_steps, seconds=1.0)
    shown.stage("test", 2)
    for _ in range(2):
        clock.now += 6
        shown.advance(episode_return=25.0)
    shown.wrote("test", counters(2000, 200), clock.now - 1000, {"return": 25.0})
    clock.now += 40
    capsys.readouterr()
    shown.tick()
    # nine rounds of 160 s, and three times 20 episodes of 6 s; 100 s of updates, the test and 40 s
    # are over
    assert capsys.readouterr().err.endswith("run 0:27:28 left\n")


def test_the_bar_shows_stage_rate_loss_return_and_time_left(clock, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    shown = Display()
    shown.start(10_000, 0)
    for env_steps in (1000, 2000):
        play_round(shown, clock, env_steps)
    shown.stop()
    said = capsys.readouterr().err
    for text in (
        "env_steps",
        "2000/10000",
        "2:09:00 left",
        "100/100",
        "0.111/s",
        "loss 3.25",
        "return 25.00",
    ):
        assert text in said, text


def test_a_long_episode_is_not_silent_either(clock, capsys):
    shown = Display()
    shown.start(10_000, 0)
    shown.stage("collect", 1)
    for _ in range(100):
        clock.now += 1
        shown.tick()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("collect 0/1")]
    assert len(said) == 3
