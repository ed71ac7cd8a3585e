"""Rows of parquet files, by pyarrow (extra `data`), a row group in memory at a time."""

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_regular
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.source import Array, need


def library() -> ModuleType:
    """Return the module `pyarrow.parquet`.

    Raises:
        PlanetError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise need("pyarrow", "data") from None
    return pyarrow.parquet


class RowReader:
    """Rows of the columns that are asked for; the last row group is kept for the next call."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._path: Path | None = None
        self._columns: frozenset[str] = frozenset()
        self._file: Any = None
        self._begins: list[int] = []  # row at which each row group begins, and the end
        self._group: int | None = None
        self._table: Any = None

    def read(self, path: Path, first: int, count: int, columns: Collection[str]) -> dict[str, Any]:
        """Return `count` rows from `first` on, by column, as Arrow has them.

        Raises:
            PlanetError: the file is damaged, or has no such rows or columns.
        """
        try:
            if path != self._path or self._columns != frozenset(columns):
                self._open(path, columns)
            import pyarrow  # it is installed

            if first < 0 or first + count > self._begins[-1]:
                raise ValueError(f"has {self._begins[-1]} rows, {first + count} are needed")
            pieces = []
            for group, begin in enumerate(self._begins[:-1]):
                start = max(first, begin)
                stop = min(first + count, self._begins[group + 1])
                if start < stop:
                    pieces.append(self._read_group(group).slice(start - begin, stop - start))
            rows = pyarrow.concat_tables(pieces)
            return {column: rows[column] for column in columns}
        except (OSError, ValueError, KeyError) as error:  # ArrowInvalid is a ValueError
            self._path = None
            raise _damaged(path, error) from None

    def _open(self, path: Path, columns: Collection[str]) -> None:
        check_regular(path)
        self._file = library().ParquetFile(path)
        if missing := set(columns) - set(self._file.schema_arrow.names):
            raise ValueError(f"has no column {min(missing)}")
        sizes = [
            self._file.metadata.row_group(group).num_rows
            for group in range(self._file.num_row_groups)
        ]
        self._begins = [sum(sizes[:group]) for group in range(len(sizes) + 1)]
        self._path, self._columns, self._group = path, frozenset(columns), None

    def _read_group(self, group: int) -> Any:  # noqa: ANN401 (pyarrow has no types)
        if self._group != group:
            self._table = self._file.read_row_group(group, columns=sorted(self._columns))
            self._group = group
        return self._table


def numbers(column: Any, dtype: np.dtype) -> Array:  # noqa: ANN401 (pyarrow has no types)
    """Return a column of numbers, or of lists of as many each, as a flat array of its own.

    Raises:
        ValueError: a number is missing or does not fit, or lists differ in length.
        NotImplementedError: what is there are no numbers.
    """
    import pyarrow
    import pyarrow.compute

    values = column.combine_chunks()
    while True:
        if isinstance(values, pyarrow.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise ValueError(f"{values.null_count} are missing")
        if not hasattr(values, "flatten") or pyarrow.types.is_struct(values.type):
            break
        if len(values) and len(pyarrow.compute.list_value_length(values).unique()) > 1:
            raise ValueError("lists of different lengths")
        values = values.flatten()
    if dtype.kind == "b" and not pyarrow.types.is_boolean(values.type):
        raise ValueError(f"{values.type} in place of flags")
    kind = pyarrow.from_numpy_dtype(dtype)
    values = values if values.type == kind else values.cast(kind)
    return np.array(values.to_numpy(zero_copy_only=False), dtype)


def read_table(path: Path, columns: Collection[str]) -> dict[str, list[Any]]:
    """Return columns of a small file.

    Raises:
        PlanetError: it is damaged, or one of them is missing.
    """
    try:
        check_regular(path)
        table = library().ParquetFile(path).read(columns=list(columns))
        return {column: table[column].to_pylist() for column in columns}
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> PlanetError:
    return PlanetError(f"{path}: {one_line(str(error)) or 'damaged'}; get it again")
