"""What an actor of Ray is: a worker that plays parts of a run's orders, in replies of plain data.

Nothing is raised and nothing of the package is pickled: settings and orders come as JSON, weights
as the bytes of a safetensors file, episodes go back as the bytes of theirs.
"""

import json
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.malloc import keep_memory
from planet_rssm.config import Settings
from planet_rssm.runs.surroundings import code_checksum, versions
from planet_rssm.training.collector_worker import Worker, line_of

# A header, and bytes. The header has `log`, and `error` where something went wrong.
Reply = tuple[Json, list[np.ndarray]]


def own_versions() -> dict[str, str]:
    """Return what must be the same on all machines of a run, by name."""
    return versions() | {"its own code": code_checksum()}


def check_versions(option: str, host: str, there: Mapping[str, str]) -> None:
    """Refuse a machine that would compute other numbers than this one.

    Raises:
        PlanetError: it has other versions.
    """
    for name, here in own_versions().items():
        if there.get(name) != here:
            raise PlanetError(
                f"{option}: node {host} has {name} {there.get(name)}, this machine {here}; "
                "install the same on all"
            )


class Log(logging.Handler):
    """Keeps what is logged, for the next reply."""

    def __init__(self) -> None:
        """Listen to the package."""
        super().__init__()
        self._lines: list[list[Any]] = []
        log = logging.getLogger("planet_rssm")
        log.addHandler(self)
        log.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append([record.levelno, record.getMessage()])

    def drained(self) -> list[list[Any]]:
        """Return the lines since the last call."""
        lines, self._lines = self._lines, []
        return lines


class RayWorker:
    """Plays one part of an order at a time; `start` comes first."""

    def __init__(self, settings: str, device: str) -> None:
        """Take the settings as JSON, and where to plan."""
        self._settings = settings
        self._device = device
        self._log = Log()

    def start(self) -> Reply:
        """Start the environments; the header has `spec`, `versions`, `host` and `pid`."""
        header: Json = {
            "versions": own_versions(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        try:
            keep_memory()
            settings = Settings.model_validate_json(self._settings)
            self._worker = Worker(settings, torch.device(self._device))
            header["spec"] = self._worker.spec.to_json()
        except Exception as error:
            header["error"] = line_of(error)
        return header | {"log": self._log.drained()}, []

    def play(self, order: str, weights: np.ndarray) -> Reply:
        """Play a part of an order; the header has `done`, and the bytes are its episodes."""
        header: Json = {}
        episodes: dict[int, np.ndarray] = {}
        try:
            header["done"] = self._worker.play(
                json.loads(order),
                weights.tobytes(),
                lambda index, episode: episodes.update(
                    {index: np.frombuffer(episode.to_bytes(), np.uint8)}
                ),
            )
        except Exception as error:
            header["error"] = line_of(error)
        header["log"] = self._log.drained()
        return header, [episodes[index] for index in sorted(episodes)]

    def close(self) -> None:
        """Close the environments."""
        self._worker.close()
