"""docs/library.md: its programs run as they stand there."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planet_rssm import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.training.record import simple_actor

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()
ARRAYS, FEATURES, POLICY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = ["env.observe=vectors", "env.action_repeat=100"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        POLICY + "\n\nnothing = 3\n\n\ndef broken(*_): raise KeyError('velocity')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_own_arrays_are_learned_from(tmp_path):
    names = {"folder": tmp_path / "set"}
    exec(ARRAYS, names)
    assert np.isfinite(float(names["loss"].detach()))
    assert {"loss/reward", "loss/vector"} <= set(names["metrics"])
    assert len(list((tmp_path / "set").glob("*.safetensors"))) == 4


def test_features_and_pictures_of_a_packaged_model():
    names: dict = {}
    exec(FEATURES, names)
    assert names["features"].shape == (1, 230) and names["features"].dtype == torch.float32
    assert names["picture"].shape == (1, 32, 32, 3) and names["picture"].dtype == torch.uint8


def test_own_policy_is_evaluated_and_collects(here, capsys):
    result = evaluate(["mine:Bang@dmc/cartpole-swingup"], seeds=[1000, 1001], overrides=QUICK)
    (row,) = result["results"]
    assert (row["task"], row["planner"], len(row["episodes"])) == (
        "dmc/cartpole-swingup",
        "mine:Bang",
        2,
    )
    assert row["observation"]["observe"] == "vectors"
    assert not (here / "runs").exists()
    words = [word for setting in QUICK for word in ("-s", setting)]
    chosen = ["--policy", "mine:Bang", "--episodes", "1", "--out", "set", "--json"]
    main(["collect", "dmc/cartpole-swingup", *words, *chosen])
    assert len(json.loads(capsys.readouterr().out)["episodes"]) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mine:Missing", "RUN = 'mine:Missing': does not work .*has no attribute 'Missing'"),
        ("mine:nothing", "RUN = 'mine:nothing': does not work .*a int cannot be called"),
        ("nowhere:Policy", "RUN = 'nowhere:Policy': does not work .*No module named 'nowhere'"),
    ],
)
def test_what_is_no_policy_is_one_line(here, name, line):
    (error,) = evaluate([f"{name}@dmc/cartpole-swingup"], seeds=[1000], overrides=QUICK)["errors"]
    assert re.search(line, error["error"])


def test_settings_that_a_policy_does_not_read_are_refused(here):
    (error,) = evaluate(["mine:Bang@walker-walk"], seeds=[1], overrides=["planner.horizon=3"])[
        "errors"
    ]
    assert "takes env.… settings alone" in error["error"]
    with pytest.raises(PlanetError, match="^--policy = 'mine:Missing': does not work"):
        simple_actor("cartpole-swingup", QUICK, "mine:Missing", 0)
