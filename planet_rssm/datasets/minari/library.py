"""The library itself, which is an extra, and what both ways share."""

import contextlib
from collections.abc import Iterator
from types import ModuleType

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.text import one_line

OURS = "planet_rssm"  # key of our metadata of an exported dataset, and of each of its episodes


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a dataset's storage raises over a damaged file into one line.

    Raises:
        PlanetError: a file of the dataset is cut short, changed or missing.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        raise PlanetError(
            f"dataset {name}: its data is damaged or incomplete ({one_line(str(error))}); fetch it "
            "again, or give another"
        ) from error


def library() -> ModuleType:
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
