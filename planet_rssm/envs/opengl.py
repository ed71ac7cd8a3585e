"""dm_control's own picture at a lower price, for one model, camera and size.

It is that of `physics.render`, byte for byte. It saves a scene and buffers made anew for every
frame, and a framebuffer of 640x480 for one of 64x64. Where the processor draws (Mesa's llvmpipe)
nearly all of the time goes into the shadow map of 2048x2048. There it also saves filling it with
the floor, and clearing its depths around a stencil that nothing uses. `scripts/bench_renderers`
compares.
"""

import atexit
import contextlib
from collections.abc import Iterator

import mujoco
import numpy as np

from planet_rssm.envs.gl import is_software

_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
# cosine of a floor's slope, at least; upright walls do darken themselves, as the reacher's
_LEVEL = 0.999


class GlRenderer:
    """Renders one model from one camera at one size, in its own GL context, as MUJOCO_GL has it.

    The context is tied to the thread that made it. Poses and colours are read anew for every frame;
    `refresh` reads what a reset may have changed beside them.
    """

    def __init__(self, model: mujoco.MjModel, size: int, camera: int = 0) -> None:
        """Make the context.

        `model` must be as its first episode has it, since planes keep the size they have now.

        Raises:
            RuntimeError: no context (or whatever MuJoCo and PyOpenGL raise): the backend does not
                work here.
        """
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), np.uint8)
        self._gl = mujoco.GLContext(size, size)
        self._gl.make_current()
        with _framebuffer(model, size):
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        atexit.register(self.close)  # after the import of mujoco.egl, so before it ends EGL
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._cheaper_shadows = _is_software()
        if self._cheaper_shadows and self._context.shadowTex:
            _drop_stencil(self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=_most_geoms(model))
        self._option = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False  # so dm_control has it
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = camera

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the camera's frame, uint8 [size, size, 3].

        `data` must be up to date (mj_forward, or a step).
        """
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            self._perturb,
            self._camera,
            everything.value,
            self._scene,
        )
        if self._cheaper_shadows:
            self._cast_no_shadow_of_the_floor()
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()

    def refresh(self) -> None:
        """Upload the height fields, which a reset draws anew in some tasks."""
        self._gl.make_current()
        for field in range(self._model.nhfield):
            mujoco.mjr_uploadHField(self._model, self._context, field)

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        atexit.unregister(self.close)
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None

    def _cast_no_shadow_of_the_floor(self) -> None:
        """Keep level planes out of the shadow map, as MuJoCo keeps decoration.

        What they would darken lies below. Not where another plane leans through them, as the walls
        of quadruped-fetch do: then what is below is visible beyond it.
        """
        geoms = [self._scene.geoms[index] for index in range(self._scene.ngeom)]
        planes = [(geom, geom.mat[2, 2]) for geom in geoms if geom.type == _PLANE]
        if not any(1 - _LEVEL < abs(slope) < _LEVEL for _, slope in planes):
            for geom, slope in planes:
                if slope >= _LEVEL:
                    geom.category = mujoco.mjtCatBit.mjCAT_DECOR


@contextlib.contextmanager
def _framebuffer(model: mujoco.MjModel, size: int) -> Iterator[None]:
    """Have the context that is made meanwhile render into size x size pixels."""
    view = model.vis.global_
    before = view.offwidth, view.offheight
    view.offwidth = view.offheight = size
    try:
        yield
    finally:
        view.offwidth, view.offheight = before


def _is_software() -> bool:
    from OpenGL import GL  # here: PyOpenGL looks for its library when it is imported

    return is_software(GL.glGetString(GL.GL_RENDERER).decode())


def _drop_stencil(context: mujoco.MjrContext) -> None:
    """Give the shadow map 24 bits of depth alone: the same depths, cleared by one fill."""
    from OpenGL import GL

    side = context.shadowSize
    GL.glBindTexture(GL.GL_TEXTURE_2D, context.shadowTex)
    depth, kind = GL.GL_DEPTH_COMPONENT, GL.GL_UNSIGNED_INT
    GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, GL.GL_DEPTH_COMPONENT24, side, side, 0, depth, kind, None)
    GL.glBindTexture(GL.GL_TEXTURE_2D, 0)


def _most_geoms(model: mujoco.MjModel) -> int:
    """Return more than what is ever shown of the model: geoms, sites, tendons in pieces, skins."""
    return 1000 + 2 * (model.ngeom + model.nsite + model.nwrap + model.nskin)
