"""`planet eval`: one protocol for all runs, a line for a bad run, and nothing played twice."""

import csv
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import UNSEALED, seal
from planet_rssm.base.stopwatch import Stages
from planet_rssm.cli.eval import _print
from planet_rssm.cli.main import main
from planet_rssm.cli.tables import output
from planet_rssm.envs.pool import EnvPool
from planet_rssm.evaluation import opened_run
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.evaluation.opened_run import Pools, open_subject
from planet_rssm.evaluation.published import beside, entries, published, score_of
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.runs.run import METRICS
from planet_rssm.world_model import untrained_model

TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none env.action_repeat=10
    env.time_limit=100
    rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.vector_units=8 model.reward_units=8
    planner.candidates=4 planner.iterations=1
    planner.elites=2 planner.horizon=2
""".split()
TIMES = "seconds"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two seeds of one model, and one of another; none has learned anything."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    settings = config.load("planet", TINY)
    with EnvPool(settings.env, 1) as pool:
        spec = pool.spec
    made = []
    for name, overrides in (
        ("a0", []),
        ("a1", ["seed=1"]),
        ("b0", ["rssm.stoch=5", "rssm.latent=categorical"]),
    ):
        changed = config.override(settings, overrides)
        weights = untrained_model(changed, spec).state_dict()
        made.append(
            written(
                Checkpoint(changed, spec, {"env_steps": 7, "seconds": 1.5}, weights, {}),
                folder / name,
            )
        )
    return made


def written(checkpoint: Checkpoint, folder: Path) -> Path:
    (folder / location.FOLDER).mkdir(parents=True)
    checkpoints.save(checkpoint, location.path_of(folder, 7))
    return folder


@pytest.fixture(scope="module")
def measured(runs) -> dict:
    return evaluated([str(run) for run in runs], [1000, 1001, 1002], device="cpu")


@pytest.fixture
def no_worker(monkeypatch):
    """Whatever starts an environment fails."""

    def refuse(*_):
        raise AssertionError("an environment was started")

    monkeypatch.setattr(opened_run, "EnvPool", refuse)


def evaluated(*args, **options) -> dict:
    return evaluate(*args, **options).to_json()


def end_of(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


def without_times(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != TIMES}


def test_the_result_names_what_was_measured(measured, runs):
    result = measured["results"][0]
    assert (result["run"], result["task"], result["planner"]) == (
        str(runs[0]),
        "dmc/cartpole-swingup",
        "cem",
    )
    assert (result["checkpoint"], result["seed"], result["trained"]["env_steps"]) == ("last", 0, 7)
    assert result["observation"]["observe"] == "vectors"
    assert [episode["seed"] for episode in result["episodes"]] == [1000, 1001, 1002]
    assert all(episode["env_steps"] == 100 for episode in result["episodes"])
    low, high = result["episode_ci95"]
    assert (
        low <= result["mean"] <= high
        and result["median_episode_ci95"]
        and result["iqm_episode_ci95"]
    )
    assert set(measured["seconds"]) >= {
        "start",
        "environment",
        "filter",
        "plan",
        "statistics",
        "total",
    }
    assert measured["errors"] == []
    json.dumps(measured)


def test_runs_that_differ_in_their_seed_alone_are_one_group(measured, runs):
    a, b = measured["groups"]
    assert (a["group"], b["group"]) == ("rssm.latent=gaussian", "rssm.latent=categorical")
    assert (a["runs"], a["seeds"], a["episodes"]) == ([str(runs[0]), str(runs[1])], 2, 6)
    assert "ci95" in a and "episode_ci95" in b
    means = [result["mean"] for result in measured["results"]]
    assert a["mean"] == pytest.approx((means[0] + means[1]) / 2)
    (compared,) = measured["improvement"]
    assert (compared["group"], compared["over"], compared["of"]) == (
        a["group"],
        b["group"],
        "episodes",
    )
    assert 0 <= compared["ci95"][0] <= compared["probability"] <= compared["ci95"][1] <= 1


def test_published_scores_come_with_their_protocol(measured):
    assert {entry["task"] for entry in measured["published"]} == {"dmc/cartpole-swingup"}
    assert all(
        entry["protocol"] and entry["obs"] in ("pixels", "state") for entry in measured["published"]
    )
    assert published("gym/Pendulum-v1") == []
    assert score_of("PlaNet", "dmc/walker-walk") == 951
    assert score_of("DreamerV3", "dmc/walker-walk") == 960  # from pixels, after the most steps
    assert all(0 <= score <= 1000 for entry in entries() for score in entry["scores"].values())


def test_a_mistake_names_its_run(runs):
    result = evaluated([str(runs[0])], [1000], overrides=["planner.elites=9999"], device="cpu")
    assert result["errors"][0]["error"].startswith(
        f"{runs[0]}: planner.elites = 9999: at most planner.candidates"
    )


def test_a_row_has_the_published_score_nearest_to_it(measured, capsys):
    walker = "dmc/walker-walk"
    assert beside(walker, "pixels", 240_000, "PlaNet").score == 951
    assert (
        beside("dmc/walker-run", "pixels", 90_000, "PlaNet").steps == 100_000
    )  # of another method
    assert beside(walker, "pixels", 2_000_000, "Dreamer").steps == 1_000_000
    assert beside(walker, "state", 0, "PlaNet").method == "CEM on the true simulator"
    assert beside("gym/Pendulum-v1", "state", 0, "PlaNet") is None
    _print(measured, output())
    said = capsys.readouterr().out
    assert "published" in said and "852 (DreamerV3, 500k)" in said  # from vectors, few steps
    assert "D4PG" not in said and "other protocols" in said


def test_twice_the_same(measured, runs, tmp_path):
    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs[:1]]
    again = evaluated([str(run) for run in copies], [1000, 1001, 1002], device="cpu", fresh=True)
    assert again["results"][0]["episodes"] == measured["results"][0]["episodes"]


def test_what_was_played_is_kept(measured, runs, no_worker):
    again = evaluated([str(run) for run in runs], [1000, 1001, 1002], device="cpu")
    assert without_times(again) == without_times(measured)
    fewer = evaluated([str(runs[0])], [1001], device="cpu")
    assert fewer["results"][0]["episodes"] == measured["results"][0]["episodes"][1:2]


def test_a_setting_newer_than_what_was_kept_plays_nothing_again(
    measured, runs, no_worker, tmp_path
):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (kept,) = (run / "eval").glob("*.json")
    record = json.loads(kept.read_text())
    kept.unlink()
    del record["made_of"]["planner"]["reuse"]  # as if that setting had been added since
    older = kept.with_name("last-cem-00c0ffee.json")
    older.write_bytes(seal(json.dumps(record | {"crc32": UNSEALED}).encode()))
    again = evaluated([str(run)], [1000, 1001, 1002], device="cpu")
    assert again["results"][0]["episodes"] == measured["results"][0]["episodes"]
    assert list((run / "eval").glob("*.json")) == [older]
    record["made_of"]["planner"]["reuse"] = 0.125  # another search
    older.write_bytes(seal(json.dumps(record | {"crc32": UNSEALED}).encode()))
    assert not subject_rows(run)


def test_an_interrupted_evaluation_goes_on(measured, runs, tmp_path, monkeypatch):
    run = shutil.copytree(runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    monkeypatch.setattr(opened_run, "BATCH", 2)
    seeds = []

    def stop(result):
        seeds.append(result.seed)
        if len(seeds) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated([str(run)], [1000, 1001, 1002, 1003], device="cpu", on_episode=stop)
    (kept,) = (run / "eval").glob("*.json")
    assert [row["seed"] for row in json.loads(kept.read_text())["rows"]] == [1000, 1001]
    begun = []
    play = opened_run.RunPlayer.play
    monkeypatch.setattr(
        opened_run.RunPlayer,
        "play",
        lambda self, seeds, *rest: begun.extend(seeds) or play(self, seeds, *rest),
    )
    result = evaluated([str(run)], [1000, 1001, 1002, 1003], device="cpu")
    assert begun == [1002, 1003]
    assert [episode["seed"] for episode in result["results"][0]["episodes"]] == [
        1000,
        1001,
        1002,
        1003,
    ]


def test_an_episode_does_not_depend_on_what_is_played_beside_it(runs):
    with Pools() as pools:
        played = [
            open_subject(str(runs[0]), "last", [], "cpu").play(
                seeds, len(seeds), pools, Stages(), lambda _: None
            )
            for seeds in ([1000, 1001], [1001, 1000], [1001])
        ]
    together, swapped, alone = played
    assert [r.episode_return for r in swapped[::-1]] == pytest.approx(
        [r.episode_return for r in together], rel=1e-3
    )
    assert alone[0].episode_return == pytest.approx(together[1].episode_return, rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"crc32": "00000000"}'])
def test_damaged_rows_are_played_again(runs, tmp_path, caplog, content):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (kept,) = (run / "eval").glob("*.json")
    kept.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert not subject_rows(run)
    assert len([line for line in caplog.messages if "played again" in line]) == 1


def subject_rows(run: Path) -> dict:
    from planet_rssm.evaluation.episode_cache import EpisodeCache

    opened = open_subject(str(run), "last", [], "cpu")
    return EpisodeCache(opened.folder, "last-cem", opened.conditions).episodes


def test_a_wrong_run_costs_a_line_and_the_rest_is_done(
    measured, runs, no_worker, tmp_path, capsys, caplog
):
    damaged = shutil.copytree(runs[1], tmp_path / "damaged")
    path = location.path_of(damaged, 7)
    path.write_bytes(path.read_bytes()[:-1])
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    empty = tmp_path / "empty"
    (empty / location.FOLDER).mkdir(parents=True)
    words = [str(run) for run in (tmp_path / "none", damaged, runs[0], copy, empty)]
    assert end_of("eval", *words, "--episodes", "3", "--json", "--device", "cpu") == 1
    result = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in result["results"]] == [str(runs[0])]
    lines = {Path(error["run"]).name: error["error"] for error in result["errors"]}
    assert "not a run folder" in lines["none"] and "damaged" in lines["damaged"]
    assert "no other seed" in lines["copy"] and "none yet" in lines["empty"]
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 4


def test_other_actions_are_left_out_of_a_group(measured, runs, no_worker, tmp_path):
    checkpoint = checkpoints.load(location.path_of(runs[1], 7))
    spec = dataclasses.replace(checkpoint.spec, action_size=2)
    model = untrained_model(checkpoint.settings, spec).state_dict()
    other = written(dataclasses.replace(checkpoint, spec=spec, model=model), tmp_path / "other")
    opened = open_subject(str(other), "last", [], "cpu")
    keep(opened)
    result = evaluated([str(runs[0]), str(other)], [1000, 1001, 1002], device="cpu")
    assert result["groups"][0]["runs"] == [str(runs[0])] and len(result["results"]) == 2
    assert "action_size = 2" in result["errors"][0]["error"]


def keep(opened, name: str = "last-cem") -> None:
    from planet_rssm.evaluation.episode_cache import EpisodeCache
    from planet_rssm.evaluation.protocol import EpisodeResult

    rows = [EpisodeResult(seed, 1.0, 1000) for seed in (1000, 1001, 1002)]
    EpisodeCache(opened.folder, name, opened.conditions).add(rows)


def test_damaged_metrics_cost_a_line_and_no_number(measured, runs, no_worker, tmp_path, caplog):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / METRICS).write_text('{"phase": "test", "return": 3.5, "env_steps": 1}\n')
    assert (
        evaluated([str(run)], [1000], device="cpu")["results"][0]["trained"]["test_return"] == 3.5
    )
    (run / METRICS).write_text('{"phase": "test", "env_steps": 1}\n')
    assert (
        evaluated([str(run)], [1000], device="cpu")["results"][0]["trained"]["test_return"] is None
    )
    (run / METRICS).write_text('{"phase": "te\n{"phase": "test", "return": 3.5, "env_steps": 1}\n')
    result = evaluated([str(run)], [1000], device="cpu")
    assert result["results"][0]["trained"]["test_return"] is None and result["errors"] == []
    assert sum("line 1 is not a measurement" in line for line in caplog.messages) == 1


def test_the_test_return_is_that_of_the_checkpoint_not_of_a_later_one(
    measured, runs, no_worker, tmp_path
):
    checkpoint = checkpoints.load(location.path_of(runs[0], 7))
    run = written(
        dataclasses.replace(checkpoint, progress=checkpoint.progress | {"updates": 20}),
        tmp_path / "run",
    )
    keep(open_subject(str(run), "last", [], "cpu"))
    tests = [
        {"phase": "test", "return": float(updates), "updates": updates} for updates in (10, 20, 30)
    ]
    (run / METRICS).write_text("".join(json.dumps(line) + "\n" for line in tests))
    assert evaluated([str(run)], [1000], device="cpu")["results"][0]["trained"]["test_return"] == 20


def test_scores_are_normalised_on_request(measured, runs, no_worker):
    group = evaluated([str(runs[2])], [1000, 1001, 1002], device="cpu", normalise="max")["groups"][
        0
    ]
    assert group["normalised"]["mean"] == pytest.approx(
        group["mean"] / 100
    )  # of an episode of 100 steps
    group = evaluated([str(runs[2])], [1000, 1001, 1002], device="cpu", normalise="PlaNet")[
        "groups"
    ][0]
    assert group["normalised"]["mean"] == pytest.approx(group["mean"] / 821)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"group_by": "rssm.latnt"}, "rssm.latent"),
        ({"normalise": "planet"}, "'PlaNet'"),
    ],
)
def test_mistakes_are_reported_before_anything_is_played(runs, no_worker, options, line):
    with pytest.raises(PlanetError, match=line):
        evaluated([str(runs[0])], [1], **options)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--episodes", "0"], "0 is not in the range x>=1"),
        (["--episode-seeds", "7-3"], "'7-3' is no seed and no range"),
        (["--episode-seeds", "3,"], "'' is no seed"),
        (["--episodes", "3", "--episode-seeds", "3"], "leave one out"),
        (["-s", "rssm.deter=3"], "only planner.…, rssm.filter_by"),
        (["--latex", "no/where/t.tex"], "no/where/t.tex: there is no folder no/where; make it"),
    ],
)
def test_wrong_options_are_one_line(runs, words, line, capsys, caplog):
    assert end_of("eval", str(runs[0]), *words) != 0
    assert line in capsys.readouterr().err + caplog.text


def test_tables_are_written(measured, runs, no_worker, tmp_path, capsys):
    files = [
        word for name in ("csv", "rows", "latex") for word in (f"--{name}", str(tmp_path / name))
    ]
    words = [
        "--episode-seeds",
        "1000-1001,1002",
        "--group-by",
        "rssm.latent",
        "--normalise",
        "max",
        *files,
    ]
    assert end_of("eval", *map(str, runs), *words, "--device", "cpu") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "dmc/cartpole-swingup, vectors" in shown and "published" in shown and "time: " in shown
    groups = list(csv.DictReader((tmp_path / "csv").read_text().splitlines()))
    assert [group["group"] for group in groups] == [
        "rssm.latent=gaussian",
        "rssm.latent=categorical",
    ]
    assert float(groups[0]["mean"]) == measured["groups"][0]["mean"]
    rows = list(csv.DictReader((tmp_path / "rows").read_text().splitlines()))
    assert [float(row["return"]) for row in rows[:3]] == [
        e["return"] for e in measured["results"][0]["episodes"]
    ]
    assert len(rows) == 9
    latex = (tmp_path / "latex").read_text()
    assert (
        latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
        and "rssm.latent=gaussian" in latex
    )


def test_a_selected_checkpoint_is_labelled_in_every_table(
    measured, runs, no_worker, tmp_path, capsys
):
    run = shutil.copytree(runs[0], tmp_path / "run")
    shutil.copy(location.path_of(run, 7), location.path_of(run, location.BEST))
    keep(open_subject(str(run), "best", [], "cpu"), "best-cem")
    files = [word for name in ("csv", "latex") for word in (f"--{name}", str(tmp_path / name))]
    assert (
        end_of(
            "eval", str(run), "--episodes", "1", "--checkpoint", "best", *files, "--device", "cpu"
        )
        == 0
    )
    assert "selected on test episodes" in " ".join(capsys.readouterr().out.split())
    [group] = csv.DictReader((tmp_path / "csv").read_text().splitlines())
    assert group["checkpoint"] == "best"
    assert "7 (best: selected)" in (tmp_path / "latex").read_text()


def test_a_simulator_is_a_run_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "planner.candidates=8 planner.iterations=2 planner.elites=2"
    options = {
        "overrides": ["env.time_limit=24", "planner.horizon=3", *small.split()],
        "fresh": True,
    }
    one, two = (
        evaluated(["simulator:cartpole-swingup"], seeds, **options)["results"][0]
        for seeds in ([1000], [1001, 1000])
    )
    assert two["episodes"][1:] == one["episodes"] and one["observation"]["observe"] == "state"
    assert list((tmp_path / "runs" / "simulator-cartpole-swingup" / "eval").iterdir())
