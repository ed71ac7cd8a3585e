"""The wheel, built without a download and unpacked into a folder of its own, works from there."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIGS = CHECKOUT / "configs"
PRESETS = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml"))
CALL = """
import sys
from importlib.metadata import distribution
command = distribution("planet_rssm").entry_points["planet-rssm"].load()
import planet_rssm
print(planet_rssm.__file__, file=sys.stderr)
for line in sys.argv[1:]:
    print("$", line)
    try:
        command(line.split())
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel) -> Path:
    """What `pip install --no-deps --target` makes of a pure wheel; .venv itself has no pip."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def call(site: Path, folder: Path, *lines: str) -> subprocess.CompletedProcess:
    """Call the installed command from `folder` with only the wheel before the other packages.

    What it prints for each line comes after that line.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(site)
    return subprocess.run(
        [sys.executable, "-P", "-c", CALL, *lines],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_it_holds_the_package_the_presets_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "planet_rssm").rglob("*.py")}
    presets = {f"planet_rssm/configs/{name}.yaml" for name in PRESETS}
    pretrained = CHECKOUT / "planet_rssm" / "pretrained"
    models = {str(path.relative_to(CHECKOUT)) for path in pretrained.rglob("*") if path.is_file()}
    assert any(name.endswith(".safetensors") for name in models)
    files = {"planet_rssm/py.typed", "planet_rssm/evaluation/published_scores.json"}
    files |= {f"planet_rssm/report/page/report.{kind}" for kind in ("html", "css", "js")}
    assert held == modules | presets | models | files


def test_presets_resolve_from_another_folder(site, tmp_path):
    done = call(site, tmp_path, *(f"config {preset}" for preset in PRESETS))
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{site / 'planet_rssm' / '__init__.py'}\n"
    _, *shown = done.stdout.split("$ config ")
    assert [text.partition("\n")[0] for text in shown] == PRESETS
    assert all("planner.candidates: " in text for text in shown)
    assert not list(tmp_path.iterdir())


def test_the_presets_are_the_wheels_own(site, tmp_path):
    added = site / "planet_rssm" / "configs" / "only-in-the-wheel.yaml"
    added.write_text("seed: 77\n")
    try:
        done = call(site, tmp_path, f"config {added.stem}")
    finally:
        added.unlink()
    assert done.returncode == 0, done.stderr
    assert "seed: 77\n" in done.stdout


def test_its_version_is_the_projects(site, tmp_path):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert call(site, tmp_path, "--version").stdout == (
        f"$ --version\nplanet, version {project['version']}\n"
    )
