"""Tables of `planet eval` as files, whatever runs are called."""

import csv

from planet_rssm.report import tables


def result(name):
    observation = {"observe": "pixels", "renderer": "raycast"}
    episode = {"seed": 1, "return": -2.5, "env_steps": 1000}
    run = {
        "run": name,
        "task": "dmc/a-b",
        "seed": 0,
        "planner": "cem",
        "observation": observation,
        "checkpoint": "last",
    }
    return {"results": [{**run, "episodes": [episode]}]}


def rows_of(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_a_name_that_a_spreadsheet_would_calculate_is_text(tmp_path):
    for name in ("=1+1", "+a", "-a", "@a"):
        tables.write_rows(tmp_path / "rows.csv", result(name))
        row = rows_of(tmp_path / "rows.csv")[1]
        assert row[0] == f"'{name}" and row[8] == "-2.5"


def test_a_name_that_is_not_utf_8_is_written_all_the_same(tmp_path):
    tables.write_rows(tmp_path / "rows.csv", result("run\udcff"))
    assert rows_of(tmp_path / "rows.csv")[1][0] == "run\\udcff"
