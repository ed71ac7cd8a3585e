"""The library itself, which is an extra, and what both ways share."""

from typing import Any

from planet_rssm.base.errors import PlanetError

OURS = "planet_rssm"  # key of our metadata of an exported dataset, and of each of its episodes
CAPACITY = 2**53  # frames: all


def library() -> Any:  # noqa: ANN401 (an extra)
    """Return the module `minari`.

    Raises:
        PlanetError: it, or what its storage needs, is not installed.
    """
    try:
        import h5py  # noqa: F401 (minari's storage needs it, and says so late)
        import minari
    except ModuleNotFoundError as error:
        raise PlanetError(
            f"{error.name} is not installed; pip install 'planet-rssm[minari]'"
        ) from None
    return minari
