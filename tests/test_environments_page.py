"""docs/environments.md beside the script that fills its table."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/environments.md").read_text()
ROWS = {
    task: (observe, re.findall("`(.+?)`", settings))
    for task, observe, settings in re.findall(
        r"^\| [\w-]+ [\d.]+ \| `([^`]+)` \| (\w+)(.*?) \|.*\|$", PAGE, re.MULTILINE
    )
}


@pytest.fixture(scope="module")
def tried():
    return runpy.run_path(str(ROOT / "scripts/try_environments"))["ENVIRONMENTS"]


def test_rows_say_how_an_environment_was_tried(tried):
    assert len(ROWS) > 20
    said = {t.id: (t.observe, t.settings) for t in tried if t.id in ROWS}
    quoted = {
        task: (observe, [setting.strip("'") for setting in settings])
        for task, (observe, settings) in ROWS.items()
    }
    assert quoted == said


def test_what_was_tried_and_is_no_row_is_refused_on_the_page(tried):
    refused = PAGE.partition("## What is refused")[2]
    for other in tried:
        name = re.split("[:/]", other.id)[-1].removesuffix("-v0")
        assert other.id in ROWS or other.package in refused or name in refused
