import subprocess
import sys
from pathlib import Path

import pytest

from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl
from planet_rssm.envs.pool import EnvPool


@pytest.mark.parametrize(
    ("renderer", "hardware"),
    [
        ("NVIDIA H200/PCIe/SSE2", True),
        ("Mesa Intel(R) UHD Graphics", True),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", False),
        ("softpipe", False),
        ("Software Rasterizer", False),
    ],
)
def test_hardware_is_told_from_software(renderer, hardware):
    assert gl.GlProbe("egl", True, renderer, "").hardware is hardware
    assert not gl.GlProbe("egl", False, renderer, "black").hardware


def test_hanging_backend_is_given_up():
    probe = gl.probe.__wrapped__("egl", timeout=0.01)
    assert not probe.ok and "0.01 s" in probe.error


def test_crashing_backend_is_reported_by_its_last_line(monkeypatch):
    monkeypatch.setattr(gl, "_CHILD", "import os, sys; print('first\\nno libEGL', file=sys.stderr); os._exit(3)")
    assert gl.probe.__wrapped__("egl") == gl.GlProbe("egl", False, "", "no libEGL")
    monkeypatch.setattr(gl, "_CHILD", "import os; os.abort()")
    assert "exit code -6" in gl.probe.__wrapped__("egl").error


@pytest.fixture(scope="module")
def backend():
    found = next((name for name in ("egl", "osmesa") if gl.probe(name).ok), None)
    if found is None:
        pytest.skip(f"no GL renders here: egl: {gl.probe('egl').error}; osmesa: {gl.probe('osmesa').error}")
    return found


def test_gl_frames_come_from_a_worker(backend):
    with EnvPool(EnvSettings(id="dmc/reacher-easy", renderer=backend, action_repeat=4), 1) as pool:
        image = pool.reset({0: 0})[0]["image"]
        assert image.shape == (64, 64, 3) and image.std() > 10
        assert pool.render(0, 200).shape == (200, 200, 3)


def test_frames_are_dm_controls_own_in_every_byte(backend):
    if not gl.is_software(gl.probe(backend).renderer):
        pytest.skip(f"{backend} draws with a GPU, which need not draw the same twice")
    bench = Path(__file__).parents[2] / "scripts" / "bench_renderers"
    command = [sys.executable, bench, "--backends", backend, "--states", "3", "--tasks", "reacher-easy", "walker-walk"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.count("| 6 of 6 |") == 2, done.stdout + done.stderr


def test_an_unpacked_mesa_is_found_after_the_machines_own_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(gl, "mesa_folder", lambda: tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/theirs")
    assert gl.variables("egl") == {"MUJOCO_GL": "egl"}
    libraries = tmp_path / "usr" / "lib" / "aarch64-linux-gnu"
    libraries.mkdir(parents=True)
    found = gl.variables("osmesa")
    assert found["MUJOCO_GL"] == "osmesa" and found["LD_LIBRARY_PATH"] == f"{libraries}:/theirs"
    assert found["LIBGL_DRIVERS_PATH"] == f"{libraries}/dri"
    vendors = found["__EGL_VENDOR_LIBRARY_DIRS"].split(":")
    assert vendors[-1] == f"{tmp_path}/usr/share/glvnd/egl_vendor.d" and "/usr/share/glvnd/egl_vendor.d" in vendors[:-1]
    assert gl.variables("disable") == {"MUJOCO_GL": "disable"}
