"""Freed memory is kept, unless the user has a say in it."""

import os
import platform
import subprocess
import sys

import pytest

from planet_rssm.base.malloc import ASKED

CODE = """
import resource
from planet_rssm.base.malloc import keep_memory
keep_memory()
for _ in range(10):
    b"x" * 40_000_000  # above what glibc itself would ever keep
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can keep memory so")
@pytest.mark.parametrize(
    ("asked", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)]
)
def test_large_blocks_cost_page_faults_once(asked, kept):
    inherited = {key: value for key, value in os.environ.items() if key not in ASKED}
    answer = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        env=inherited | asked,
    )
    assert (int(answer.stdout) < 60_000) == kept  # a block is 9766 pages
