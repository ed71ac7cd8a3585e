"""`planet diagnose`: what it prints, draws, leaves out and refuses."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from rich.console import Console

from planet_rssm import config
from planet_rssm.agent.parts import model_of
from planet_rssm.behavior import untrained_behavior
from planet_rssm.cli.diagnose import _print
from planet_rssm.cli.main import main
from planet_rssm.config import PlannerSettings
from planet_rssm.diagnosis.diagnose_run import limit
from planet_rssm.diagnosis.exchanged_parts import larger
from planet_rssm.evaluation.statistics import Estimate
from planet_rssm.planners import planner_from_settings
from planet_rssm.report.diagnosis_figure import plot_diagnosis
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location

TINY = """
    model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8 model.vector_units=8
    model.continue_units=8 planner.candidates=4 planner.iterations=2 planner.elites=2
    planner.horizon=2 device=cpu
""".split()
CARTPOLE = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=5
    env.time_limit=50
""".split()


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("diagnose") / "run", "planet", *TINY, *CARTPOLE)


@pytest.fixture(scope="module")
def result(run, tmp_path_factory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("out") / "new"
    assert (
        call("diagnose", run, "--episodes", "2", "--every", "5", "--budget", "3", "--out", out) == 0
    )
    return json.loads((out / "diagnosis.json").read_text()), out


def test_every_part_is_exchanged_on_the_same_seeds(result):
    printed = result[0]
    assert (printed["task"], printed["planner"], printed["seeds"]) == (
        "dmc/cartpole-swingup",
        "cem",
        [1000, 1001],
    )
    assert list(printed["returns"]) == ["as is", "planner", "filter", "model"]
    for name, gain in printed["gain"].items():
        pairs = zip(
            printed["returns"]["as is"]["episodes"],
            printed["returns"][name]["episodes"],
            strict=True,
        )
        assert gain["mean"] == pytest.approx(sum(after - before for before, after in pairs) / 2)
        low, high = gain["episode_ci95"]
        assert low <= gain["mean"] <= high
    assert printed["left_out"] == {}
    assert printed["limit"]


def test_candidates_are_scored_at_every_so_manieth_decision(result):
    printed = result[0]
    assert (printed["moments"], printed["every"], printed["horizons"]) == (4, 5, [1, 2])
    for kind in ("random", "planned"):
        for futures in ("one", "mean"):
            assert all(
                -1 <= cell["mean"] <= 1 for cell in printed["rank_correlation"][kind][futures]
            )
    assert len(printed["optimism"]) == 2 and printed["claimed"]["mean"] > -50
    assert sum(part["count"] for part in printed["reward_calibration"]) == 4 * (64 + 4) * 2
    assert printed["continue_calibration"] is None


def test_the_table_and_the_picture(result, run, capsys):
    _print(result[0], Console(width=140))
    shown = capsys.readouterr().out
    for words in (
        "planner: 3 times the sequences",
        "the simulator itself",
        "rank correlation, planned",
        "optimism",
    ):
        assert words in shown
    assert shown.strip().splitlines()[-1] == result[0]["limit"]
    assert (result[1] / "diagnosis.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_simulator_is_left_out_with_its_reason_and_the_rest_is_done(
    untrained_run, tmp_path, capsys
):
    run = untrained_run(tmp_path / "run", "cartpole-vectors", *TINY, "env.time_limit=10")
    assert call("diagnose", run, "--episodes", "2", "--budget", "2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["returns"]) == ["as is", "planner"]
    assert printed["left_out"]["model"].startswith(
        "gym/CartPole-v1: only dm_control's tasks can be simulated"
    )
    assert set(printed["left_out"]) == {"candidates", "filter", "model"}
    assert printed["rank_correlation"] is None
    plot_diagnosis(printed, tmp_path / "alone.png")


def test_beliefs_that_are_modes_are_not_chosen_from(run, capsys):
    words = [
        "-s",
        "rssm.filter_by=mode",
        "-s",
        "rssm.plan_by=mode",
        "--every",
        "10",
        "--budget",
        "2",
        "--episodes",
        "2",
    ]
    assert call("diagnose", run, *words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "filter left out: rssm.filter_by = mode" in shown
    assert "the simulator is searched from the true state" in shown


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {"planner": (30, -5, 60), "filter": (12, 3, 20)},
            "what limits this run: the filter (+12, 95 % 3 to 20)",
        ),
        (
            {"planner": (30, 5, 60), "filter": (12, 3, 20)},
            "what limits this run: the planner's budget (+30",
        ),
        (
            {"planner": (-30, -50, 6), "filter": (2, -3, 20)},
            "of its episodes; nearest to it: the filter (+2,",
        ),
    ],
)
def test_the_limit_is_the_largest_gain_whose_interval_lies_above_0(gains, said):
    estimates = {part: Estimate(mean, [low, high]) for part, (mean, low, high) in gains.items()}
    assert said in limit(estimates)


def with_actor(run: Path, folder: Path) -> Path:
    """Copy an untrained run and give it an untrained actor and critic."""
    kept = checkpoints.load(location.path_of(run, 1))
    settings = config.override(kept.settings, ["behavior=v3", "behavior.units=8"])
    behavior = untrained_behavior(settings, model_of(kept))
    assert behavior is not None
    (folder / location.FOLDER).mkdir(parents=True)
    learned = dataclasses.replace(kept, settings=settings, behavior=dict(behavior.state_dict()))
    checkpoints.save(learned, location.path_of(folder, 1))
    return folder


def test_an_actor_is_exchanged_for_a_search_with_it(run, tmp_path, capsys):
    actor = with_actor(run, tmp_path / "actor")
    words = ["-s", "planner.name=actor", "--episodes", "2", "--every", "5", "--budget", "4"]
    assert call("diagnose", actor, *words, "--out", tmp_path / "out") == 0
    shown = " ".join(capsys.readouterr().out.split())
    printed = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert printed["planner"] == "actor" and printed["planner_settings"]["name"] == "actor"
    assert list(printed["returns"]) == ["as is", "planner", "filter", "model"]
    assert printed["exchanged_for"]["planner"] == "cem+actor+critic 8 × 4, in the same model"
    assert printed["exchanged_for"]["model"] == "the simulator, by cem 8 × 4"
    assert "planner: cem+actor+critic 8 × 4, in the same model" in shown
    # its own sequences are scored over the horizon of a search, and its critic's value is not
    assert printed["horizons"] == [1, 2] and printed["claimed"] is None
    assert all(cell is not None for cell in printed["rank_correlation"]["planned"]["mean"])
    assert len(printed["optimism"]) == 2
    assert "value left out: the critic counts what comes after the plan" in shown
    assert "it has neither actor nor critic" in shown


@pytest.mark.parametrize(
    ("asked", "label", "claims"),
    [
        (["proposals=actor"], "cem+actor", True),
        (["terminal_value=critic"], "cem+critic", False),
        (["proposals=actor", "terminal_value=critic"], "cem+actor+critic", False),
    ],
)
def test_a_search_with_an_actor_in_it(run, tmp_path, capsys, asked, label, claims):
    actor = with_actor(run, tmp_path / "actor")
    words = [word for setting in asked for word in ("-s", f"planner.{setting}")]
    words += ["--episodes", "2", "--every", "10", "--budget", "4", "--json"]
    assert call("diagnose", actor, *words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["planner"] == label
    assert list(printed["returns"]) == ["as is", "planner", "filter", "model"]
    assert printed["exchanged_for"]["planner"] == "4 times the sequences"
    assert printed["exchanged_for"]["model"] == "the simulator, by cem 8 × 4"
    assert (printed["claimed"] is not None) == claims == ("value" not in printed["left_out"])


def test_an_actor_without_a_simulator_has_its_search_alone(untrained_run, tmp_path, capsys):
    words = [*TINY, "env.time_limit=10", "behavior=v3", "behavior.units=8", "planner.name=actor"]
    actor = untrained_run(tmp_path / "run", "cartpole-vectors", *words)
    assert call("diagnose", actor, "--episodes", "2", "--budget", "2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["returns"]) == ["as is", "planner"]
    assert set(printed["left_out"]) == {"candidates", "filter", "model"}


def test_a_run_without_an_actor_says_so(run, capsys):
    assert call("diagnose", run, "-s", "planner.name=actor") == 1
    assert "this run learns no actor and critic" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
@pytest.mark.parametrize("budget", [1, 2, 5, 10])
def test_the_larger_planner_scores_as_many_times_the_sequences(name, budget):
    planner = PlannerSettings(name=name, candidates=40, iterations=3, elites=10)
    now, more = (
        sum(planner_from_settings(one, 1).populations) for one in (planner, larger(planner, budget))
    )
    assert more / now == pytest.approx(budget, rel=0.1)


def test_an_out_that_cannot_be_is_told_before_anything_is_played(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "planet_rssm.diagnosis.diagnose_run.diagnose_run", lambda *_, **__: pytest.fail("played")
    )
    (tmp_path / "file").touch()
    assert call("diagnose", run, "--out", tmp_path / "file") == 1
    assert "file: no folder can be made there (File exists)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["missing"], "missing: not a run folder"),
        (["RUN", "--episodes", "1"], "'--episodes': 1 is not in the range x>=2"),
        (["RUN", "--checkpoint", "7"], "no checkpoint '7'; it has 1"),
        (["RUN", "-s", "rssm.deter=9"], "-s rssm.deter=9: only"),
        (
            ["pretrained:cartpole-swing"],
            "no such model in the package; did you mean 'pretrained:cartpole-swingup'?",
        ),
        (
            ["pretrained:cartpole-swingup", "--checkpoint", "best"],
            "pretrained:cartpole-swingup: no checkpoint 'best'; it",
        ),
    ],
)
def test_a_mistake_is_one_line(run, words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("diagnose", *(run if word == "RUN" else word for word in words)) != 0
    said = capsys.readouterr()
    assert line in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out and not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(
    run, tmp_path, monkeypatch, capsys
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    monkeypatch.setattr(
        "planet_rssm.diagnosis.diagnose_run.diagnose_run", lambda *_, **__: pytest.fail("begun")
    )
    assert call("diagnose", run, "--out", tmp_path / "out") == 1
    assert "diagnosis.png: matplotlib is not installed; pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
