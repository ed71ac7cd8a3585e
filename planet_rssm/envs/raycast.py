"""Frames without GL: one ray a pixel against the model's geoms, about a millisecond for 64x64.

It draws what dm_control draws by default (geoms, sites and tendons of groups 0 to 2, in the colours
and under the lights of the model) less shadows, reflections, highlights, skins and transparency. Of
textures it keeps a plane's checker, the only cue of motion where the camera follows the body, and
the sky's gradient.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import mujoco
import numpy as np

from planet_rssm.envs.appearance import Plane, rgba, sky_colours, textured

# the groups that MuJoCo's visualiser shows by default
_SHOWN = np.array([1, 1, 1, 0, 0, 0], np.uint8)
_HIDDEN_GROUP = 5
# shown for a model with a skin (the dog), whose visible groups have next to nothing in them
_COLLISION_GROUP = 3
# Where in a pixel its rays go, in pixels from the centre. No two share a row or a column, so a thin
# pole that is upright or level is met at a width of half (a quarter) of a pixel.
_SAMPLES = {
    1: np.array([[0.0, 0.0]]),
    2: np.array([[-0.25, -0.25], [0.25, 0.25]]),
    4: np.array([[-0.125, -0.375], [0.375, -0.125], [-0.375, 0.125], [0.125, 0.375]]),
}


def default_samples(size: int) -> int:
    """Return the rays a pixel: 4 up to 32 pixels a side, 2 up to 64, then 1."""
    return 4 if size <= 32 else 2 if size <= 64 else 1


class RayCaster:
    """Renders one model from one camera at one size; the rays and all large buffers are made once.

    Colours, alphas, sizes and poses are read anew for every frame, since tasks change them at a
    reset.
    """

    def __init__(
        self, model: mujoco.MjModel, size: int, camera: int = 0, samples: int | None = None
    ) -> None:
        """Prepare size x size frames.

        `samples` are the rays a pixel: 1, 2, 4, or None for the default of the size.
        """
        self._model = model
        self._camera = camera
        self._size = size
        self._samples = samples or default_samples(size)
        self._camera_rays, self._pitch = _camera_rays(
            size, self._samples, float(model.cam_fovy[camera])
        )
        count = len(self._camera_rays)
        self._rotation = np.zeros((3, 3))  # of the camera, for which _rays and _sky hold
        self._rays = np.zeros((count, 3))
        self._normal = np.zeros((count, 3))
        self._point = np.zeros((count, 3))
        self._hit = np.zeros(count, np.int32)  # a geom, ngeom + an overlay, or -1
        self._distance = np.zeros(count)
        self._light = np.zeros(count)
        self._facing = np.zeros(count)
        self._mask = np.zeros(count, bool)
        self._uv = np.zeros((count, 2))
        self._texel = np.zeros(count, np.intp)
        self._colour = np.zeros((count, 3))
        self._sky = np.zeros((count, 3))
        self._groups = _SHOWN.copy()
        self._groups[_COLLISION_GROUP] = model.nskin > 0
        self._roots, self._loose = _loose_bounds(model)
        self._tint, self._planes = textured(model)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the camera's frame, uint8 [size, size, 3].

        `data` must be up to date (mj_forward, or a step).
        """
        self._aim(data.cam_xmat[self._camera].reshape(3, 3))
        eye = data.cam_xpos[self._camera]
        geom_rgba = rgba(self._model, self._model.geom_rgba, self._model.geom_matid)
        overlays = list(self._overlays(data, eye))
        self._cast(data, eye, hidden=geom_rgba[:, 3] == 0)
        for index, shape in enumerate(overlays):
            self._cast_at(shape, self._model.ngeom + index, eye)
        colours = [
            *geom_rgba[:, :3] * self._tint,
            *(shape.rgba[:3] for shape in overlays),
            np.zeros(3),
        ]
        self._paint(data, eye, np.array(colours, np.float64))
        return self._to_pixels()

    def refresh(self) -> None:
        """Do nothing after a reset: all that it may have changed is read anew for every frame."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _aim(self, rotation: np.ndarray) -> None:
        if np.array_equal(rotation, self._rotation):
            return
        self._rotation[:] = rotation
        np.matmul(self._camera_rays, rotation.T, out=self._rays)
        self._sky[:] = sky_colours(self._model, self._rays)

    def _cast(self, data: mujoco.MjData, eye: np.ndarray, hidden: np.ndarray) -> None:
        """Find the nearest visible geom along each ray, its distance and its normal."""
        with self._prepared(hidden):
            mujoco.mj_multiRay(
                m=self._model,
                d=data,
                pnt=eye,
                vec=self._rays.ravel(),
                geomgroup=self._groups,
                flg_static=True,
                bodyexclude=-1,
                geomid=self._hit,
                dist=self._distance,
                normal=self._normal.ravel(),
                nray=len(self._rays),
                cutoff=mujoco.mjMAXVAL,
            )

    @contextlib.contextmanager
    def _prepared(self, hidden: np.ndarray) -> Iterator[None]:
        """Change the model so that mj_multiRay (MuJoCo 3.17) hits what is visible; restore it.

        Geoms of alpha 0 go to a hidden group: MuJoCo skips them only if they have no material.
        Bodies get looser bounds: it takes a sphere about the centre of a body's bounding box but
        forgets to turn that centre with the body, and so cuts off parts of those whose box is
        off-centre (the finger's tip, the pendulum's rod).
        """
        model = self._model
        groups = model.geom_group.copy()
        bounds = model.bvh_aabb[self._roots]
        model.geom_group[hidden] = _HIDDEN_GROUP
        model.bvh_aabb[self._roots] = self._loose
        try:
            yield
        finally:
            model.geom_group[:] = groups
            model.bvh_aabb[self._roots] = bounds

    def _cast_at(self, shape: "_Shape", index: int, eye: np.ndarray) -> None:
        """Do the same for a site or a tendon, one by one over the few rays that can meet it."""
        normal = np.zeros(3)
        for ray in self._candidates(shape, eye):
            towards = self._rays[ray]
            distance = mujoco.mju_rayGeom(
                shape.position, shape.axes, shape.size, eye, towards, shape.kind, normal
            )
            if distance >= 0 and (self._hit[ray] < 0 or distance < self._distance[ray]):
                self._hit[ray], self._distance[ray], self._normal[ray] = index, distance, normal

    def _paint(self, data: mujoco.MjData, eye: np.ndarray, colours: np.ndarray) -> None:
        np.take(colours, self._hit, axis=0, out=self._colour, mode="clip")
        for plane in self._planes:
            self._paint_plane(plane, data, eye)
        self._shade(data)
        self._colour *= self._light[:, None]
        np.equal(self._hit, -1, out=self._mask)
        np.copyto(self._colour, self._sky, where=self._mask[:, None])

    def _paint_plane(self, plane: "Plane", data: mujoco.MjData, eye: np.ndarray) -> None:
        """Colour the hits on a plane by its texture: 2 x 2 texels are the squares of a checker."""
        axes = data.geom_xmat[plane.geom].reshape(3, 3)[:, :2]
        np.multiply(self._rays, self._distance[:, None], out=self._point)
        self._point += eye - data.geom_xpos[plane.geom] + axes @ plane.corner
        np.matmul(self._point, axes * plane.frequency, out=self._uv)
        np.floor(self._uv, out=self._uv)
        np.mod(self._uv, 2, out=self._uv)
        np.matmul(self._uv, (1, 2), out=self._light)
        np.copyto(self._texel, self._light, casting="unsafe")
        np.take(plane.texels, self._texel, axis=0, out=self._point, mode="clip")
        np.multiply(self._point, self._colour, out=self._point)
        np.equal(self._hit, plane.geom, out=self._mask)
        np.copyto(self._colour, self._point, where=self._mask[:, None])

    def _shade(self, data: mujoco.MjData) -> None:
        """Light the hits by Lambert's law.

        The headlight shines along each ray, the model's lights along their directions.
        """
        head = self._model.vis.headlight
        np.einsum("ij,ij->i", self._normal, self._rays, out=self._facing)
        np.abs(self._facing, out=self._light)
        self._light *= head.diffuse.mean()
        self._light += head.ambient.mean()
        for light in np.flatnonzero(self._model.light_active):
            np.matmul(self._normal, -data.light_xdir[light], out=self._facing)
            np.maximum(self._facing, 0, out=self._facing)
            self._facing *= self._model.light_diffuse[light].mean()
            self._light += self._facing

    def _candidates(self, shape: "_Shape", eye: np.ndarray) -> np.ndarray:
        """Return the rays that meet the shape's bounding sphere.

        Of a thin capsule they also pass near the plane through its axis.
        """
        towards = shape.position - eye
        distance = float(np.linalg.norm(towards))
        radius = _bounding_radius(shape)
        if distance <= radius:
            return np.arange(len(self._rays))
        close = self._rays @ (towards / distance) >= np.sqrt(1 - (radius / distance) ** 2)
        across = np.cross(towards, shape.axes[2::3])
        if shape.kind == mujoco.mjtGeom.mjGEOM_CAPSULE and np.linalg.norm(across) > 1e-6:
            across /= np.linalg.norm(across)
            close &= np.abs(self._rays @ across) <= shape.size[0] / (distance - radius)
        return np.flatnonzero(close)

    def _overlays(self, data: mujoco.MjData, eye: np.ndarray) -> Iterator["_Shape"]:
        """Yield what mj_multiRay ignores: visible sites, and tendons as capsules.

        Tendons are at least a pixel wide.
        """
        model = self._model
        colours = rgba(model, model.site_rgba, model.site_matid)
        for site in np.flatnonzero((colours[:, 3] > 0) & (_SHOWN[model.site_group] > 0)):
            yield _Shape(
                int(model.site_type[site]),
                data.site_xpos[site],
                data.site_xmat[site],
                model.site_size[site],
                colours[site],
            )
        colours = rgba(model, model.tendon_rgba, model.tendon_matid)
        for tendon in np.flatnonzero((colours[:, 3] > 0) & (_SHOWN[model.tendon_group] > 0)):
            first = data.ten_wrapadr[tendon]
            points = data.wrap_xpos.reshape(-1, 3)[first : first + data.ten_wrapnum[tendon]]
            for start, end in zip(points[:-1], points[1:], strict=True):
                thinnest = self._pitch * float(np.linalg.norm((start + end) / 2 - eye)) / 2
                yield _segment(
                    start, end, max(float(model.tendon_width[tendon]), thinnest), colours[tendon]
                )

    def _to_pixels(self) -> np.ndarray:
        np.clip(self._colour, 0, 1, out=self._colour)
        pixels = self._colour.reshape(self._size, self._size, self._samples, 3)
        mean = (
            pixels[:, :, 0] if self._samples == 1 else np.add.reduce(pixels, axis=2) / self._samples
        )
        return np.rint(mean * 255).astype(np.uint8)


class _Shape(NamedTuple):
    kind: int  # mjtGeom
    position: np.ndarray  # [3]
    axes: np.ndarray  # [9]
    size: np.ndarray  # [3]
    rgba: np.ndarray  # [4]


def _camera_rays(size: int, samples: int, fovy: float) -> tuple[np.ndarray, float]:
    """Return unit rays [size * size * samples, 3] and the width of a pixel at distance 1.

    They are in the camera's frame: x right, y up, looking along -z.
    """
    pitch = 2 * np.tan(np.radians(fovy) / 2) / size
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    centre = np.stack([column, row], -1)[:, :, None] + 0.5 - size / 2
    x, y = np.moveaxis((centre + _SAMPLES[samples]) * pitch, -1, 0)
    rays = np.stack([x, -y, -np.ones_like(x)], -1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True), float(pitch)


def _loose_bounds(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each body's bounding box, and looser boxes for any orientation.

    They lie about the body's centre of mass.
    """
    radius = np.zeros(model.nbody)
    reach = (
        np.linalg.norm(model.geom_pos - model.body_ipos[model.geom_bodyid], axis=1)
        + model.geom_rbound
    )
    reach[model.geom_rbound == 0] = mujoco.mjMAXVAL  # planes
    np.maximum.at(radius, model.geom_bodyid, reach)
    bodies = np.flatnonzero(model.body_bvhadr >= 0)
    half = np.repeat(radius[bodies, None], 3, 1) / np.sqrt(3)
    return model.body_bvhadr[bodies], np.concatenate([np.zeros_like(half), half], 1)


def _bounding_radius(shape: _Shape) -> float:
    kinds = mujoco.mjtGeom
    if shape.kind == kinds.mjGEOM_CAPSULE:
        return float(shape.size[0] + shape.size[1])
    if shape.kind == kinds.mjGEOM_CYLINDER:
        return float(np.hypot(shape.size[0], shape.size[1]))
    return float(np.linalg.norm(shape.size) if shape.kind == kinds.mjGEOM_BOX else shape.size.max())


def _segment(start: np.ndarray, end: np.ndarray, radius: float, rgba: np.ndarray) -> _Shape:
    quaternion = np.zeros(4)
    axes = np.zeros(9)
    mujoco.mju_quatZ2Vec(quaternion, end - start)
    mujoco.mju_quat2Mat(axes, quaternion)
    size = np.array([radius, np.linalg.norm(end - start) / 2, 0])
    return _Shape(int(mujoco.mjtGeom.mjGEOM_CAPSULE), (start + end) / 2, axes, size, rgba)
