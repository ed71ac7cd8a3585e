"""Export as a LeRobotDataset v3.0: images as PNG in the rows, without loss, or as films."""

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.exporting import noted_of
from planet_rssm.datasets.films import Films, info_of, plain
from planet_rssm.datasets.foreign.lerobot import INFO, OURS
from planet_rssm.datasets.foreign.parquet import library
from planet_rssm.envs.spec import EnvSpec

_MOST = 100 << 20  # bytes of images in a file of rows, about: LeRobot's own limit
_AXES = ["height", "width", "channels"]
_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
Array = np.ndarray


def write_lerobot(
    folder: Path, spec: EnvSpec, episodes: Iterator[Episode], *, video: bool = False
) -> None:
    """Write all episodes as LeRobot's version 3.0; if `video` images as films, not to the bit.

    Row t has the action chosen at frame t, and `next.reward` and `next.done` are what it gave. The
    last row of an episode has zeros in their place: no action was chosen at the last frame.

    Raises:
        PlanetError: pyarrow or for films PyAV is missing, or an observation is an image of other
            than 3 channels, for films of an odd number of pixels a side.
    """
    pq = library()
    columns = {key: _name(key, shape) for key, (shape, _) in spec.observation.items()}
    if len(set(columns.values())) < len(columns):
        raise PlanetError(f"two observations would have one name: {', '.join(columns.values())}")
    for key, (shape, _) in spec.observation.items():
        if len(shape) == 3 and shape[2] != 3:
            raise PlanetError(f"{key}: an image {list(shape)}; LeRobot's have 3 channels")
        if video and len(shape) == 3 and (shape[0] % 2 or shape[1] % 2):
            raise PlanetError(
                f"{key}: an image {list(shape)}; films have an even number of pixels a side, leave "
                "--video out"
            )
    writer = _Writer(folder, spec, columns, pq, video)
    for episode in episodes:
        writer.add(episode)
    writer.finish()


class _Writer:
    """The files of a dataset under way."""

    def __init__(
        self,
        folder: Path,
        spec: EnvSpec,
        columns: dict[str, str],
        pq: Any,  # noqa: ANN401 (pyarrow has no types)
        video: bool,
    ) -> None:
        import pyarrow

        self._pa, self._pq = pyarrow, pq
        self._folder, self._spec, self._columns = folder, spec, columns
        self._rate = Fraction(1 / spec.control_interval).limit_denominator(1000)
        self._features = _features(spec, columns, self._rate if video else None)
        self._films = {
            name: Films(folder / "videos" / name, self._rate)
            for name, feature in self._features.items()
            if feature["dtype"] == "video"
        }
        self._schema = self._schema_of()
        self._sums = {name: _Sums() for name in self._features if name not in _INDICES}
        self._rows: list[Json] = []  # of meta/episodes
        self._noted: list[Json] = []
        self._frames = self._bytes = self._file = 0
        self._open: Any = None

    def add(self, episode: Episode) -> None:
        """Write an episode's rows, a row group."""
        values = _rows(episode, self._columns)
        for name, sums in self._sums.items():
            sums.add(values[name])
        count, number = episode.length, len(self._rows)
        values |= {
            "timestamp": np.arange(count, dtype=np.float64) * self._spec.control_interval,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": self._frames + np.arange(count),
            "task_index": np.zeros(count, np.int64),
        }
        table = self._pa.table(
            [self._column(name, values[name]) for name in self._schema.names], schema=self._schema
        )
        places: Json = {}
        for name, films in self._films.items():
            places |= {
                f"videos/{name}/{key}": value for key, value in films.add(values[name]).items()
            }
        if self._open is None or self._bytes > _MOST:
            self._next_file()
        self._open.write_table(table)
        self._bytes += table.nbytes
        self._rows.append(
            {
                "episode_index": number,
                "tasks": [self._spec.id],
                "length": count,
                "data/chunk_index": self._file // 1000,
                "data/file_index": self._file % 1000,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **places,
            }
        )
        self._noted.append(noted_of(episode))
        self._frames += count

    def finish(self) -> None:
        """Close the rows and write what describes them."""
        self._open.close()
        for films in self._films.values():
            films.close()
        meta = self._folder / "meta"
        places = meta / "episodes" / "chunk-000" / "file-000.parquet"
        places.parent.mkdir(parents=True)
        self._pq.write_table(self._pa.Table.from_pylist(self._rows), places)
        self._pq.write_table(self._tasks(), meta / "tasks.parquet")
        stats = {name: sums.to_json() for name, sums in self._sums.items()}
        (meta / "stats.json").write_text(json.dumps(stats))
        noted = {
            "env": self._spec.to_json(),
            "columns": self._columns,
            "reward": "next.reward",
            "episodes": self._noted,
        }
        (self._folder / OURS).write_text(json.dumps(noted))
        (self._folder / INFO).write_text(json.dumps(self._info(), indent=2))

    def _next_file(self) -> None:
        if self._open is not None:
            self._open.close()
            self._file += 1
        place = f"chunk-{self._file // 1000:03d}/file-{self._file % 1000:03d}.parquet"
        path = self._folder / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open = self._pq.ParquetWriter(path, self._schema, compression="snappy")
        self._bytes = 0

    def _schema_of(self) -> Any:  # noqa: ANN401 (pyarrow has no types)
        """Return the rows' schema, with what Hugging Face's datasets need to see pictures in it."""
        pa = self._pa
        fields = []
        described: Json = {}
        for name, feature in self._features.items():
            if feature["dtype"] == "video":
                continue  # not in the rows
            if feature["dtype"] == "image":
                kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                described[name] = {"_type": "Image"}
            elif feature["shape"] == [1]:
                kind = pa.bool_() if feature["dtype"] == "bool" else getattr(pa, feature["dtype"])()
                described[name] = {"dtype": feature["dtype"], "_type": "Value"}
            else:
                kind = pa.list_(pa.float32(), feature["shape"][0])
                described[name] = {
                    "feature": {"dtype": "float32", "_type": "Value"},
                    "length": feature["shape"][0],
                    "_type": "Sequence",
                }
            fields.append((name, kind))
        info = json.dumps({"info": {"features": described}})
        return pa.schema(fields, metadata={"huggingface": info})

    def _column(self, name: str, values: Array) -> Any:  # noqa: ANN401
        kind = self._schema.field(name).type
        if self._features[name]["dtype"] == "image":
            rows = [{"bytes": _png(frame), "path": None} for frame in values]
            return self._pa.array(rows, kind)
        if values.ndim == 2:
            flat = self._pa.array(values.ravel(), self._pa.float32())
            return self._pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return self._pa.array(values).cast(kind)

    def _tasks(self) -> Any:  # noqa: ANN401
        """Return the table of tasks, whose index is the task's words, as pandas keeps that."""
        index = "__index_level_0__"
        pandas = {
            "index_columns": [index],
            "column_indexes": [],
            "columns": [
                {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": kind_np,
                 "metadata": None}
                for name, field, kind, kind_np in (
                    ("task_index", "task_index", "int64", "int64"),
                    (None, index, "unicode", "object"),
                )
            ],
            "pandas_version": "2.2.0",
        }  # fmt: skip
        table = self._pa.table({"task_index": [0], index: [self._spec.id]})
        return table.replace_schema_metadata({"pandas": json.dumps(pandas)})

    def _info(self) -> Json:
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": 1,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": plain(self._rate),
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
            if self._films
            else None,
            "features": self._features,
        }


class _Sums:
    """What `stats.json` says of a column: of images by channel, from 0 to 1."""

    def __init__(self) -> None:
        self._count = 0
        self._low: Array = np.array(np.inf)
        self._high: Array = np.array(-np.inf)
        self._sum: Array = np.array(0.0)
        self._squares: Array = np.array(0.0)
        self._shape: tuple[int, ...] = (1,)

    def add(self, values: Array) -> None:
        if values.ndim == 4:
            values = values.reshape(-1, 3) / 255.0
            self._shape = (3, 1, 1)
        else:
            values = values.reshape(len(values), -1).astype(np.float64)
            self._shape = values.shape[1:]
        self._count += len(values)
        self._low = np.minimum(self._low, values.min(0))
        self._high = np.maximum(self._high, values.max(0))
        self._sum = self._sum + values.sum(0)
        self._squares = self._squares + np.square(values).sum(0)

    def to_json(self) -> Json:
        mean = self._sum / self._count
        spread = np.sqrt(np.maximum(self._squares / self._count - np.square(mean), 0))
        numbers = {"min": self._low, "max": self._high, "mean": mean, "std": spread}
        return {key: value.reshape(self._shape).tolist() for key, value in numbers.items()} | {
            "count": [self._count]
        }


def _features(spec: EnvSpec, columns: dict[str, str], rate: Fraction | None) -> Json:
    """Return what a row has; images are films of that many frames a second, None: in the rows."""
    features: Json = {}
    for key, (shape, _) in spec.observation.items():
        feature: Json = {"dtype": "float32", "shape": list(shape), "names": None}
        if len(shape) == 3:
            feature = {"dtype": "image", "shape": list(shape), "names": _AXES}
        if len(shape) == 3 and rate is not None:
            feature |= {"dtype": "video", "info": info_of(shape, rate)}
        features[columns[key]] = feature
    features["action"] = {"dtype": "float32", "shape": [spec.action_size], "names": None}
    features["next.reward"] = {"dtype": "float32", "shape": [1], "names": None}
    features["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    for name in _INDICES:
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    return features


def _rows(episode: Episode, columns: dict[str, str]) -> dict[str, Array]:
    """Return an episode's columns in LeRobot's order of time."""
    last = np.zeros_like(episode.action[:1])
    action = np.concatenate([episode.action[1:], last])
    done = np.arange(episode.length) >= episode.length - 2  # the last step, and the row after it
    values = {columns[key]: value for key, value in episode.observation.items()}
    return (
        values
        | {
            "action": action[:, 0] if action.shape[1] == 1 else action,
            "next.reward": np.append(episode.reward[1:], np.float32(0)),
            "next.done": done,
        }
        | {
            columns[key]: value[:, 0]
            for key, value in episode.observation.items()
            if value.ndim == 2 and value.shape[1] == 1
        }
    )


def _name(key: str, shape: tuple[int, ...]) -> str:
    """Return an observation's name as LeRobot has it."""
    plain = key.replace("/", ".")
    if len(shape) == 3 and not plain.startswith("images."):
        plain = f"images.{plain}"
    return f"observation.{plain}"


def _png(frame: Array) -> bytes:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, format="PNG")
    return data.getvalue()
