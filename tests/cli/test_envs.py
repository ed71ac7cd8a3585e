import json

import pytest

from planet_rssm.cli import installed
from planet_rssm.cli.main import main
from planet_rssm.envs import survey
from planet_rssm.envs.registry import task_ids

PRETENDED = [
    survey.Finding("gym/Acrobot-v1", ["pixels", "vectors"], ""),
    survey.Finding("gym/CarRacing-v3", [], "Box2D is not installed"),
    survey.Finding("gym/Hopper-v5", ["vectors"], "no GL works here"),
]


@pytest.fixture
def pretended(monkeypatch):
    monkeypatch.setattr(survey, "survey", lambda ids: PRETENDED)


def rows(capsys):
    main(["envs", "--json"])
    return json.loads(capsys.readouterr().out)["envs"]


def test_every_task_is_listed_with_its_action_repeat(capsys, pretended):
    suite = [row for row in rows(capsys) if row["id"].startswith("dmc/")]
    assert [row["id"] for row in suite] == task_ids()
    repeats = {row["id"]: row["action_repeat"] for row in suite}
    assert (
        repeats["dmc/cartpole-swingup"],
        repeats["dmc/finger-spin"],
        repeats["dmc/dog-run"],
    ) == (8, 2, 2)
    assert all(
        row["ok"] and not row["why"] and row["observe"] == ["pixels", "vectors"] for row in suite
    )


def test_gymnasium_is_listed_with_what_works(capsys, pretended):
    others = rows(capsys)[len(task_ids()) :]
    assert [(row["ok"], row["observe"], row["why"]) for row in others] == [
        (True, ["pixels", "vectors"], ""),
        (False, [], "Box2D is not installed"),
        (True, ["vectors"], "no GL works here"),
    ]
    assert [row["id"] for row in others] == [finding.id for finding in PRETENDED]
    assert all(row["action_repeat"] == 1 for row in others)


def test_people_get_a_table(capsys, pretended):
    main(["envs"])
    out = capsys.readouterr().out
    assert "dmc/ball_in_cup-catch" in out and f"dm_control: all {len(task_ids())} run here\n" in out
    lines = [
        "Gymnasium: 2 of 3 run here",
        "  gym/CarRacing-v3: Box2D is not installed",
        "  gym/Hopper-v5: no GL works here",
    ]
    *_, others = out.splitlines()
    assert out.splitlines()[-4:-1] == lines
    assert (
        "gym/MODULE:ID, see docs/environments.md" in others
        and "metaworld" in others
        and "Fetch" in others
    )


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("dm-control", None, "dm-control is not installed (pip install"),
        ("mujoco", "4.0.0", "mujoco 4.0.0 (dm-control fails on mujoco 4: "),
    ],
)
def test_what_cannot_run_says_why(name, version, why, capsys, monkeypatch, pretended):
    real = installed.version_of
    monkeypatch.setattr(
        installed, "version_of", lambda package: version if package == name else real(package)
    )
    suite = rows(capsys)[: len(task_ids())]
    assert not any(row["ok"] or row["observe"] for row in suite)
    assert suite[0]["why"].startswith(why)
    main(["envs"])
    assert f"none of these runs here: {why}" in capsys.readouterr().out
