"""What a GL backend can do, tried in a child process: a broken one crashes it, or hangs."""

import functools
import importlib.abc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

BACKENDS = ("egl", "osmesa", "glfw")  # in the order of trying
# they read MUJOCO_GL when they are imported; dm_control reads it before mujoco
DRAWING = ("mujoco", "dm_control")
DEVICE = "MUJOCO_EGL_DEVICE_ID"
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
_CHILD = """
import json, mujoco
sphere = "<light pos='0 0 3'/><geom size='1' rgba='1 1 1 1'/>"
model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{sphere}</worldbody></mujoco>")
renderer = mujoco.Renderer(model, 16, 16)
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
        return self.ok and not is_software(self.renderer)


def is_software(renderer: str) -> bool:
    """Return whether a GL_RENDERER is one that draws with the processor."""
    return any(name in renderer.lower() for name in _SOFTWARE)


def mesa_folder() -> Path:
    """Return where `planet doctor --install-gl` unpacks Mesa: beside this Python's packages."""
    return Path(sys.prefix) / "mesa"


def variables(backend: str) -> dict[str, str]:
    """Return the variables of a child process that renders with `backend`, or with `disable`."""
    mesa = {} if backend == "disable" else _mesa_variables(mesa_folder())
    return {"MUJOCO_GL": backend, **mesa}


def _mesa_variables(folder: Path) -> dict[str, str]:
    """Return what makes a process find an unpacked Mesa, after the machine's own driver.

    Nothing where there is none.
    """
    libraries = sorted(folder.glob("usr/lib/*-linux-gnu*"))
    if not libraries:
        return {}
    paths = [*map(str, libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    default = "/etc/glvnd/egl_vendor.d:/usr/share/glvnd/egl_vendor.d"
    machine = os.environ.get("__EGL_VENDOR_LIBRARY_DIRS") or default
    vendors = [machine, f"{folder}/usr/share/glvnd/egl_vendor.d"]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(paths),
        "LIBGL_DRIVERS_PATH": os.pathsep.join(f"{library}/dri" for library in libraries),
        "__EGL_VENDOR_LIBRARY_DIRS": os.pathsep.join(vendors),
    }


class _Chooser(importlib.abc.MetaPathFinder):
    """Finds no module, but chooses a backend when one that draws by MuJoCo is first imported."""

    def __init__(self, drawing: tuple[str, ...]) -> None:
        self._drawing = drawing

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> None:
        """Choose once."""
        if name in self._drawing:
            sys.meta_path.remove(self)
            choose()


def choose_when_mujoco_loads(drawing: tuple[str, ...] = DRAWING) -> None:
    """Have `choose` called when this process first imports one of the modules `drawing`.

    They fix what they draw with at that moment.
    """
    if sys.modules.keys().isdisjoint(drawing) and not any(
        isinstance(finder, _Chooser) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _Chooser(drawing))


def choose() -> list[GlProbe]:
    """Set MUJOCO_GL to the first backend that renders, unless it names one already.

    Return what each backend did if none renders, else nothing.
    """
    if os.environ.get("MUJOCO_GL") in BACKENDS:
        return []
    probes = []
    for backend in BACKENDS:
        probes.append(probe(backend))
        if probes[-1].ok:
            os.environ["MUJOCO_GL"] = backend
            return []
    return probes


def device_variables(row: int) -> dict[str, str]:
    """Return the variable by which the `row`-th worker draws on a GPU of CUDA_VISIBLE_DEVICES.

    Each worker takes the next GPU. MuJoCo counts EGL's devices, which are all that the machine has,
    and takes the first. A number counts where a frame was drawn on it; names of devices, and a
    variable that the user has set, are left alone.
    """
    listed = [device.strip() for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if DEVICE in os.environ or listed == ["0"] or not all(device.isdecimal() for device in listed):
        return {}
    drawing = [device for device in listed if probe("egl", device=device).hardware]
    return {DEVICE: drawing[row % len(drawing)]} if drawing else {}


@functools.cache
def probe(backend: str, timeout: float = 60.0, device: str | None = None) -> GlProbe:
    """Render one tiny frame with `backend` in a child process and say how it went; once a process.

    Args:
        backend: egl, osmesa or glfw, as MUJOCO_GL takes them.
        timeout: seconds after which the child counts as hung.
        device: EGL's number of the GPU to draw on; None: whichever MuJoCo takes.
    """
    environment = os.environ | variables(backend) | ({} if device is None else {DEVICE: device})
    environment.pop("PYOPENGL_PLATFORM", None)  # mujoco refuses one that disagrees with MUJOCO_GL
    try:
        command = [sys.executable, "-c", _CHILD]
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return GlProbe(backend, False, "", f"no frame within {timeout:g} s")
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        lines = child.stderr.strip().splitlines()
        error = lines[-1] if lines else f"the probe died with exit code {child.returncode}"
        return GlProbe(backend, False, "", error)
    error = "" if answer["lit"] else "the frame is black"
    return GlProbe(backend, answer["lit"], answer["renderer"], error)
