"""LeRobot datasets of versions 2.x and 3.0: parquet files of rows, mp4 files of frames.

Version 2 has a parquet and an mp4 an episode. Version 3 has many episodes in each; `meta/episodes`
says where each begins. Row t has the action chosen at frame t, and `next.reward` is its reward.
"""

import io
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.datasets.foreign.parquet import RowReader, numbers, read_table
from planet_rssm.datasets.foreign.source import Array, Column, Prepare, Source, joined
from planet_rssm.datasets.foreign.video import VideoReader
from planet_rssm.envs.pictures import at_once

INFO = Path("meta", "info.json")
OURS = Path("meta", "planet_rssm.json")  # what `planet data export` notes
_KINDS = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_PIXELS = ("video", "image")
# what JSON and parquet that hold something else than they should lead to; JSON has infinity too
_WRONG = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
_LONGEST = 1e8  # seconds of a film: three years
_FIELD = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")  # of a pattern: {episode_index:06d}


class _Place(NamedTuple):
    """Where an episode is."""

    number: int  # the dataset's own
    length: int
    file: Path  # of its rows
    first: int  # of them in the file
    videos: dict[str, tuple[Path, float]]  # file and the second it begins at, by camera


class LeRobot(Source):
    """A folder with `meta/info.json`."""

    format = "lerobot"
    order = "step"

    def __init__(self, name: str, root: Path) -> None:
        """Read what the dataset says of itself, and where each episode is.

        Raises:
            PlanetError: it is damaged, or of another version.
        """
        self.name = name
        self._root = root
        info = _json(root / INFO)
        try:
            version = str(info["codebase_version"]).removeprefix("v")
            features = {str(key): dict(value) for key, value in info["features"].items()}
            self._fps = float(info["fps"])
            self.columns = {
                key: column
                for key, value in features.items()
                if (column := _column(value)) is not None
            }
            if not 0 < self._fps < 1e6:
                raise ValueError(f"fps {self._fps}")
        except _WRONG as error:
            raise PlanetError(f"{root / INFO}: {one_line(repr(error))}; get it again") from None
        self._kinds = {key: features[key]["dtype"] for key in self.columns}
        self.filmed = "video" in self._kinds.values()
        self.interval = 1 / self._fps
        left = sorted(features.keys() - self.columns.keys())
        self.notes = (f"columns of text and the like are not used: {', '.join(left)}",) * bool(left)
        if not version.startswith(("2.", "3.")):
            raise PlanetError(
                f"{name}: LeRobot version {version}, 2.0 to 3.0 are read; convert it with LeRobot"
            )
        try:
            self._places = list(
                _places_2(root, info) if version.startswith("2.") else self._places_3(info)
            )
        except _WRONG as error:
            raise PlanetError(
                f"{name}: its meta folder is damaged, {one_line(repr(error))}; get it again"
            ) from None
        self.lengths = [place.length for place in self._places]
        self._rows = RowReader()
        self._videos: dict[str, VideoReader] = {}
        if (root / OURS).is_file():
            self.ours = _json(root / OURS)

    def read(self, index: int, wanted: Mapping[str, Prepare | None]) -> dict[str, Array]:
        """Return columns of an episode; of a camera each frame once, by its time."""
        place = self._places[index]
        films = [key for key in wanted if self._kinds[key] == "video"]
        columns = {key for key in wanted if key not in films}
        table = self._rows.read(place.file, place.first, place.length, columns | {"episode_index"})
        if set(table["episode_index"].to_pylist()) != {place.number}:
            raise PlanetError(
                f"{place.file}: rows {place.first} to {place.first + place.length} are not all of "
                f"episode {place.number}; get it again"
            )
        data = {}
        for key in columns:
            if self._kinds[key] == "image":
                pictures = _pictures(place.file, table[key].to_pylist())
                data[key] = _stacked(pictures, place.length, wanted[key])
            else:
                data[key] = self._numbers(place.file, key, table[key])
        for key in films:
            file, second = place.videos[key]
            reader = self._videos.get(key)
            if reader is None or reader.path != file:
                if reader:
                    reader.close()
                reader = self._videos[key] = VideoReader(file, self._fps)
            frames = reader.frames(second, place.length)
            data[key] = _stacked(frames, place.length, wanted[key])
        return data

    def _numbers(self, file: Path, key: str, rows: Any) -> Array:  # noqa: ANN401 (pyarrow's)
        column = self.columns[key]
        try:
            return numbers(rows, column.dtype).reshape(len(rows), *column.shape)
        except (ValueError, TypeError, NotImplementedError):  # the last: Arrow knows no such cast
            raise PlanetError(
                f"{file}: {key} is not {column.dtype} {list(column.shape)} in every row; get it "
                "again"
            ) from None

    def noted(self, index: int) -> Json:
        """Return what `planet data export` noted of an episode."""
        episodes = (self.ours or {}).get("episodes")
        return dict(episodes[index]) if isinstance(episodes, list) else {}

    def close(self) -> None:
        """Close the films."""
        for reader in self._videos.values():
            reader.close()

    def _places_3(self, info: Json) -> Iterator[_Place]:
        """Yield where each episode of version 3 is."""
        cameras = [key for key, kind in self._kinds.items() if kind == "video"]
        of_videos = [
            f"videos/{key}/{part}"
            for key in cameras
            for part in ("chunk_index", "file_index", "from_timestamp")
        ]
        names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        names += ["dataset_from_index", *of_videos]
        files = sorted((self._root / "meta" / "episodes").glob("*/*.parquet"))
        rows: list[Json] = []
        for file in files:
            table = read_table(file, names)
            rows += [
                dict(zip(names, row, strict=True)) for row in zip(*table.values(), strict=True)
            ]
        rows.sort(key=lambda row: int(row["episode_index"]))
        begins: dict[tuple[int, int], int] = {}  # of a file: index of its first row
        for row in rows:
            at = (int(row["data/chunk_index"]), int(row["data/file_index"]))
            begins[at] = min(begins.get(at, 1 << 62), int(row["dataset_from_index"]))
        for row in rows:
            at = (int(row["data/chunk_index"]), int(row["data/file_index"]))
            yield _Place(
                number=int(row["episode_index"]),
                length=int(row["length"]),
                file=_file(self._root, info["data_path"], chunk_index=at[0], file_index=at[1]),
                first=int(row["dataset_from_index"]) - begins[at],
                videos={
                    key: (
                        _file(
                            self._root,
                            info["video_path"],
                            video_key=key,
                            chunk_index=int(row[f"videos/{key}/chunk_index"]),
                            file_index=int(row[f"videos/{key}/file_index"]),
                        ),
                        _second(row[f"videos/{key}/from_timestamp"]),
                    )
                    for key in cameras
                },
            )


def _second(value: Any) -> float:  # noqa: ANN401 (whatever the file holds)
    """Return a time in a film, in seconds."""
    second = float(value)
    if not 0 <= second < _LONGEST:
        raise ValueError(f"an episode begins at {second:g} s")
    return second


def _places_2(root: Path, info: Json) -> Iterator[_Place]:
    """Yield where each episode of version 2 is."""
    cameras = [key for key, value in info["features"].items() if value["dtype"] == "video"]
    size = int(info["chunks_size"])
    text = _read(root / "meta" / "episodes.jsonl").decode()
    for row in sorted(map(json.loads, text.splitlines()), key=lambda row: row["episode_index"]):
        index = int(row["episode_index"])
        where = {"episode_chunk": index // size, "episode_index": index}
        yield _Place(
            number=index,
            length=int(row["length"]),
            file=_file(root, info["data_path"], **where),
            first=0,
            videos={
                key: (_file(root, info["video_path"], video_key=key, **where), 0.0)
                for key in cameras
            },
        )


def _file(root: Path, pattern: str, **fields: object) -> Path:
    """Return a file of the dataset; a pattern that leads out of its folder is refused."""

    def filled(match: re.Match[str]) -> str:  # not `format`, which takes widths of any size
        return str(fields[match[1]]).zfill(int(match[2] or 0))

    file = root / _FIELD.sub(filled, str(pattern))
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{pattern} leads out of the folder")
    return file


def _column(feature: Mapping[str, Any]) -> Column | None:
    """Return what one frame of a feature is, None for text and what else is no number."""
    shape = tuple(int(length) for length in feature["shape"])
    if feature["dtype"] in _PIXELS:
        names = feature.get("names") or []
        if len(shape) == 3 and list(names)[:1] in (["channel"], ["channels"]):
            shape = (*shape[1:], shape[0])
        return Column((*shape[:2], 3), np.dtype(np.uint8))  # decoded so, whatever is stored
    if feature["dtype"] not in _KINDS or any(length < 0 for length in shape):
        return None
    return Column(() if shape == (1,) else shape, np.dtype(feature["dtype"]))


def _pictures(file: Path, rows: Collection[Any]) -> Iterator[Array]:
    """Yield frames that are kept in the rows, as PNG or JPEG."""
    for row in rows:
        try:
            with Image.open(io.BytesIO(row["bytes"]), formats=("PNG", "JPEG")) as picture:
                yield np.array(picture.convert("RGB"))
        except (OSError, ValueError, TypeError, KeyError, Image.DecompressionBombError) as error:
            raise PlanetError(f"{file}: a picture is damaged, {one_line(str(error))}") from None


def _stacked(frames: Iterator[Array], count: int, prepare: Prepare | None) -> Array:
    """Return `count` frames [T, ...], prepared a few at a time as they come."""
    if prepare is None:
        return joined((frame[None] for frame in frames), count)

    def blocks() -> Iterator[Array]:
        for frame in frames:
            few = itertools.islice(frames, at_once(*frame.shape[:2]) - 1)
            yield prepare(np.stack([frame, *few]))

    return joined(blocks(), count)


def _json(path: Path) -> Json:
    try:
        return dict(json.loads(_read(path)))
    except (ValueError, RecursionError):
        raise PlanetError(f"{path}: not a JSON object; get it again") from None


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, 1 << 30)
    except OSError as error:
        raise PlanetError(f"{path}: not readable ({error.strerror}); get it again") from None
