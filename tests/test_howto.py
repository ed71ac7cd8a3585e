"""docs/howto: the Python and the commands of every page run as they stand there, only smaller."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planet_rssm import EnvPool, PlanetError, config
from planet_rssm.cli.main import main
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.training.player import simple_player

FOLDER = Path(__file__).parent.parent / "docs" / "howto"
QUICK = ["env.observe=vectors", "env.action_repeat=100"]
TINY = """
    rssm.deter=16 rssm.hidden=16 model.depth=2 planner.candidates=8 planner.iterations=1
    planner.elites=2 planner.horizon=2 train.env_steps=100 train.seed_episodes=2 train.envs=1
    train.updates=1 train.batch_size=2 train.batch_length=8 train.test_every=99
    train.test_episodes=1 device=cpu
""".split()
TINY_WORDS = [word for setting in TINY for word in ("-s", setting)]


def python_of(page: str) -> str:
    [block] = re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(), re.DOTALL)
    return block


def commands_of(page: str) -> list[list[str]]:
    """The words after `planet` of each command on a page."""
    text = (FOLDER / f"{page}.md").read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    planet (.*)$", text, re.MULTILINE)]


def settings_in(words: list[str]) -> list[str]:
    return [word for before, word in zip(words, words[1:], strict=False) if before == "-s"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder whose modules are importable from there alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def policy(here):
    broken = "\n\nnothing = 3\n\n\ndef broken(*_): raise KeyError('velocity')\n"
    (here / "mine.py").write_text(python_of("own-policy") + broken)
    return here


def test_every_page_is_run_here():
    tested = {"own-model", "own-environment", "own-arrays", "own-rssm", "features", "own-policy"}
    assert {path.stem for path in FOLDER.glob("*.md")} == tested


def test_own_model_is_planned_with(one_thread_and_seed):
    names: dict = {}
    exec(python_of("own-model"), names)
    assert (names["state"] - names["goal"]).abs().max() < 0.1


def test_own_environment_is_trained_on_and_planned_in(here, capsys):
    (here / "mine.py").write_text(python_of("own-environment"))
    attempt, look, dry, pixels, vectors, plan = commands_of("own-environment")
    main([*attempt, *TINY_WORDS, "--plan-episodes", "1"])
    main([*look, "--episodes", "1"])
    assert (here / "runs" / "try" / "videos" / "xray.mp4").stat().st_size
    main([*dry, *TINY_WORDS])
    main([*vectors, *TINY_WORDS, "--plan-episodes", "0", "--run-dir", "runs/dot"])
    with EnvPool(config.load(pixels[1], settings_in(pixels)).env, 1) as pool:
        assert pool.spec.observation == {"camera": ((32, 32, 3), "uint8")}
    capsys.readouterr()
    main([*plan, "--episodes", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["task"], result["episodes"][0]["env_steps"]) == ("mine:Dot", 50)


def test_a_reward_of_ones_own_is_learned_from(here):
    page = (FOLDER.parent / "questions.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (here / "mine.py").write_text(code)
    [line] = re.findall(r"^    planet (.*mine:gentle.*)$", page, re.MULTILINE)
    rewards = []
    for own in (settings_in(shlex.split(line)), []):
        env = config.load("pendulum-pixels", own).env
        with EnvPool(env, 1) as pool:
            pool.reset({0: 3})
            rewards.append(pool.step({0: np.ones(1, np.float32)})[0].reward)
    force = 2.0  # the bound of Pendulum-v1
    assert rewards[1] - rewards[0] == pytest.approx(0.1 * force**2 * env.action_repeat)


def test_own_rssm_learns_and_is_planned_in(one_thread_and_seed):
    names: dict = {}
    exec(python_of("own-rssm"), names)
    right = names["head"](names["rssm"].feat(names["future"])).mean(0)[:, 0]
    assert (right.diff() > 0.1).all()
    last = names["place"][:, -1, 0]
    far = last.abs() > 0.3
    assert (names["plan"].action[far, 0].sign() == -last[far].sign()).all()


def test_own_arrays_are_learned_from(tmp_path):
    names = {"folder": tmp_path / "set"}
    exec(python_of("own-arrays"), names)
    assert np.isfinite(float(names["loss"].detach()))
    assert {"loss/reward", "loss/vector"} <= set(names["metrics"])
    assert len(list((tmp_path / "set").glob("*.safetensors"))) == 4


def test_features_and_pictures_of_a_packaged_model():
    names: dict = {}
    exec(python_of("features"), names)
    assert names["features"].shape == (1, 230) and names["features"].dtype == torch.float32
    assert names["picture"].shape == (1, 32, 32, 3) and names["picture"].dtype == torch.uint8


def test_own_policy_is_evaluated_and_collects(policy, capsys):
    shorter = ["-s", "env.action_repeat=10", "-s", "env.time_limit=100", "--json"]
    measure, collect = commands_of("own-policy")
    main([*measure, *shorter, "--episodes", "2"])
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert (row["task"], row["planner"], len(row["episodes"])) == (
        "dmc/cartpole-swingup",
        "mine:Bang",
        2,
    )
    assert row["observation"]["observe"] == "vectors"
    assert not (policy / "runs").exists()
    main([*collect, *shorter, "--episodes", "1"])
    assert len(json.loads(capsys.readouterr().out)["episodes"]) == 1
    assert len(list((policy / "sets" / "bang").glob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mine:Missing", "RUN = 'mine:Missing': does not work .*has no attribute 'Missing'"),
        ("mine:nothing", "RUN = 'mine:nothing': does not work .*a int cannot be called"),
        ("nowhere:Policy", "RUN = 'nowhere:Policy': does not work .*No module named 'nowhere'"),
    ],
)
def test_what_is_no_policy_is_one_line(policy, name, line):
    (error,) = evaluate([f"{name}@dmc/cartpole-swingup"], seeds=[1000], overrides=QUICK).errors
    assert re.search(line, error.error)


def test_settings_that_a_policy_does_not_read_are_refused(policy):
    (error,) = evaluate(
        ["mine:Bang@walker-walk"], seeds=[1], overrides=["planner.horizon=3"]
    ).errors
    assert "takes env.… settings alone" in error.error
    with pytest.raises(PlanetError, match="^--policy = 'mine:Missing': does not work"):
        simple_player("cartpole-swingup", QUICK, "mine:Missing", 0)
