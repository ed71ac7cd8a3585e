import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.report import curves
from planet_rssm.report.curves import _title, plot_curves, plot_key, plot_tasks, read_metrics

pytest.importorskip("matplotlib", reason="needs matplotlib, extra `report`")


@pytest.fixture
def make_run(tmp_path):
    def make(name, level):
        run = tmp_path / name
        run.mkdir()
        lines = []
        for step in range(1, 30):
            counts = {
                "format": 1,
                "env_steps": 4000 * step,
                "updates": 100 * step,
                "seconds": 30.0 * step,
            }
            noise = 30 * np.sin(7 * step + level)
            lines.append({**counts, "phase": "collect", "return": level * (1 - 0.9**step) + noise})
            lines.append({**counts, "phase": "train", "loss/image": 1 / step})
            if step % 5 == 0:
                lines.append({**counts, "phase": "test", "return": 1.1 * level * (1 - 0.9**step)})
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run

    return make


def test_curves_are_drawn_in_each_runs_colour(make_run, tmp_path):
    out = tmp_path / "curves.png"
    plot_curves(
        [make_run("seed0", 300), make_run("seed1", 500)],
        out,
        {"random": 105.0, "best constant": 153.0},
    )
    with Image.open(out) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"), int).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's C0 and C1
        assert (abs(pixels - colour).max(1) < 8).sum() > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "seed0", "seed1"]


def test_a_half_written_last_line_is_skipped_and_another_named(make_run, tmp_path):
    run = make_run("seed0", 300)
    path = run / "metrics.jsonl"
    complete = read_metrics(run)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_metrics(run) == complete[:-1]
    plot_curves([run], tmp_path / "curves.png")
    path.write_text("{]\n" + path.read_text())
    with pytest.raises(PlanetError, match=r"metrics.jsonl: line 1 is not a measurement"):
        read_metrics(run)


def test_any_number_of_the_lines_is_drawn_and_an_unknown_one_named(make_run, tmp_path):
    run, out = make_run("seed0", 300), tmp_path / "image.png"
    plot_key([run], out, "loss/image")
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"), int).reshape(-1, 3)
    assert (abs(pixels - (31, 119, 180)).max(1) < 8).sum() > 300
    with pytest.raises(PlanetError, match="no number 'loss/imag' in it; give another of its keys"):
        plot_key([run], out, "loss/imag")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(PlanetError, match="metrics.jsonl: not readable"):
        plot_curves([tmp_path], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_plotting_loads_no_pyplot(make_run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from planet_rssm.report.curves import plot_curves; "
        f"plot_curves([Path({str(make_run('seed0', 300))!r})], Path({str(tmp_path / 'a.png')!r})); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "False\n"
    )


def test_the_title_says_what_is_learned_and_seen(make_run, tmp_path):
    runs = [make_run("seed0", 300), make_run("seed1", 300), make_run("seed2", 300)]
    config.save(config.load("quickstart"), runs[0] / "config.yaml")
    config.save(config.load("quickstart", ["seed=1"]), runs[1] / "config.yaml")
    assert _title(runs) == "dmc/cartpole-swingup, raycast 32x32 pixels"
    (runs[2] / "config.yaml").write_text("damaged: [")
    assert _title([runs[2], runs[0]]) == "dmc/cartpole-swingup, raycast 32x32 pixels"
    config.save(config.load("cartpole-vectors"), runs[1] / "config.yaml")
    assert _title(runs).endswith("; gym/CartPole-v1, vectors")
    for run, task in zip(runs, ("cheetah-run", "walker-walk", "ball_in_cup-catch"), strict=True):
        config.save(config.load("quickstart", [f"env.id=dmc/{task}"]), run / "config.yaml")
    one = "dmc/cheetah-run, dmc/walker-walk, dmc/ball_in_cup-catch, raycast 32x32 pixels"
    assert _title(runs) == one


def test_runs_of_several_tasks_have_a_panel_each(make_run, tmp_path, monkeypatch):
    """With what is published of its task, and the baselines where they were measured."""
    runs = [make_run(f"run{number}", 300) for number in range(3)]
    for run, task in zip(runs, ("cheetah-run", "walker-walk", "walker-walk"), strict=True):
        config.save(config.load("quickstart", [f"env.id=dmc/{task}"]), run / "config.yaml")
    (runs[0] / "baselines.json").write_text(
        '{"blind": {"returns": {"random": [10, 30], "zero": [0]}}}'
    )
    drawn = []
    monkeypatch.setattr(curves, "_write", lambda figure, out: drawn.append(figure))
    plot_tasks(runs, tmp_path / "tasks.png")
    cheetah, walker = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == [
        "dmc/cheetah-run",
        "dmc/walker-walk",
    ]
    assert [text.get_text() for text in cheetah.texts] == [
        "random 20",
        "PlaNet 662 after 1,000,000",
    ]
    assert [text.get_text() for text in walker.texts] == ["PlaNet 951 after 1,000,000"]
    assert len({line.get_color() for line in walker.lines[:-1]}) == 2  # one a run
