"""Episodes that were played before, kept beside the run, so that an evaluation can be resumed."""

import glob
import io
import json
import logging
import zlib
from pathlib import Path

from planet_rssm.base.files import UNSEALED, is_sealed, read_regular, seal, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.config import FORMAT, PlannerSettings
from planet_rssm.evaluation.protocol import EpisodeResult

FOLDER = "eval"

_log = logging.getLogger("planet_rssm")


class EpisodeCache:
    """One file, RUN/eval/NAME-….json: episodes by seed, and the conditions that decided them."""

    def __init__(self, folder: Path | None, name: str, conditions: Json) -> None:
        """Read the episodes that were played under the same conditions.

        A planner setting that is newer than a file has its default there. A file that is missing or
        damaged only means playing again. Without a folder nothing is read or written.
        """
        # as the file gives them back: tuples become lists
        self._conditions = json.loads(json.dumps(conditions))
        crc = zlib.crc32(json.dumps(self._conditions, sort_keys=True).encode())
        self.path = None if folder is None else folder / FOLDER / f"{name}-{crc:08x}.json"
        self.episodes: dict[int, EpisodeResult] = {}  # by seed
        if self.path is None:
            return
        if self.path.exists():
            self.episodes = self._read(self.path) or {}
            return
        older = f"{glob.escape(name)}-{'[0-9a-f]' * 8}.json"
        for path in sorted(self.path.parent.glob(older)):  # of before a setting was added
            if (episodes := self._read(path)) is not None:
                self.path = path
                self.episodes = episodes
                return

    def _read(self, path: Path) -> dict[int, EpisodeResult] | None:
        """Return the episodes of a file; None if it is damaged, or of other conditions."""
        try:
            data = read_regular(path)
            record = json.loads(data)
            if not is_sealed(io.BytesIO(data)) or record["format"] != FORMAT:
                raise ValueError
            if _completed(record["made_of"]) != self._conditions:
                return None
            return {
                row["seed"]: EpisodeResult(row["seed"], row["return"], row["env_steps"])
                for row in record["rows"]
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            _log.warning("%s: damaged or of another version; its episodes are played again", path)
            return None

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


def _completed(conditions: Json) -> Json:
    """Return conditions with the planner's settings that are newer than they, at their defaults."""
    planner = conditions["planner"]
    defaults = PlannerSettings().model_dump(mode="json", exclude={"precision"})
    return conditions | {"planner": defaults | planner}
