"""docs/examples/control_loop.py on a clock that only the loop moves; names of docs/control.md."""

import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.agent import Agent, RoundTimes
from planet_rssm.control import ControlLoop, SimulatedTime
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location(
        "control_loop", DOCS / "examples" / "control_loop.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_arm_is_moved_at_every_tick(example, monkeypatch):
    monkeypatch.setattr(Agent, "warmup", lambda *_, **__: RoundTimes((15.0, 30.0, 45.0)))
    moved = []

    class Watched(example.Arm):
        def move(self, action: np.ndarray) -> None:
            moved.append(action)
            super().move(action)

    loop = example.control(Watched(), example.untrained(), 0.5, SimulatedTime(0.03))
    assert loop.rounds == 2
    assert loop.counts == {"plan": 9, "tail": 0, "fallback": 0, "start": 1, "skipped": 0}
    assert len(moved) == 10 and np.unique(np.concatenate(moved)).size > 5


def test_it_controls_with_a_run_and_tells_how_it_went(example, tmp_path, capsys):
    made = example.untrained()
    (tmp_path / location.FOLDER).mkdir()
    settings = example.config.load(
        "cartpole-vectors", ["planner.candidates=20", "planner.elites=5"]
    )
    checkpoint = Checkpoint(
        settings, made.spec, {"env_steps": 1}, dict(made.model.state_dict()), {}
    )
    checkpoints.save(checkpoint, location.path_of(tmp_path, 1))
    example.main(str(tmp_path), 0.2, SimulatedTime(0.07))
    assert "missed: 3; rounds of search:" in capsys.readouterr().out
    example.main(str(tmp_path), 0.05, SimulatedTime(0.07))
    assert "from frame to plan" not in capsys.readouterr().out  # no decision has ended


def test_the_page_names_the_options_and_counts_that_there_are():
    page = (DOCS / "control.md").read_text()
    options = set(inspect.signature(ControlLoop).parameters) - {"agent", "clock"}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == options
    for word in ("SimulatedTime", "loop.counts", "loop.missed", "rounds_done", "planet bench loop"):
        assert word in page
