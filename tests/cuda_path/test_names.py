"""What the tests of this folder replace is looked for where there is no device, too."""

import pkgutil
import re
from pathlib import Path

import pytest

NAME = re.compile(r'"(planet_rssm(?:\.\w+)+)"')
FILES = [path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__)]
NAMES = sorted({name for path in FILES for name in NAME.findall(path.read_text())})


def test_there_are_names():
    assert "planet_rssm.planners.captured.Graphs" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_replaced_is_there(name):
    pkgutil.resolve_name(name)
