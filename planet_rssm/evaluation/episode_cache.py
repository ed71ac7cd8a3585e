"""Episodes that were played before, kept beside the run, so that an evaluation can be resumed."""

import io
import json
import logging
import zlib
from pathlib import Path
from typing import Any

from planet_rssm.base.files import UNSEALED, is_sealed, read_regular, seal, write_atomic
from planet_rssm.config import FORMAT
from planet_rssm.evaluation.protocol import EpisodeResult

FOLDER = "eval"

_log = logging.getLogger("planet_rssm")


class EpisodeCache:
    """One file, RUN/eval/NAME-….json: episodes by seed, and the conditions that decided them."""

    def __init__(self, folder: Path | None, name: str, conditions: dict[str, Any]) -> None:
        """Read the episodes that were played under the same conditions.

        A file that is missing or damaged only means playing again. Without a folder nothing is
        read or written.
        """
        # as the file gives them back: tuples become lists
        self._conditions = json.loads(json.dumps(conditions))
        crc = zlib.crc32(json.dumps(self._conditions, sort_keys=True).encode())
        self.path = None if folder is None else folder / FOLDER / f"{name}-{crc:08x}.json"
        self.episodes: dict[int, EpisodeResult] = {}  # by seed
        if self.path is not None:
            self.episodes = self._read(self.path)

    def _read(self, path: Path) -> dict[int, EpisodeResult]:
        try:
            data = read_regular(path)
            record = json.loads(data)
            sealed = is_sealed(io.BytesIO(data))
            same_format = record["format"] == FORMAT
            if sealed and same_format and record["made_of"] == self._conditions:
                return {
                    row["seed"]: EpisodeResult(row["seed"], row["return"], row["env_steps"])
                    for row in record["rows"]
                }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        _log.warning("%s: damaged or of another version; its episodes are played again", path)
        return {}

    def add(self, results: list[EpisodeResult]) -> None:
        """Keep more episodes, durably. A folder that cannot be written costs a warning."""
        self.episodes |= {result.seed: result for result in results}
        if self.path is None:
            return
        record = {
            "format": FORMAT,
            "crc32": UNSEALED,
            "made_of": self._conditions,
            "rows": [self.episodes[seed].to_json() for seed in sorted(self.episodes)],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, [seal(json.dumps(record).encode())])
        except OSError as error:
            _log.warning(
                "episodes not kept in %s (%s); the next eval plays them again",
                self.path,
                error.strerror,
            )
