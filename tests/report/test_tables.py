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


def test_a_table_by_task_ends_in_means_over_them_and_is_latex_too(tmp_path):
    planet = {"method": "PlaNet", "score": 821, "steps": 1_000_000}
    published = {"PlaNet": planet, "Dreamer": None}
    numbers = {"ci95": [1, 2], "t95": [0, 3], "iqm_ci95": [1, 2], "iqm_t95": None}
    table = {
        "group": "latent_a",
        "observation": "vectors",
        "tasks": [
            {"task": "dmc/a_b", "env_steps": [90, 2000], "mean": 1.5, "published": published}
            | numbers
        ],
        "normalised": {"mean": 0.0015, "iqm": 0.002, **numbers},
        "normalised_published": {"PlaNet": {"mean": 0.821, "iqm": 0.8}, "Dreamer": None},
    }
    task, mean, iqm = tables.task_rows(table)
    assert task[:3] == ["dmc/a_b", "90 to 2k", "1.5"] and task[5:] == ["821 (PlaNet, 1M)", "none"]
    assert mean == ["mean / 1000", "", "0.0015", "1 to 2", "0 to 3", "0.821", "none"]
    assert iqm == ["IQM / 1000", "", "0.002", "1 to 2", "none", "0.8", "none"]
    tables.write_latex(tmp_path / "t.tex", {"groups": [], "tables": [table], "published": []})
    text = (tmp_path / "t.tex").read_text()
    assert r"dmc/a\_b & 90 to 2k" in text and text.count("begin{tabular}") == 2
    assert "% latent_a, vectors\n" in text
