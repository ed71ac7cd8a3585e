"""The models in the package: what they recorded, they do."""

import json
from pathlib import Path

import pytest
import torch

import planet_rssm
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.evaluation import baselines
from planet_rssm.evaluation.protocol import play
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.simulator.local import LocalPool

FOLDER = Path(planet_rssm.__file__).parent / "pretrained"
NAMES = sorted(folder.name for folder in FOLDER.iterdir())
RECORD = "recorded.json"


def recorded(name: str) -> dict:
    return json.loads((FOLDER / name / RECORD).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_says_where_it_comes_from(name):
    held, told = checkpoints.load(location.find(Path(f"pretrained:{name}"))), recorded(name)
    assert sum(path.stat().st_size for path in (FOLDER / name).rglob("*")) < 4e6
    assert held.optimizer == {}
    assert {"command", "commit", "seed", "measured"} <= set(told)
    assert (held.settings.seed, held.progress["env_steps"]) == (told["seed"], told["env_steps"])
    assert told["return"]["mean"] == pytest.approx(sum(told["returns"]) / len(told["returns"]))
    assert len(told["returns"]) >= 20
    highest = max(mean for baseline, mean in told["baselines"].items())
    assert told["return"]["episode_ci95"][0] > highest


@pytest.mark.parametrize("name", NAMES)
def test_it_returns_what_was_recorded(name):
    """One episode alone. Draws and rounding differ between machines: its return is only similar."""
    torch.set_num_threads(1)
    agent, told = Agent.load(f"pretrained:{name}", device="cpu"), recorded(name)
    held = checkpoints.load(location.find(Path(f"pretrained:{name}")))
    [result] = play(LocalPool(held.settings.env), AgentPolicy(agent, 1), [told["seeds"][0]])
    slack = told["return"]["std"]
    assert min(told["returns"]) - slack < result.episode_return < max(told["returns"]) + slack
    assert result.episode_return > 2 * max(told["baselines"].values())


def test_what_is_made_of_it_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(f"pretrained:{NAMES[0]}")
    assert location.outputs(run) == Path("runs") / f"pretrained-{NAMES[0]}"
    assert location.outputs(tmp_path) == location.source(tmp_path) == tmp_path
    before = sorted(FOLDER.rglob("*"))
    monkeypatch.setattr(
        baselines,
        "simple_baselines",
        lambda *_: dict.fromkeys(("random", "zero", "constant"), [0.0]),
    )
    monkeypatch.setattr(baselines, "untrained", lambda *_: [1.0])
    held = checkpoints.load(location.find(run))
    found = baselines.baselines(run, held.settings, held.spec, 3, torch.device("cpu"))
    assert found["untrained"] == [1.0]
    assert [path.name for path in location.outputs(run).iterdir()] == ["baselines.json"]
    assert sorted(FOLDER.rglob("*")) == before


def test_the_shipped_baselines_are_taken_where_they_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "simple_baselines", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(baselines, "untrained", lambda *_: [1.0])
    held = checkpoints.load(location.find(Path("pretrained:cartpole-swingup")))
    found = baselines.baselines(
        Path("pretrained:cartpole-swingup"), held.settings, held.spec, 20, torch.device("cpu")
    )
    assert set(found) == {"random", "zero", "constant", "untrained"}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_measured_before_a_setting_was_there_still_counts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for measured in ("simple_baselines", "untrained"):
        monkeypatch.setattr(baselines, measured, lambda *_: pytest.fail("measured again"))
    held = checkpoints.load(location.find(Path(f"pretrained:{name}")))
    baselines.baselines(
        Path(f"pretrained:{name}"), held.settings, held.spec, 20, torch.device("cpu")
    )


def test_an_unknown_name_is_one_line_with_the_nearest():
    with pytest.raises(
        PlanetError,
        match="^pretrained:cartpol: no such model in the package; did you mean 'pretrained:c",
    ):
        location.find(Path("pretrained:cartpol"))


def test_collect_takes_it_as_a_policy_and_its_name_is_looked_at(capsys):
    with pytest.raises(SystemExit):
        main(
            "collect cartpole-swingup --policy pretrained:nothing --episodes 1 --out never".split()
        )
    assert capsys.readouterr().err.startswith(
        "planet: pretrained:nothing: no such model in the package; "
    )
