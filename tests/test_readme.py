"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import torch

from planet_rssm import config
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import untrained_model

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LOOP, PLANNER = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    1,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)


def test_the_planner_swings_both_pendulums_up(capsys):
    assert len([line for line in PLANNER.splitlines() if line]) < 15
    torch.manual_seed(0)
    names: dict = {}
    exec(PLANNER, names)
    assert (names["state"][:, 0].cos() > 0.95).all()
    assert "tensor" in capsys.readouterr().out


def test_the_page_of_planners_reaches_its_goal_and_passes_its_checks():
    torch.manual_seed(0)
    names: dict = {}
    for code in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "planners.md").read_text(), re.DOTALL
    ):
        exec(code, names)
    assert (names["state"]["place"] - names["goal"]["place"]).abs().max() < 0.2


def test_the_control_loop_acts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "quickstart-cartpole-swingup-seed0"
    (run / location.FOLDER).mkdir(parents=True)
    settings = config.load("quickstart-search")
    weights = dict(untrained_model(settings, SPEC).state_dict())
    checkpoints.save(
        Checkpoint(settings, SPEC, {"env_steps": 1}, weights, {}), location.path_of(run, 1)
    )
    image, first = torch.zeros(1, 32, 32, 3, dtype=torch.uint8), torch.ones(1, dtype=torch.bool)
    names = {"image": image, "executed_action": torch.zeros(1, 1), "is_first": first}
    exec(LOOP, names)
    assert names["plan"].action.abs().max() <= 1
