"""Which format a path holds, by looking at it."""

from collections.abc import Callable
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.datasets.foreign.chunks import DreamerChunks, is_chunk
from planet_rssm.datasets.foreign.hdf5 import Hdf5
from planet_rssm.datasets.foreign.lerobot import INFO, LeRobot
from planet_rssm.datasets.foreign.npz import NpzEpisodes
from planet_rssm.datasets.foreign.source import Source
from planet_rssm.datasets.foreign.zarr_buffer import ZarrBuffer, is_zarr

_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".npy", ".joblib"}
_HDF5 = {".h5", ".hdf5"}
MINARI = "minari"
_MOST = 1_000_000  # files that are looked at


def open_source(name: str, wanted: str | None = None) -> Source:
    """Open a set of episodes of another program.

    Args:
        name: a folder, or a file that holds all.
        wanted: the format, one of `FORMATS`; None: by looking.

    Raises:
        PlanetError: nothing is there, or nothing that is read here; or it is damaged.
    """
    path = Path(name)
    if not path.exists():
        raise PlanetError(f"{name}: no such file or folder; give one that holds episodes")
    kind = wanted or _kind(path)
    if kind is None:
        raise PlanetError(_nothing(path))
    source = _OPENERS[kind](name, path)
    if not source.lengths:
        raise PlanetError(f"{name}: holds no episode of the format {kind}")
    return source


def is_minari(path: Path) -> bool:
    """Return whether a folder is a Minari dataset."""
    return any((folder / "metadata.json").is_file() for folder in (path, path / "data"))


def _kind(path: Path) -> str | None:
    """Return the format that a path looks like."""
    if path.is_dir() and is_minari(path):
        return MINARI
    if (path / INFO).is_file():
        return "lerobot"
    if is_zarr(path):
        return "zarr"
    if files := _npz_files(path):
        return "dreamerv3" if is_chunk(files[0]) else "npz"
    return "hdf5" if _hdf5_files(path) else None


def _hdf5_files(path: Path) -> list[Path]:
    """Return the HDF5 files of a folder, or the file itself."""
    if path.is_file():
        return [path] * (path.suffix in _HDF5)
    return sorted(file for file in path.glob("*") if file.suffix in _HDF5)[:_MOST]


def _npz_files(path: Path) -> list[Path]:
    """Return the `.npz` files of a folder, or of the folders in it, or the file itself."""
    if path.is_file():
        return [path] * (path.suffix == ".npz")
    return sorted(path.glob("*.npz")) or sorted(path.glob("*/*.npz"))[:_MOST]


def _npz(name: str, path: Path) -> Source:
    return NpzEpisodes(name, _required(path, ".npz", _npz_files(path)))


def _chunks(name: str, path: Path) -> Source:
    files = _required(path, ".npz", _npz_files(path))
    if other := [file for file in files if not is_chunk(file)]:
        raise PlanetError(
            f"{other[0]}: not named like a chunk, TIME-UUID-SUCCESSOR-LENGTH.npz; leave it out, or "
            "give --format npz"
        )
    return DreamerChunks(name, files)


def _hdf5(name: str, path: Path) -> Source:
    return Hdf5(name, _required(path, ".h5 or .hdf5", _hdf5_files(path)))


def _required(path: Path, pattern: str, files: list[Path]) -> list[Path]:
    if not files:
        raise PlanetError(f"{path}: is no {pattern} file, nor a folder of such")
    return files


def _nothing(path: Path) -> str:
    """Return the line for a path that holds nothing that is read here."""
    files = [path] if path.is_file() else list(path.glob("*"))[:_MOST]
    if pickled := [file for file in files if file.suffix in _PICKLES]:
        return (
            f"{pickled[0]}: {pickled[0].suffix} files are, or may be, pickles, which run code when "
            "they are loaded, so none is; load it where you trust its maker, and save each episode "
            "as a .npz of plain arrays"
        )
    ours = (path, path / EPISODES)
    if holding := next((folder for folder in ours if any(folder.glob("*.safetensors"))), None):
        return f"{path}: holds episodes of planet already, use them as they are: --data {holding}"
    return f"{path}: holds no episodes of a known format; --format is one of {', '.join(FORMATS)}"


_OPENERS: dict[str, Callable[[str, Path], Source]] = {
    "npz": _npz,
    "dreamerv3": _chunks,
    "lerobot": LeRobot,
    "hdf5": _hdf5,
    "zarr": ZarrBuffer,
}
FORMATS = (*_OPENERS, MINARI)
