"""Rows of episodes that were played before, kept beside the run: an interrupted evaluation goes on."""

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


class Kept:
    """One file of rows, RUN/eval/NAME-….json: episodes by their seed, and all that decided how they went."""

    def __init__(self, folder: Path | None, name: str, made_of: dict[str, Any]) -> None:
        """Open what was kept of episodes `made_of` the same; a file missing or damaged only means playing again.

        Without a folder nothing is read or written.
        """
        self._made_of = json.loads(
            json.dumps(made_of)
        )  # as the file gives it back: tuples become lists
        crc = zlib.crc32(json.dumps(self._made_of, sort_keys=True).encode())
        self.path = None if folder is None else folder / FOLDER / f"{name}-{crc:08x}.json"
        self.rows: dict[int, EpisodeResult] = {} if self.path is None else self._read(self.path)

    def _read(self, path: Path) -> dict[int, EpisodeResult]:
        try:
            data = read_regular(path)
            held = json.loads(data)
            if (
                is_sealed(io.BytesIO(data))
                and held["format"] == FORMAT
                and held["made_of"] == self._made_of
            ):
                return {
                    row["seed"]: EpisodeResult(row["seed"], row["return"], row["env_steps"])
                    for row in held["rows"]
                }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        _log.warning("%s: damaged or of another version; its episodes are played again", path)
        return {}

    def add(self, results: list[EpisodeResult]) -> None:
        """Keep more rows, durably. A folder that cannot be written costs a warning."""
        self.rows |= {result.seed: result for result in results}
        if self.path is None:
            return
        rows = [row(self.rows[seed]) for seed in sorted(self.rows)]
        held = {"format": FORMAT, "crc32": UNSEALED, "made_of": self._made_of, "rows": rows}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, [seal(json.dumps(held).encode())])
        except OSError as error:
            _log.warning(
                "episodes not kept in %s (%s); the next eval plays them again",
                self.path,
                error.strerror,
            )


def row(result: EpisodeResult) -> dict[str, Any]:
    """Return an episode as `--json` prints it."""
    return {"seed": result.seed, "return": result.episode_return, "env_steps": result.env_steps}
