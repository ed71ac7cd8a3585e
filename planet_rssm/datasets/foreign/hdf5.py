"""HDF5 files of three layouts, read by h5py (extra `data`).

stable-worldmodel   columns [rows, ...], `ep_len` and `ep_offset`
V-D4RL              columns [rows, ...], `step_type` 0 where an episode begins, 2 where it ends
robomimic           a group an episode, `data/demo_N`, with columns and `obs/…` in it
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_regular
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.source import (
    Array,
    Column,
    Order,
    Prepare,
    Source,
    in_blocks,
    need,
    whole_numbers,
)

_FIRST, _LAST = 0, 2  # values of `step_type`
_OF_OTHERS = 256  # number from which filters of HDF5 are other people's
_AGAIN = "get it again, or leave it out"
# what h5py raises at a damaged file; at one that says that it is larger than the memory, the last
_WRONG = (
    OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, ArithmeticError,
    MemoryError,
)  # fmt: skip


class _Place(NamedTuple):
    """Rows `start` to `stop` of the columns below `group` in a file."""

    file: Path
    group: str
    start: int
    stop: int


class Hdf5(Source):
    """One HDF5 file, or all in a folder."""

    format = "hdf5"

    def __init__(self, name: str, files: list[Path]) -> None:
        """Look at the columns, and where each episode is.

        Raises:
            PlanetError: h5py is missing, a file is damaged or of no known layout.
        """
        self.name = name
        self.columns = {}
        self._h5py = _library()
        self._open: tuple[Path, Any] | None = None
        self._shared: dict[str, Any] = {}  # columns of the open file that were read
        self._places: list[_Place] = []
        orders: set[Order] = set()
        for file in files:
            with self._reading(file):
                order, places, columns = _layout(self._file(file), file)
                orders.add(order)
                self._places += places
                self._take(file, columns)
        if len(orders) > 1:
            raise PlanetError(f"{name}: its files have different layouts; import one at a time")
        self.order = next(iter(orders), "taken")
        self.lengths = [place.stop - place.start for place in self._places]

    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return columns of an episode."""
        place = self._places[index]
        data = {}
        with self._reading(place.file):
            for key, prepare in wanted.items():
                dataset = self._dataset(place, key)
                if dataset.shape[0] < place.stop:
                    raise ValueError(f"{key} has {dataset.shape[0]} rows, not {place.stop}")
                data[key] = (
                    in_blocks(dataset, place.start, place.stop, prepare)
                    if prepare and place.stop > place.start
                    else dataset[place.start : place.stop]
                )
        return data

    def label(self, index: int) -> str:
        """Return file, and group or number."""
        place = self._places[index]
        return f"{place.file.name} {place.group.strip('/') or f'row {place.start}'}"

    def close(self) -> None:
        """Close the file."""
        self._shared = {}
        if self._open:
            self._open[1].close()

    def _take(self, file: Path, columns: dict[str, Column]) -> None:
        self.columns = self.columns or columns
        for key in self.columns.keys() & columns.keys():
            if columns[key] != self.columns[key]:
                raise PlanetError(f"{file}: {key} is not as in the other files; leave it out")
        self.columns = {key: self.columns[key] for key in self.columns if key in columns}

    def _file(self, path: Path) -> Any:  # noqa: ANN401 (h5py has no types)
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = None
            check_regular(path)
            self._open = (path, self._h5py.File(path, "r"))
        return self._open[1]

    def _dataset(self, place: _Place, key: str) -> Any:  # noqa: ANN401
        """Return a column; one that many episodes share stays open, with its index of chunks."""
        file = self._file(place.file)
        if key in self._shared and not place.group:
            return self._shared[key]
        dataset = file[f"{place.group}{key}"]
        self._check_filters(place.file, key, dataset)
        if not place.group:
            self._shared[key] = dataset
        return dataset

    def _check_filters(self, path: Path, key: str, dataset: Any) -> None:  # noqa: ANN401
        """Refuse a compression that h5py lacks: what it says then names no package."""
        properties = dataset.id.get_create_plist()
        for number in range(properties.get_nfilters()):
            code = properties.get_filter(number)[0]
            if code >= _OF_OTHERS and not self._h5py.h5z.filter_avail(code):
                raise PlanetError(
                    f"{path}: {key} is compressed by filter {code}; pip install hdf5plugin"
                )

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        try:
            yield
        except _WRONG as error:
            raise PlanetError(
                f"{path}: not an HDF5 file of a known layout, or damaged "
                f"({one_line(str(error))}); {_AGAIN}"
            ) from None


def _library() -> ModuleType:
    try:
        import h5py
    except ModuleNotFoundError:
        raise need("h5py", "data") from None
    with contextlib.suppress(ModuleNotFoundError):
        import hdf5plugin  # noqa: F401 (registers filters)
    return h5py


def _layout(file: Any, path: Path) -> tuple[Order, list[_Place], dict[str, Column]]:  # noqa: ANN401
    """Return order, places and columns of a file."""
    names = set(file)
    if {"ep_len", "ep_offset"} <= names:
        lengths, offsets = (whole_numbers(file[key][:], key) for key in ("ep_len", "ep_offset"))
        if lengths.shape != offsets.shape or lengths.ndim != 1 or (lengths < 0).any():
            raise ValueError("ep_len and ep_offset do not fit together")
        places = [
            _Place(path, "", start, start + length)
            for start, length in zip(offsets.tolist(), lengths.tolist(), strict=True)
            if start >= 0
        ]
        return "taken", places, _columns(file, names - {"ep_len", "ep_offset"})
    if "step_type" in names:
        kinds = np.asarray(file["step_type"][:])
        starts = np.flatnonzero(kinds == _FIRST).tolist()
        stops = [*starts[1:], len(kinds)]
        places = [_Place(path, "", start, stop) for start, stop in zip(starts, stops, strict=True)]
        return "arrived", places, _columns(file, names)
    if "data" in names and hasattr(file["data"], "keys"):
        demos = sorted(file["data"], key=lambda name: (len(name), name))
        places = []
        columns: dict[str, Column] = {}
        for demo in demos:
            group = file["data"][demo]
            layout = _columns(group, set(group))
            if "obs" in group:
                layout |= {
                    f"obs/{key}": column
                    for key, column in _columns(group["obs"], set(group["obs"])).items()
                }
            columns = (
                {key: columns[key] for key in columns if layout.get(key) == columns[key]}
                if columns
                else layout
            )
            rows = len(group["actions" if "actions" in group else sorted(layout)[0]])
            places.append(_Place(path, f"data/{demo}/", 0, rows))
        return "step", places, columns
    raise ValueError("has no ep_len, no step_type and no group data")


def _columns(group: Any, names: set[str]) -> dict[str, Column]:  # noqa: ANN401
    """Return the columns of a group that hold numbers, in this file itself."""
    layout = {}
    for name in sorted(names):
        if "HardLink" not in type(group.get(name, getlink=True)).__name__:
            continue  # leads to another file
        dataset = group[name]
        if not hasattr(dataset, "dtype") or not dataset.shape:
            continue
        if dataset.external or dataset.is_virtual or dataset.dtype.kind not in "fiub":
            continue
        layout[name] = Column(tuple(dataset.shape[1:]), np.dtype(dataset.dtype))
    return layout
