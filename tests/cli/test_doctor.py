"""`planet doctor`: each fault it looks for is caused or pretended; no GL and no GPU is used."""

import errno
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from planet_rssm.cli import doctor, installed
from planet_rssm.cli.installed import Check
from planet_rssm.cli.main import main
from planet_rssm.envs.gl import GlProbe

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture
def versions(monkeypatch):
    """What is installed, as the test changes it."""
    changed: dict[str, str | None] = {}
    real = installed.version_of
    monkeypatch.setattr(
        installed, "version_of", lambda name: changed[name] if name in changed else real(name)
    )
    return changed


def test_the_whole_loads_no_simulator_beside_torch(tmp_path):
    code = """
import sys
from planet_rssm.cli import doctor
from planet_rssm.cli.main import main
from planet_rssm.envs.gl import GlProbe
doctor.gl.probe = lambda backend: GlProbe(backend, False, "", "no GL in this test")
try:
    main(["doctor", "--json"])
finally:
    assert "torch" in sys.modules and not {"mujoco", "dm_control", "OpenGL"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert not done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    rows = {row["name"]: row for row in answer["checks"]}
    assert {
        "python",
        "torch",
        "mujoco",
        "device",
        "gl egl",
        "c++ compiler",
        "matplotlib",
        "planet on PATH",
    } < set(rows)
    for name in ("gemm float32 (GFLOP/s)", "gemm bfloat16 (GFLOP/s)", "raycast 64x64 (ms)"):
        assert rows[name]["value"] > 0
    assert rows["disk write and fsync (MB/s)"]["value"] > 0
    assert rows["gl egl"]["value"] == "no GL in this test"
    assert all(bool(row["mend"]) is not row["ok"] for row in answer["checks"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("needed", "code"), [(True, 1), (False, 0)])
def test_a_check_that_raises_is_a_row_without_a_traceback(needed, code, capsys, monkeypatch):
    def broken_part():
        raise OSError("libtorch.so: cannot open\n[Errno 2]")

    def fine_part():
        return [Check("[red]fine", True, 1.5)]

    monkeypatch.setattr(doctor, "NEEDED", (broken_part,) if needed else ())
    monkeypatch.setattr(doctor, "OPTIONAL", (fine_part,) if needed else (broken_part, fine_part))
    assert call("doctor", "--json") == code
    said = capsys.readouterr()
    assert not said.err
    answer = json.loads(said.out)
    assert answer["ok"] is (code == 0)
    broken, fine = answer["checks"]
    assert (broken["name"], broken["ok"]) == ("broken part", False)
    assert broken["value"] == "OSError: libtorch.so: cannot open [Errno 2]"
    assert fine == {"name": "[red]fine", "ok": True, "value": 1.5, "mend": "", "needed": False}


def test_people_get_a_table_and_whole_lines_to_copy(capsys, monkeypatch):
    fix = "pip install " + " ".join(f"'part{i}[all]'" for i in range(20))
    rows = (lambda: [Check("a", True, "[1]"), Check("b", False, None, fix)],)
    monkeypatch.setattr(doctor, "NEEDED", rows)
    monkeypatch.setattr(doctor, "OPTIONAL", ())
    assert call("doctor") == 1
    out = capsys.readouterr().out
    assert "[1]" in out
    assert f"\nb: {fix}\n" in out
    assert out.endswith("needed, but does not work: b\n")
    monkeypatch.setattr(doctor, "NEEDED", ())
    monkeypatch.setattr(doctor, "OPTIONAL", rows)
    assert call("doctor") == 0
    assert capsys.readouterr().out.endswith("everything needed works\n")


def test_versions_are_those_of_the_project():
    wanted = {
        re.match(r"[\w-]+", line)[0]: line.partition(";")[0] for line in PROJECT["dependencies"]
    }
    for name, (lowest, below) in installed.PACKAGES.items():
        least = ".".join(map(str, lowest))
        limits = f">={least}" + (f",<{'.'.join(map(str, below))}" if below else "")
        assert wanted[name] in (name + limits, f"{name}=={least}")
    (low, high) = installed.PYTHON
    assert PROJECT["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"


def test_what_dm_control_needs_is_what_it_says():
    requirements = importlib.metadata.requires("dm-control")
    asked = {re.match(r"[\w-]+", line)[0] for line in requirements if "extra ==" not in line}
    assert asked == {*installed.DM_CONTROL_NEEDS, "labmaze", "mujoco", "numpy", "scipy"}


@pytest.mark.parametrize(
    ("name", "version", "fix"),
    [
        ("torch", "2.13.0+cu130", ""),
        ("torch", "2.11.0a0+git1", ""),
        ("torch", "2.9.1", "pip install 'torch>=2.11'"),
        ("numpy", "1.26.4", "pip install 'numpy>=2'"),
        ("mujoco", "3.17.0", ""),
        ("mujoco", "3.9.0", "pip install 'mujoco>=3.17,<4'"),
        ("mujoco", None, "pip install 'mujoco>=3.17,<4'"),
        ("gymnasium", "2.0.0", "pip install 'gymnasium>=1.4,<2'"),
    ],
)
def test_a_version_is_in_its_range_or_fixed(name, version, fix, versions):
    versions[name] = version
    assert installed.package(name) == Check(name, not fix, version, fix)


def test_mujoco_4_is_refused_and_taken_out_first(versions):
    versions["mujoco"] = "4.0.1"
    check = installed.package("mujoco")
    assert not check.ok
    assert "dm-control fails on mujoco 4: pip uninstall -y mujoco " in check.mend
    assert check.mend.endswith("&& pip install 'mujoco>=3.17,<4'")


@pytest.mark.parametrize(
    ("python", "others", "fix"),
    [
        ((3, 12, 1), {"dm-control": None}, "pip install dm-control==1.0.50"),
        ((3, 13, 0), {"dm-control": None}, "pip install --no-deps dm-control==1.0.50"),
        ((3, 13, 0), {"dm-control": "1.0.49", "dm-env": None, "lxml": None},
         "pip install --no-deps dm-control==1.0.50 && pip install dm-env lxml"),
        ((3, 13, 0), {"dm-tree": None}, "pip install dm-tree"),
        ((3, 13, 0), {}, ""),
    ],
)  # fmt: skip
def test_dm_control_can_be_had_without_labmaze(python, others, fix, versions, monkeypatch):
    versions.update(
        dict.fromkeys(installed.DM_CONTROL_NEEDS, "1") | {"dm-control": "1.0.50"} | others
    )
    monkeypatch.setattr(installed.sys, "version_info", python)
    check = installed.dm_control()
    assert (check.ok, check.mend) == (not fix, fix)


@pytest.mark.parametrize(
    ("python", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 14, 0), False)]
)
def test_python_is_in_its_range(python, ok, monkeypatch):
    monkeypatch.setattr(installed.sys, "version_info", python)
    (check,) = installed.python_version()
    assert check.ok is ok and bool(check.mend) is not ok


@pytest.mark.parametrize(
    ("probe", "nvidia", "fix"),
    [
        (GlProbe("egl", True, "NVIDIA H200/PCIe/SSE2", ""), True, ""),
        (GlProbe("egl", True, "llvmpipe (LLVM 15.0.6)", ""), False, ""),
        (GlProbe("egl", True, "llvmpipe (LLVM 15.0.6)", ""), True, "libnvidia-gl"),
        (GlProbe("glfw", True, "llvmpipe (LLVM 15.0.6)", ""), True, "libnvidia-gl"),
        (GlProbe("osmesa", True, "llvmpipe (LLVM 15.0.6)", ""), True, ""),
        (GlProbe("osmesa", False, "", "no libOSMesa"), True, "libosmesa6"),
        (GlProbe("egl", False, "", "no libEGL"), False, "planet doctor --install-gl"),
        (GlProbe("egl", False, "", "no libEGL"), True, "libnvidia-gl"),
        (GlProbe("glfw", False, "", "no display"), True, "DISPLAY"),
    ],
)
def test_gl_is_judged_by_its_renderer(probe, nvidia, fix, monkeypatch):
    monkeypatch.setattr(doctor, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(doctor.gl, "BACKENDS", (probe.backend,))
    monkeypatch.setattr(doctor.gl, "probe", lambda backend: probe)
    monkeypatch.setattr(
        doctor, "_frame_rate", lambda renderer: Check(f"{renderer} 64x64 (ms)", True, 9.9)
    )
    check, *rates, auto = doctor.gl_renderers()
    assert [rate.name for rate in rates] == [f"{probe.backend} 64x64 (ms)"] * probe.ok
    assert auto.value == (probe.backend if probe.hardware else "raycast, as no GPU draws here")
    assert check.name == f"gl {probe.backend}"
    assert check.ok is not bool(fix)
    assert fix in check.mend
    assert (probe.renderer or probe.error) in check.value


def test_an_idle_gpu_is_a_warning(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "has_nvidia", lambda: True)
    for built, fix in ((None, "built without CUDA"), ("13.0", "driver")):
        monkeypatch.setattr(torch.version, "cuda", built)
        (check,) = doctor.device()
        assert not check.ok and fix in check.mend and check.value.startswith("cpu")
    monkeypatch.setattr(doctor, "has_nvidia", lambda: False)
    assert doctor.device()[0].ok


def test_a_broken_torch_costs_only_its_own_rows(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('no libtorch')")
    code = """
from planet_rssm.cli import doctor
doctor.gl.probe = lambda backend: doctor.gl.GlProbe(backend, True, "llvmpipe", "")
doctor._frame_rate = lambda renderer: doctor.Check(renderer, True, 9.9)
doctor.NEEDED = (doctor.gemm, doctor.disk)
print([row["name"] for row in doctor.examine() if not row["ok"] and "no libtorch" in row["value"]])
"""
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['gemm', 'device']\n", done.stderr


@pytest.mark.parametrize(
    ("child", "timeout", "value"),
    [
        (
            "import no_such_simulator",
            10.0,
            "ModuleNotFoundError: No module named 'no_such_simulator'",
        ),
        ("import os; os.abort()", 10.0, "exit code -6"),
        ("import time; time.sleep(60)", 0.2, "no frame within 0.2 s"),
    ],
)
def test_a_simulator_that_does_not_work_fails(child, timeout, value, monkeypatch):
    monkeypatch.setattr(doctor, "_FRAMES", child)
    monkeypatch.setattr(doctor, "FRAMES_TIMEOUT", timeout)
    (check,) = doctor.raycast()
    assert not check.ok and check.value == value and check.mend


def test_a_full_disk_fails(monkeypatch):
    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    (check,) = doctor.disk()
    assert (
        not check.ok
        and check.value.startswith("No space left on device in ")
        and "--run-dir" in check.mend
    )


def test_little_space_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "ROOMY", 1e9)
    (check,) = doctor.disk_space()
    assert not check.ok and check.value > 0 and check.mend


def test_the_compiler_is_the_one_that_torch_calls(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (check,) = doctor.compiler()
    assert not check.ok and check.value == "no-such-compiler does not run" and "CXX" in check.mend
    ours = tmp_path / "c++"
    ours.write_text("#!/bin/sh\necho our c++ 1.0\necho copyright\n")
    ours.chmod(0o755)
    monkeypatch.setenv("CXX", str(ours))
    assert doctor.compiler() == [Check("c++ compiler", True, "our c++ 1.0")]


def script(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "planet"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_foreign_planet_is_reported(monkeypatch, tmp_path):
    console_script = "#!python\nfrom planet_rssm.cli.main import main\nmain()\n"
    ours = script(tmp_path / "bin", console_script)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    foreign = script(tmp_path / "other", "#!/bin/sh\necho a feed reader\n")
    elsewhere = script(tmp_path / "elsewhere", console_script)  # of another environment
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "planet").symlink_to(ours)
    for folder, ok in (
        (ours.parent, True),
        (tmp_path / "links", True),
        (foreign.parent, False),
        (elsewhere.parent, False),
    ):
        monkeypatch.setenv("PATH", f"{folder}:{ours.parent}")
        (check,) = doctor.command()
        assert (check.ok, check.value) == (ok, str(folder / "planet"))
        assert ok or "planet-rssm" in check.mend
    script(ours.parent, "#!/bin/sh\necho a feed reader in the folder that we share\n")
    assert not doctor.command()[0].ok
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.command()[0].ok


def test_the_checkouts_script_is_not_foreign(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(__file__).parents[2] / "scripts"))
    assert doctor.command()[0].ok
