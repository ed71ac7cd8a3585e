"""What a release is made with: the CHANGELOG's section, and the files that Docker copies."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
NOTES = ROOT / "scripts" / "release_notes"
CHANGELOG = """# Changelog

## 0.2.0 (unreleased)

- new

## 0.1.0 (2026-12-24)

- old
  and more
"""


@pytest.fixture(scope="module")
def section():
    return runpy.run_path(str(NOTES))["section"]


def test_the_section_of_a_version(section):
    assert section(CHANGELOG, "0.1.0") == "- old\n  and more\n"


@pytest.mark.parametrize(
    ("version", "said"), [("0.2.0", "write the day"), ("0.3.0", "no section '## 0.3.0'")]
)
def test_a_version_that_is_not_ready_is_refused(section, version, said):
    with pytest.raises(SystemExit, match=said):
        section(CHANGELOG, version)


def test_the_script_refuses_another_version_than_the_projects():
    done = subprocess.run([sys.executable, NOTES, "9.9"], capture_output=True, text=True)
    assert done.returncode == 1 and "the tag says '9.9'" in done.stderr


def test_docker_copies_what_is_there_and_the_lock_has_torch_once():
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / name).exists() for name in sources), line
    lock = (ROOT / "requirements.lock").read_text()
    assert len(re.findall(r"^torch==", lock, re.MULTILINE)) == 1


def test_the_workflow_runs_scripts_that_are_there():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert set(yaml.safe_load(text)["jobs"]) == {"build", "publish"}
    for name in re.findall(r"scripts/([\w-]+)", text):
        assert (ROOT / "scripts" / name).is_file(), name
