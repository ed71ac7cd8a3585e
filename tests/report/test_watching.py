"""`planet watch`: what a run's files say, drawn with characters, and nothing written."""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.envs.registry import resolve
from planet_rssm.report.terminal import blocks, chart
from planet_rssm.report.watching import Watched, screen
from planet_rssm.runs.run import CONFIG, METRICS

EMPTY = "\u2800"


def line(phase, step, seconds, **values):
    counters = {"env_steps": step, "agent_steps": step, "updates": step // 10, "episodes": 1}
    return {"format": 1, "phase": phase, **counters, "seconds": seconds, **values}


def rounds(count, each=1000, seconds=20.0):
    for number in range(1, count + 1):
        step, at = number * each, number * seconds
        yield line("collect", step, at, **{"return": float(number)})
        stages = {"learn": 3 * at / 4, "environment": at / 4}
        yield line("train", step, at + 5, **{"loss/total": 9.0 / number}, stage_seconds=stages)


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run\x1b[31m"
    folder.mkdir()
    settings = config.load("quickstart")
    config.save(settings.model_copy(update={"env": resolve(settings.env)}), folder / CONFIG)
    write(folder, rounds(4))
    return folder


def write(folder: Path, lines) -> None:
    (folder / METRICS).write_text("".join(json.dumps(one) + "\n" for one in lines))


def looked(run: Path) -> Watched:
    watched = Watched.open(str(run))
    watched.read()
    return watched


def drawn(watched: Watched, width=100, height=None, colours=False) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(watched, width, height, colours=colours))
    return console.export_text()


def test_the_pace_is_that_of_the_last_rounds(run):
    now = looked(run).to_json()
    goal = config.load("quickstart").train.env_steps
    assert (now["done"], now["goal"], now["axis"]) == (4000, goal, "env_steps")
    assert now["per_second"] == pytest.approx(1000 / 20)
    assert now["seconds_left"] == pytest.approx((goal - 4000) / 50, abs=5)
    assert now["state"] == "collecting or testing" and now["last_test"] is None


def test_states(run):
    write(run, [*rounds(2), line("collect", 3000, 60.0, **{"return": 1.0})])
    assert looked(run).state() == "learning"
    hours = time.time() - 7200
    os.utime(run / METRICS, (hours, hours))
    stopped = looked(run)
    assert stopped.state() == "stopped? no line for 2.0 h" and stopped.pace()[1] is None
    goal = config.load("quickstart").train.env_steps
    write(run, rounds(2, each=goal // 2))
    assert looked(run).state() == "finished"
    (run / METRICS).unlink()
    assert looked(run).state() == "nothing measured yet"


def test_a_picture_has_curves_and_no_control_characters(run):
    shown = drawn(looked(run))
    for words in ("dmc/cartpole-swingup", "4000/", "50 env_steps/s", "loss/total", "learn 75%"):
        assert words in shown, words
    assert "\x1b" not in shown and "\\x1b[31m" in shown


@pytest.mark.parametrize(("width", "height"), [(70, 20), (80, 24), (200, 60)])
def test_a_picture_fits_the_terminal(run, width, height):
    watched = looked(run)
    watched.frame = np.full((64, 64, 3), 90, np.uint8)
    lines = drawn(watched, width, height, colours=True).rstrip().split("\n")
    assert all(len(one) <= width for one in lines)
    assert len(lines) <= height


def test_half_a_line_and_what_cannot_be_read(run):
    with open(run / METRICS, "a") as file:
        file.write('{"format": 1, "pha')
    watched = looked(run)
    assert watched.last["env_steps"] == 4000 and watched.said == ""
    (run / METRICS).write_text("no line\n" + json.dumps(line("test", 1, 1.0)))
    watched.read()
    assert "line 1 is not a measurement" in watched.said and watched.last["env_steps"] == 4000
    assert "line 1 is not a measurement" in " ".join(drawn(watched).split())
    (run / CONFIG).write_text("format: 99")
    assert "this version reads up to 1" in looked(run).said or looked(run).settings is None


def test_nothing_is_written(run):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.iterdir())
    drawn(looked(run))
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in run.iterdir())


def test_the_verb(run, capsys):
    run = run.rename(run.with_name("run"))
    main(["watch", str(run), "--json"])
    assert json.loads(capsys.readouterr().out)["done"] == 4000
    main(["watch", str(run)])  # no terminal: a single look
    assert "loss/total" in capsys.readouterr().out
    with pytest.raises(PlanetError, match="not a run folder"):
        Watched.open(str(run / "nowhere"))


def test_a_chart_joins_points_within_its_edges():
    lines = chart([0, 1], [0, 1], 4, 2)
    assert [len(one) for one in lines] == [4, 4]
    assert lines[0][0] == EMPTY and lines[0][3] != EMPTY and lines[1][0] != EMPTY
    assert chart([0, 1], [5, 5], 4, 1)[0].count(EMPTY) == 0  # a level line
    assert sum(sign != EMPTY for sign in chart([3], [5], 4, 3)[1]) == 1


def test_blocks_have_two_pixels_a_sign():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0] = (255, 0, 0)
    text = blocks(pixels, 80)
    assert text.plain == "▀" * 6 + "\n" + "▀" * 6
    assert str(text.spans[0].style) == "#ff0000 on #000000"
    assert len(blocks(np.zeros((64, 64, 3), np.uint8), 16).plain.split("\n")) == 8
