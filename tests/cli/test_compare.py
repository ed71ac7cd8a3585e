"""`planet compare`: what it prints, draws and refuses."""

import importlib.util
import json
from pathlib import Path

import pytest

from planet_rssm.cli.compare import budgets_of, keep
from planet_rssm.cli.main import main
from planet_rssm.evaluation import compare as module

TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none env.action_repeat=5
    env.time_limit=15 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.vector_units=8
    model.reward_units=8 behavior=v3 behavior.units=8 planner.name=actor planner.candidates=4
    planner.iterations=1 planner.elites=2 planner.horizon=2 device=cpu
""".split()


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(at_hand, untrained_run, tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("compare") / "run", "planet", *TINY)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No wide search: the tests measure this machine for real."""
    monkeypatch.setattr("planet_rssm.evaluation.equal_time.STEPS", (1, 2))


def test_the_table_the_figure_and_the_json_are_of_one_result(run, tmp_path, capsys):
    words = ["compare", run, "--ms", "1000,0.001", "--episodes", "2"]
    assert call(*words, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("dmc/cartpole-swingup, vectors\n")
    assert "cem+actor+critic" in shown and "at least" in shown and "–" in shown
    assert call(*words, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {**printed, "seconds": 0} == {**kept, "seconds": 0}
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    (group,) = printed["groups"]
    assert printed["ms"] == [0.001, 1000] and printed["seeds"] == [1000, 1001]
    for cell in group["cells"]:
        assert (cell["mean"] is None) == (cell["ms"] < 1)
        assert cell["mean"] is not None or f"{cell['least_ms']:.1f} ms" in shown


def test_a_figure_of_many_groups(run, tmp_path, capsys):
    call("compare", run, "--ms", "1000", "--episodes", "2", "--json")
    result = json.loads(capsys.readouterr().out)
    (group,) = result["groups"]
    others = [{**group, "task": f"dmc/task-{number}", "group": "a=1"} for number in range(3)]
    keep({**result, "groups": [group, *others]}, tmp_path)
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_milliseconds():
    assert budgets_of("20,1, 5,0.5,5") == [0.5, 1, 5, 20]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["missing"], "missing: not a run folder"),
        (["RUN", "--ms", "1,0"], "--ms 1,0: '0' is no number of milliseconds above 0"),
        (["RUN", "--ms", "nan"], "--ms nan: 'nan' is no number of milliseconds above 0"),
        (["RUN", "--episodes", "0"], "'--episodes': 0 is not in the range x>=1"),
        (["RUN", "-s", "planner.iterations=3"], "-s planner.iterations=3: compare chooses it"),
        (["RUN", "-s", "rssm.deter=9"], "-s rssm.deter=9: only"),
        (["RUN", "--checkpoint", "7"], "no checkpoint '7'; it has 1"),
        (["mine:Policy@cartpole-swingup"], "has no learned model to search in"),
    ],
)
def test_a_mistake_is_one_line(run, words, line, capsys, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("compare", *(run if word == "RUN" else word for word in words)) != 0
    said = capsys.readouterr()
    told = caplog.messages or said.err.splitlines()
    assert len(told) == 1 and line in told[0]
    assert not said.out and not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(
    run, tmp_path, monkeypatch, capsys
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    monkeypatch.setattr(module, "compare", lambda *_, **__: pytest.fail("begun"))
    assert call("compare", run, "--out", tmp_path / "out") == 1
    assert "compare.png: matplotlib is not installed; pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
