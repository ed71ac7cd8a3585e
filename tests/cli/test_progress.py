"""How far a command is, and tables of which nothing is cut."""

import pytest
from rich.console import Console

from planet_rssm.cli import progress, tables
from planet_rssm.cli.progress import StageProgress
from planet_rssm.envs.pool import Step
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.protocol import Decisions

SPEC = EnvSpec(
    "gym/Some-v0",
    {"vector": ((3,), "float32")},
    1,
    2,
    0.1,
    20,
    "none",
    "gymnasium 1.4",
    terminates=True,
)


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(progress, "time", clock := Clock())
    return clock


def test_a_log_gets_a_line_every_half_minute(clock, capsys):
    with StageProgress("plan", 20, "decisions") as shown:
        for done in range(1, 101):
            clock.now += 1
            shown.at(done, 400)
        shown.begin("baseline random")
        clock.now += 31
        shown.at(1, 10)
    assert capsys.readouterr().err.splitlines() == [
        "plan: 30 of 400 decisions, 6.2 min left",
        "plan: 60 of 400 decisions, 5.7 min left",
        "plan: 90 of 400 decisions, 5.2 min left",
        "baseline random: 1 of 10 decisions, 4.7 min left",
    ]


@pytest.fixture
def terminal(monkeypatch):
    for name, value in (("TTY_COMPATIBLE", "1"), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)


def test_a_bar_shows_any_name_as_it_is(terminal, capsys):
    with StageProgress("eval", 4) as shown:
        shown.stage("run[/x] [red]\x1b[2J")
        shown.advance()
    said = capsys.readouterr().err
    assert r"run[/x] [red]\x1b[2J" in said and "\x1b[2J" not in said


def test_names_in_tables_do_not_steer_the_terminal(terminal, capsys):
    evil = "gym/\x1b[2J\x9b31m"
    tables.print_table(tables.output(), evil, (evil,), [(evil,)])
    tables.echo(evil, err=True)
    said = capsys.readouterr()
    for text, times in ((said.out, 2), (said.err, 1)):
        assert text.count(r"gym/\x1b[2J\x9b31m") >= times
        assert "\x1b[2J" not in text and "\x9b" not in text


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    for name, value in (("TTY_COMPATIBLE", "1"), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with StageProgress("collect", 4) as shown:
        shown.advance()
    assert "collect" in (said := capsys.readouterr().err) and "25%" in said


def test_decisions_are_counted_and_episodes_that_end_early_leave_none_to_come():
    def step(**ends: bool) -> Step:
        running = {"terminated": False, "truncated": False, "lost": False}
        return Step(observation={}, reward=0.0, env_steps=2, **(running | ends))

    reported = []
    count = Decisions(SPEC, 3, lambda done, total: reported.append((done, total)))
    count({0: step(), 1: step()})
    count({0: step(terminated=True), 1: step(lost=True)})
    count({0: step(), 1: step()})
    assert reported == [(2, 30), (2, 22), (4, 22)]


def test_no_table_is_cut_at_eighty_columns(capsys):
    long = "rssm.deter=200, rssm.hidden=200, model.depth=32, optimizer.lr=0.001, train.updates=100"
    tables.print_table(tables.output(), "title", ("runs", "mean"), [(long, "1.0")])
    assert long in capsys.readouterr().out
    with (narrow := Console(width=40)).capture() as captured:
        tables.print_table(narrow, "title", ("runs", "mean"), [(long, "1.0")])
    assert "…" not in captured.get() and "1.0" in captured.get()
