import os
import subprocess
import sys
from pathlib import Path

import pytest

from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.process import environment


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
def test_hardware_is_distinguished_from_software(renderer, hardware):
    assert gl.GlProbe("egl", True, renderer, "").hardware is hardware
    assert not gl.GlProbe("egl", False, renderer, "black").hardware


def test_hanging_backend_is_given_up():
    probe = gl.probe.__wrapped__("egl", timeout=0.01)
    assert not probe.ok and "0.01 s" in probe.error


def test_crashing_backend_is_reported_by_its_last_line(monkeypatch):
    monkeypatch.setattr(
        gl, "_CHILD", "import os, sys; print('first\\nno libEGL', file=sys.stderr); os._exit(3)"
    )
    assert gl.probe.__wrapped__("egl") == gl.GlProbe("egl", False, "", "no libEGL")
    monkeypatch.setattr(gl, "_CHILD", "import os; os.abort()")
    assert "exit code -6" in gl.probe.__wrapped__("egl").error


@pytest.fixture(scope="module")
def backend():
    backend = next((name for name in ("egl", "osmesa") if gl.probe(name).ok), None)
    if backend is None:
        pytest.skip(
            f"no GL renders here: egl: {gl.probe('egl').error}; osmesa: {gl.probe('osmesa').error}"
        )
    return backend


def test_gl_frames_come_from_a_worker(backend):
    with EnvPool(EnvSettings(id="dmc/reacher-easy", renderer=backend, action_repeat=4), 1) as pool:
        image = pool.reset({0: 0})[0]["image"]
        assert image.shape == (64, 64, 3) and image.std() > 10
        assert pool.render(0, 200).shape == (200, 200, 3)


def test_frames_are_dm_controls_own_in_every_byte(backend):
    if not gl.is_software(gl.probe(backend).renderer):
        pytest.skip(f"{backend} draws with a GPU, which need not draw the same twice")
    bench = Path(__file__).parents[2] / "scripts" / "bench_renderers"
    command = [
        sys.executable,
        bench,
        "--backends",
        backend,
        "--states",
        "3",
        "--tasks",
        "reacher-easy",
        "walker-walk",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.count("| 6 of 6 |") == 2, done.stdout + done.stderr


def test_an_unpacked_mesa_comes_after_the_machines_own_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(gl, "mesa_folder", lambda: tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/theirs")
    assert gl.variables("egl") == {"MUJOCO_GL": "egl"}
    libraries = tmp_path / "usr" / "lib" / "aarch64-linux-gnu"
    libraries.mkdir(parents=True)
    variables = gl.variables("osmesa")
    assert (
        variables["MUJOCO_GL"] == "osmesa"
        and variables["LD_LIBRARY_PATH"] == f"{libraries}:/theirs"
    )
    assert variables["LIBGL_DRIVERS_PATH"] == f"{libraries}/dri"
    vendors = variables["__EGL_VENDOR_LIBRARY_DIRS"].split(":")
    assert (
        vendors[-1] == f"{tmp_path}/usr/share/glvnd/egl_vendor.d"
        and "/usr/share/glvnd/egl_vendor.d" in vendors[:-1]
    )
    assert gl.variables("disable") == {"MUJOCO_GL": "disable"}
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", "/my/vendors:/others")
    ours = f"{tmp_path}/usr/share/glvnd/egl_vendor.d"
    assert gl.variables("egl")["__EGL_VENDOR_LIBRARY_DIRS"] == f"/my/vendors:/others:{ours}"


def draws_on(*devices):
    """Return a probe of a machine where EGL draws on these of its GPUs."""

    def probe(backend, timeout=60.0, device=None):
        ok = backend == "egl" and device in devices
        return gl.GlProbe(
            backend, ok, "NVIDIA H200/PCIe/SSE2" if ok else "", "" if ok else "no such device"
        )

    return probe


@pytest.mark.parametrize(
    ("visible", "drawing", "given"),
    [
        ("2,3", ("2", "3"), ["2", "3", "2"]),
        ("2, 5,7", ("2", "7"), ["2", "7", "2"]),
        ("3", ("3",), ["3"] * 3),
        ("3", (), [None] * 3),  # a container that has no fourth
        ("0", ("0",), [None] * 3),  # the first is what MuJoCo takes
        ("GPU-8932f937,MIG-1", ("0",), [None] * 3),
        ("", ("0",), [None] * 3),
        (None, ("0",), [None] * 3),
    ],
)
def test_workers_draw_on_the_visible_gpus_in_turn(monkeypatch, visible, drawing, given):
    monkeypatch.delenv(gl.DEVICE, raising=False)
    monkeypatch.setattr(gl, "probe", draws_on(*drawing))
    monkeypatch.setenv(
        "CUDA_VISIBLE_DEVICES", visible
    ) if visible is not None else monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for task, renderer in (("dmc/reacher-easy", "egl"), ("gym/Hopper-v5", "egl")):
        settings = EnvSettings(id=task, renderer=renderer)
        assert [environment(settings, row).get(gl.DEVICE) for row in range(3)] == given
    for renderer in ("raycast", "osmesa"):
        assert gl.DEVICE not in environment(
            EnvSettings(id="dmc/reacher-easy", renderer=renderer), 1
        )
    monkeypatch.setenv(gl.DEVICE, "9")
    assert environment(settings, 1)[gl.DEVICE] == "9"


CHOOSING = """
import os, sys, types
from planet_rssm.envs import gl
gl.probe = lambda backend: gl.GlProbe(backend, backend == "osmesa", "", "no library")
gl.choose_when_mujoco_loads()
gl.choose_when_mujoco_loads()
import json.tool
assert "MUJOCO_GL" not in os.environ
sys.path.insert(0, sys.argv[1])
drawing = __import__(sys.argv[2])
print(drawing.chosen, sum(isinstance(finder, gl._Chooser) for finder in sys.meta_path))
"""


@pytest.mark.parametrize("module", ["mujoco", "dm_control"])
@pytest.mark.parametrize(
    ("theirs", "chosen"), [(None, "osmesa"), ("disable", "osmesa"), ("glfw", "glfw")]
)
def test_a_backend_is_chosen_before_mujoco_settles_on_one(tmp_path, module, theirs, chosen):
    (tmp_path / f"{module}.py").write_text("import os\nchosen = os.environ.get('MUJOCO_GL')")
    variables = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    variables |= {} if theirs is None else {"MUJOCO_GL": theirs}
    code = (
        CHOOSING if theirs is None else CHOOSING.replace('assert "MUJOCO_GL" not in os.environ', "")
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, module],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [chosen, "0"], done.stderr


@pytest.mark.parametrize(
    ("module", "found"), [("mujoco", ["None", "1"]), ("dm_control", ["osmesa", "0"])]
)
def test_a_backend_can_be_chosen_for_dm_control_alone(tmp_path, module, found):
    (tmp_path / f"{module}.py").write_text("import os\nchosen = os.environ.get('MUJOCO_GL')")
    variables = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    code = CHOOSING.replace("loads()", "loads(('dm_control',))")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, module],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == found, done.stderr
