"""A goal given as a picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import open_regular
from planet_rssm.envs.pictures import resized
from planet_rssm.envs.spec import EnvSpec

Array = np.ndarray


def goal_image(path: Path, spec: EnvSpec) -> dict[str, Array]:
    """Return a picture as an observation, resized as frames of the environment are.

    Raises:
        PlanetError: it cannot be read, or the model observes more than one image.
    """
    if len(spec.observation) > 1 or any(len(shape) < 3 for shape, _ in spec.observation.values()):
        raise PlanetError(
            f"--goal {path}: {spec.id} is observed by {', '.join(spec.observation)}; a goal is of "
            "one image alone, for others call Agent.towards"
        )
    [(key, (shape, _))] = spec.observation.items()
    try:
        with open(open_regular(path), "rb") as file, Image.open(file) as picture:
            frame = np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PlanetError(f"--goal {path}: not a picture ({error}); give a PNG or JPEG") from None
    return {key: resized(frame, shape[0])}
