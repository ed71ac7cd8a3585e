"""`planet plan simulator:TASK`: the object of a run, and a line for what cannot be simulated."""

import json
import logging

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.evaluation import plan_simulator as module
from planet_rssm.evaluation.film import VIDEO_SIZE
from planet_rssm.evaluation.plan_simulator import plan_simulator
from planet_rssm.evaluation.simulator_settings import simulator_settings

SHORT = """
    env.time_limit=24 planner.horizon=3 planner.candidates=8 planner.iterations=2 planner.elites=2
""".split()


@pytest.fixture
def quick(monkeypatch):
    """Measure no baseline in earnest."""
    monkeypatch.setattr(
        module, "simple_baselines", lambda *_: {"random": [1.0], "zero": [0.0], "constant": [2.0]}
    )


def planned(task: str, episodes: int, **options) -> dict:
    return plan_simulator(task, episodes, **options).to_json()


def end_of(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


def test_the_result_has_the_keys_of_a_runs(capsys):
    words = [word for key in SHORT for word in ("-s", key)]
    assert (
        end_of(
            "plan",
            "simulator:cartpole-swingup",
            "--episodes",
            "2",
            "--json",
            "--planner",
            "cem",
            *words,
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["task"], result["planner"], result["batch"]) == (
        "dmc/cartpole-swingup",
        "cem",
        1,
    )
    assert [(episode["seed"], episode["env_steps"]) for episode in result["episodes"]] == [
        (1000, 24),
        (1001, 24),
    ]
    assert list(result["baselines"]) == ["random", "zero", "constant", "untrained"]
    assert result["baselines"]["untrained"] is None
    assert result["observation"]["observe"] == "state"
    assert result["latency_ms"]["p50"] > 0
    assert (result["planner_settings"]["candidates"], result["sequences"]) == (8, 16)


def test_the_table_names_the_simulator(quick, capsys):
    words = [word for key in SHORT for word in ("-s", key)]
    assert end_of("plan", "simulator:cup-catch", "--episodes", "1", *words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "dmc/ball_in_cup-catch, the simulator's state, 1 episodes" in text
    assert "untrained" not in text


def test_episodes_do_not_depend_on_how_many_there_are(quick):
    one, two = (planned("reacher-easy", count, overrides=SHORT)["episodes"] for count in (1, 2))
    assert two[:1] == one


def test_a_film_needs_no_gl(quick, tmp_path):
    frames = []

    def film(shown, fps):
        frames.extend(shown)
        return tmp_path / f"at {fps:.2f}"

    result = planned("simulator:walker-walk", 1, overrides=[*SHORT, "env.time_limit=4"], film=film)
    assert [frame.shape for frame in frames] == [(VIDEO_SIZE, VIDEO_SIZE, 3)] * 2
    assert np.std(frames[0]) > 10
    assert result["video"] == str(tmp_path / "at 20.00")


def test_a_task_without_a_reward_for_many_states_is_called_slow(quick, caplog):
    planned("pendulum-swingup", 1, overrides=[*SHORT, "env.time_limit=4"])
    assert "dmc/pendulum-swingup: its reward is asked of the task" in caplog.records[0].getMessage()
    assert caplog.records[0].levelno == logging.WARNING


def test_each_task_has_its_budget_and_settings_win():
    cheetah, walker = (
        simulator_settings(task) for task in ("simulator:cheetah-run", "walker-walk")
    )
    assert (cheetah.planner.name, cheetah.planner.colour, walker.planner.colour) == (
        "icem",
        0.25,
        2.5,
    )
    assert (cheetah.env.action_repeat, walker.env.action_repeat) == (4, 2)
    paper = simulator_settings("cheetah-run", ["planner.name=cem"]).planner
    assert (paper.candidates, paper.horizon, paper.iterations, paper.elites) == (1000, 12, 10, 100)
    mine = simulator_settings("cheetah-run", ["planner.colour=1", "env.action_repeat=2"])
    assert (mine.planner.colour, mine.env.action_repeat) == (1, 2)


@pytest.mark.parametrize(
    ("task", "overrides", "line"),
    [
        ("", [], "simulator: names no task; give simulator:cartpole-swingup for example"),
        (
            "gym/Pendulum-v1",
            [],
            "simulator:gym/Pendulum-v1: only dm_control's simulator can be planned in; give",
        ),
        ("mine:Arm", [], "simulator:mine:Arm: only dm_control's"),
        ("cartpole-swingu", [], "env.id = 'cartpole-swingu': there is no such task; did you mean"),
        ("cartpole-swingup", ["env.size=32"], "-s env.size=32: of a simulator only planner"),
        (
            "cartpole-swingup",
            ["planner.candidats=5"],
            "unknown setting 'planner.candidats'; did you mean",
        ),
        ("cartpole-swingup", ["planner.horizon=0"], "planner.horizon = 0: "),
        (
            "cartpole-swingup",
            ["planner.name=cem", "planner.colour=1"],
            "planner.colour = 1.0: planner.name = 'cem' does not use it",
        ),
        ("cartpole-swingup", ["planner.colour=-1"], "planner.colour = -1: "),
    ],
)
def test_what_cannot_be_is_one_line(task, overrides, line):
    with pytest.raises(PlanetError) as caught:
        planned(task, 1, overrides=overrides)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [("--checkpoint", "best"), ("--device", "cuda")])
def test_what_a_simulator_does_not_have_is_refused(words, capsys):
    assert end_of("plan", "simulator:cartpole-swingup", *words) == 1
    assert capsys.readouterr().err.startswith(f"planet: {' '.join(words)}: ")


def test_a_search_that_fits_nowhere_is_refused():
    with pytest.raises(PlanetError, match="planner.candidates = 2000000000 .*: takes at least"):
        simulator_settings("simulator:walker-walk", ["planner.candidates=2000000000"])


@pytest.mark.parametrize(
    "override", ["planner.name=actor", "planner.proposals=actor", "planner.terminal_value=critic"]
)
def test_what_is_learned_is_refused_with_what_works(override):
    with pytest.raises(
        PlanetError,
        match="nothing is learned, .*; search in it by --planner cem or icem or mppi or shooting",
    ):
        simulator_settings("simulator:walker-walk", [override])
