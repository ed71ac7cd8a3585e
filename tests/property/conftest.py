"""Properties: whatever a user, a disk or another tool gives is refused in one line or taken.

All properties together run PROPERTY_CASES cases, shared equally; docs/developing.md says how many
were run before a release.
"""

import contextlib
import math
import os

import hypothesis
import pytest

from planet_rssm.base.errors import PlanetError

CASES = int(os.environ.get("PROPERTY_CASES", "600"))


def pytest_collection_modifyitems(items):
    properties = [item for item in items if item.path.parent.name == "property"]
    slow = hypothesis.HealthCheck.too_slow
    for item in properties:
        cases = math.ceil(CASES / len(properties))
        item.obj = hypothesis.settings(max_examples=cases, suppress_health_check=[slow])(item.obj)


@pytest.fixture(scope="session")
def refused():
    """Return a context that takes a PlanetError of one line; it yields a list of such lines."""

    @contextlib.contextmanager
    def expect():
        lines = []
        try:
            yield lines
        except PlanetError as error:
            lines.append(str(error))
            assert len(str(error).splitlines()) == 1, str(error)

    return expect


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the module: hypothesis runs every case in it."""
    return tmp_path_factory.mktemp("property")
