"""The package's imports point one way, and the light parts stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import planet_rssm

PACKAGE = Path(planet_rssm.__file__).parent
HEAVY = ("torch", "mujoco", "dm_control", "matplotlib")

# part of the package: what it may import of the package, besides itself
BASE = {"base"}
LEARNED = {"config", "types", "precision", "graphs", "ranks"}
SPEC = {"envs.spec", "envs.choices"}
# an agent needs no environment
AGENT = {*LEARNED, *SPEC, "world_model", "planners", "behavior", "runs.checkpoint"}
RUN = {*AGENT, "agent", "control", "envs", "data", "collect", "datasets", "runs"}
EVALUATION = {*RUN, "simulator", "evaluation", "diagnosis", "openloop"}
MAY_IMPORT = {
    "base": set(),
    "__init__": RUN | {"simulator", "testing", "training"},  # public names, loaded when used
    "__main__": {"cli"},
    "config": set(),
    "precision": {"config"},
    "types": set(),
    "graphs": {"types"},
    "ranks": set(),
    "envs": {"config"},
    "data": {"config"},
    "collect": {"config", "envs", "data"},
    "datasets": {"config", "envs", "data"},
    "runs": {"config", "types", "envs", "data"},
    "world_model": LEARNED | {"envs.spec"},
    "planners": LEARNED,
    "testing": LEARNED | {"planners"},
    "behavior": LEARNED | {"world_model", "planners", "envs.spec"},
    "agent": AGENT,
    "control": AGENT
    | {"agent", "envs.pictures"},  # pictures of any size are brought to the model's
    "serve": {*AGENT, "agent", "control"},
    "deploy": AGENT | {"agent"},
    "sweep": EVALUATION | {"training"},
    "simulator": LEARNED | {"planners", "envs"},
    "evaluation": RUN | {"simulator"},
    "diagnosis": RUN | {"simulator", "evaluation"},
    "openloop": RUN | {"evaluation"},
    "report": EVALUATION,
    "hub": EVALUATION | {"report"},
    "training": EVALUATION | {"report"},
    "bench": EVALUATION | {"training"},
    "cli": EVALUATION | {"report", "training", "bench", "serve", "deploy", "sweep", "hub"},
}
WITHOUT_TORCH = {"base", "__init__", "config", "envs", "data", "collect", "datasets"}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: write the whole name of the module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def may_use_torch(path: Path) -> bool:
    return part_of(path) not in WITHOUT_TORCH or path == PACKAGE / "base" / "device.py"


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_point_one_way(path):
    part = part_of(path)
    for name in imports_of(path):
        library, _, inside = name.partition(".")
        if library == "planet_rssm":
            allowed = {part} | BASE | MAY_IMPORT[part]
            assert any(f"{inside}.".startswith(f"{other}.") for other in allowed), name
            assert part not in WITHOUT_TORCH or inside.split(".")[:2] != ["base", "device"], name
        assert may_use_torch(path) or library != "torch"


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Return which modules of the package a file imports, inside functions and for types too."""
    longest = (
        next((name for name in (full, full.rpartition(".")[0]) if name in known), None)
        for full in imports_of(path)
    )
    return {name for name in longest if name} - {name_of(path)}


def without_ends(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the modules in circles: those that import none of the others are taken away."""
    while ends := [name for name, imports in graph.items() if not imports & graph.keys()]:
        graph = {name: imports for name, imports in graph.items() if name not in ends}
    return {name: imports & graph.keys() for name, imports in graph.items()}


def test_no_module_imports_itself_through_others():
    known = {name_of(path): path for path in MODULES}
    graph = {name: imported_modules(path, known) for name, path in known.items()}
    del graph["planet_rssm"]  # public names, loaded when used
    circles = without_ends(graph)
    importers = {name: {other for other in circles if name in circles[other]} for name in circles}
    assert without_ends(importers) == {}


# the last is what `planet collect --policy random` needs
@pytest.mark.parametrize(
    "module",
    ["planet_rssm", "planet_rssm.cli.main", "planet_rssm.config", "planet_rssm.training.record"],
)
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []


def test_planners_need_torch_alone():
    """Nor what their settings are made of, until those are asked for."""
    code = """
import sys
for name in ("pydantic", "pydantic_core", "yaml", "scipy", "mujoco", "dm_control", "gymnasium",
             "click",
             "rich", "PIL",
             "safetensors", "matplotlib"):
    sys.modules[name] = None
import torch
before = set(sys.modules)
import planet_rssm.planners as planners
new = set(sys.modules) - before
assert {name.partition(".")[0] for name in new} == {"planet_rssm"}, new
assert planners.FunctionDynamics and planners.planner_from_settings
try:
    planners.PlannerSettings
except ImportError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "pydantic" in answer.stdout or "yaml" in answer.stdout
