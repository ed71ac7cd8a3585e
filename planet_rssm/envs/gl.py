"""What a GL backend can do, asked in a child process: a broken one crashes its process, or hangs."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass

_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
_CHILD = """
import json, mujoco
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 1 1 1'/></worldbody></mujoco>"), 16, 16)
data = mujoco.MjData(renderer.model)
mujoco.mj_forward(renderer.model, data)
renderer.update_scene(data)
lit = bool(renderer.render().any())
from OpenGL import GL
print(json.dumps({"renderer": GL.glGetString(GL.GL_RENDERER).decode(), "lit": lit}), flush=True)
"""


@dataclass(frozen=True)
class GlProbe:
    """What one backend did in the child process."""

    backend: str  # egl, osmesa or glfw
    ok: bool  # a frame was rendered and was not black
    renderer: str  # GL_RENDERER, empty if it did not get that far
    error: str  # the last line of what went wrong, empty if ok

    @property
    def hardware(self) -> bool:
        """Whether the frame came from a GPU."""
        return self.ok and not any(name in self.renderer.lower() for name in _SOFTWARE)


@functools.cache
def probe(backend: str, timeout: float = 60.0) -> GlProbe:
    """Render one tiny frame with `backend` in a child process and say how it went; once a process.

    Args:
        backend: egl, osmesa or glfw, as MUJOCO_GL takes them.
        timeout: seconds after which the child counts as hung.
    """
    environment = os.environ | {"MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)  # mujoco refuses one that disagrees with MUJOCO_GL
    try:
        command = [sys.executable, "-c", _CHILD]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return GlProbe(backend, False, "", f"no frame within {timeout:g} s")
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        lines = child.stderr.strip().splitlines()
        return GlProbe(backend, False, "", lines[-1] if lines else f"the probe died with exit code {child.returncode}")
    return GlProbe(backend, answer["lit"], answer["renderer"], "" if answer["lit"] else "the frame is black")
