import json

import pytest

from planet_rssm.cli import installed
from planet_rssm.cli.main import main
from planet_rssm.envs.registry import task_ids


def test_every_task_is_listed_with_its_action_repeat(capsys):
    main(["envs", "--json"])
    rows = json.loads(capsys.readouterr().out)["envs"]
    assert [row["id"] for row in rows] == task_ids()
    repeats = {row["id"]: row["action_repeat"] for row in rows}
    assert (repeats["dmc/cartpole-swingup"], repeats["dmc/finger-spin"], repeats["dmc/dog-run"]) == (8, 2, 2)
    assert all(row["ok"] and not row["why"] for row in rows)


def test_people_get_a_table(capsys):
    main(["envs"])
    out = capsys.readouterr().out
    assert "dmc/ball_in_cup-catch" in out
    assert out.endswith(f"all {len(task_ids())} run here\n")


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("dm-control", None, "dm-control is not installed (pip install"),
        ("mujoco", "4.0.0", "mujoco 4.0.0 (dm-control fails on mujoco 4: "),
    ],
)
def test_what_cannot_run_says_why(name, version, why, capsys, monkeypatch):
    real = installed.version_of
    monkeypatch.setattr(installed, "version_of", lambda package: version if package == name else real(package))
    main(["envs", "--json"])
    rows = json.loads(capsys.readouterr().out)["envs"]
    assert len(rows) == len(task_ids())
    assert not any(row["ok"] for row in rows)
    assert rows[0]["why"].startswith(why)
    main(["envs"])
    assert f"none of these runs here: {why}" in capsys.readouterr().out
