"""Diffusion policy's replay buffers, zarr: `data/*` and `meta/episode_ends` (extra `data`)."""

import contextlib
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_regular, read_regular
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.source import (
    Array,
    Column,
    Prepare,
    Source,
    in_blocks,
    need,
    whole_numbers,
)

# Compressions and filters that only move bytes. Others may run code: numcodecs has a `pickle`.
_CODECS = {
    "blosc", "zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "shuffle", "delta", "bytes", "crc32c",
    "transpose", "sharding_indexed", "bitround", "quantize", "fixedscaleoffset", "packbits",
    "astype", "crc32", "adler32", "fletcher32", "vlen-utf8", "vlen-bytes",
}  # fmt: skip
_META = (".zarray", "zarr.json")


class ZarrBuffer(Source):
    """A folder `NAME.zarr`, or one in a `.zip` file."""

    format = "zarr"
    order = "step"

    def __init__(self, name: str, path: Path) -> None:
        """Look at the columns and where episodes end.

        Raises:
            PlanetError: zarr is missing, the store is damaged, or its arrays hold Python objects.
        """
        self.name = name
        self._path = path
        try:
            import zarr
        except ModuleNotFoundError:
            raise need("zarr", "data") from None
        with self._reading():
            _check_codecs(path)
            store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else str(path)
            root: Any = zarr.open_group(store, mode="r")
            self._data = {key: array for key, array in root["data"].arrays()}
            ends = whole_numbers(root["meta/episode_ends"][:], "meta/episode_ends")
            if ends.ndim != 1 or (np.diff(ends, prepend=0) < 0).any():
                raise ValueError("meta/episode_ends does not grow")
            self.columns = {
                key: Column(tuple(array.shape[1:]), np.dtype(array.dtype))
                for key, array in self._data.items()
                if array.shape and np.dtype(array.dtype).kind in "fiub"
            }
            rows = {key: self._data[key].shape[0] for key in self.columns}
            if short := [key for key, count in rows.items() if len(ends) and count < ends[-1]]:
                raise ValueError(f"{short[0]} has {rows[short[0]]} rows, episodes have {ends[-1]}")
        self._ends = [0, *ends.tolist()]
        self.lengths = np.diff(ends, prepend=0).tolist()

    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return columns of an episode."""
        start, stop = self._ends[index], self._ends[index + 1]
        data = {}
        with self._reading():
            for key, prepare in wanted.items():
                array = self._data[key]
                data[key] = (
                    in_blocks(array, start, stop, prepare)
                    if prepare
                    else np.asarray(array[start:stop])
                )
        return data

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other files in the folder
                yield
        except PlanetError:
            raise
        except Exception as error:  # its stores and codecs raise what their libraries do
            raise PlanetError(
                f"{self._path}: not a zarr store with data and meta/episode_ends, or damaged "
                f"({one_line(str(error))}); get it again"
            ) from None


def is_zarr(path: Path) -> bool:
    """Return whether a path is a zarr store."""
    if path.is_dir():
        return any((path / name).is_file() for name in (".zgroup", "zarr.json"))
    return path.suffixes[-2:] == [".zarr", ".zip"]


def _check_codecs(path: Path) -> None:
    """Refuse a store that names a codec which is not one of bytes, before anything is decoded."""
    for name, text in _described(path):
        fields = json.loads(text)
        named = [fields.get("compressor"), *(fields.get("filters") or [])]
        named += fields.get("codecs") or []
        while named:
            codec = named.pop()
            if not isinstance(codec, dict):
                continue
            kind = str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
            if kind not in _CODECS:
                raise PlanetError(
                    f"{path}: {name} is stored by {kind!r}, which is not decoded here; write it "
                    "again with blosc, where you trust its maker"
                )
            inner = (codec.get("configuration") or {}).get("codecs")
            named += inner if isinstance(inner, list) else []
        if fields.get("dtype") == "|O":
            raise PlanetError(f"{path}: {name} holds Python objects; write it without them")


def _described(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the text of every array's description."""
    if path.is_dir():
        for name in _META:
            for file in path.rglob(name):
                yield str(file.relative_to(path)), read_regular(file)
        return
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] in _META and archive.getinfo(name).file_size < 1 << 24:
                yield name, archive.read(name)
