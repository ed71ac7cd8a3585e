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


def test_gl_frames_come_from_a_worker():
    backend = next((name for name in ("egl", "osmesa") if gl.probe(name).ok), None)
    if backend is None:
        pytest.skip(f"no GL renders here: egl: {gl.probe('egl').error}; osmesa: {gl.probe('osmesa').error}")
    with EnvPool(EnvSettings(id="dmc/reacher-easy", renderer=backend, action_repeat=4), 1) as pool:
        image = pool.reset({0: 0})[0]["image"]
        assert image.shape == (64, 64, 3) and image.std() > 10
        assert pool.render(0, 200).shape == (200, 200, 3)
