"""What a MuJoCo model's surfaces look like: colours, a plane's checker, the sky's gradient."""

from typing import NamedTuple

import mujoco
import numpy as np

# the default rgba: the material's is used in its place
_NO_COLOUR = np.array([0.5, 0.5, 0.5, 1], np.float32)
_FACES = 6  # of a skybox, stacked: right, left, up, down, front, back
_FRONT = 4


class Plane(NamedTuple):
    """A plane with a texture of 2 x 2 texels."""

    geom: int
    frequency: np.ndarray  # [2], texels a metre along the plane's x and y
    corner: np.ndarray  # [2], metres from the texture's origin to the plane's centre
    texels: np.ndarray  # [4, 3]


def textured(model: mujoco.MjModel) -> tuple[np.ndarray, list[Plane]]:
    """Return what every geom's colour is multiplied by, [ngeom, 3], and the textured planes.

    A textured geom that is no plane gets its texture's mean; a plane loses what it would reflect.
    """
    tint = np.ones((model.ngeom, 3))
    planes = []
    for geom in np.flatnonzero(model.geom_matid >= 0):
        material = model.geom_matid[geom]
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
        if texture < 0:
            continue
        texels = _texels(model, texture)
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            tint[geom] = 1 - model.mat_reflectance[material]
            planes.append(_checkered_plane(model, int(geom), texels))
        else:
            tint[geom] = texels.mean(0)
    return tint, planes


def rgba(model: mujoco.MjModel, own: np.ndarray, material: np.ndarray) -> np.ndarray:
    """Return colours [n, 4] by MuJoCo's rule.

    They are the material's, unless the object's own is not the default.
    """
    if not model.nmat:
        return own
    use_material = (material >= 0) & (own == _NO_COLOUR).all(1)
    return np.where(use_material[:, None], model.mat_rgba[material], own)


def _checkered_plane(model: mujoco.MjModel, geom: int, texels: np.ndarray) -> Plane:
    """Lay the 2 x 2 texels as MuJoCo >= 3.12 does, from the plane's corner.

    A uniform texture is two metres long.
    """
    material = model.geom_matid[geom]
    half = model.geom_size[geom, :2]
    length = np.full(2, 2.0) if model.mat_texuniform[material] else 2 * np.where(half > 0, half, 1)
    return Plane(geom, 2 * model.mat_texrepeat[material] / length, half.copy(), texels)


def _texels(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """Return a texture reduced to 2 x 2 texels, [4, 3] in [0, 1], x running fastest."""
    image = _texture_image(model, texture)
    height, width = image.shape[0] // 2, image.shape[1] // 2
    quarters = [
        image[y : y + height, x : x + width].mean((0, 1)) for y in (0, height) for x in (0, width)
    ]
    return np.array(quarters, np.float64)


def _texture_image(model: mujoco.MjModel, texture: int, rows: slice = slice(None)) -> np.ndarray:
    shape = model.tex_height[texture], model.tex_width[texture], model.tex_nchannel[texture]
    first = model.tex_adr[texture]
    image = model.tex_data[first : first + shape[0] * shape[1] * shape[2]].reshape(shape)
    return image[rows, :, :3].astype(np.float32) / 255


def sky_colours(model: mujoco.MjModel, rays: np.ndarray) -> np.ndarray:
    """Return the sky along each ray, [n, 3].

    It is the skybox's front face averaged over its rows, black without one.
    """
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if not len(skies):
        return np.zeros_like(rays)
    texture = int(skies[0])
    side = int(model.tex_height[texture]) // _FACES
    front = _texture_image(model, texture, slice(_FRONT * side, (_FRONT + 1) * side)).mean(1)
    slope = rays[:, 2] / np.maximum(np.abs(rays[:, :2]).max(1), mujoco.mjMINVAL)
    return front[np.clip((1 - slope) / 2 * side, 0, side - 1).astype(np.intp)]
