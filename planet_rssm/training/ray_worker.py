"""What an actor of Ray is: a worker that plays parts of a run's orders.

Nothing of the package is pickled: settings and orders come as JSON, weights as the bytes of a
safetensors file, and episodes go back as the bytes of theirs.
"""

import json
import os

import numpy as np
import torch

from planet_rssm.base.json_types import Json
from planet_rssm.base.malloc import keep_memory
from planet_rssm.config import Settings
from planet_rssm.runs.remote import Reply, answer
from planet_rssm.training.collector_worker import Worker, line_of


class RayWorker:
    """Plays one part of an order at a time; `start` comes first."""

    def __init__(self, settings: str, device: str) -> None:
        """Take the settings as JSON, and where to plan."""
        self._settings = settings
        self._device = device

    def start(self) -> Reply:
        """Start the environments; the header has `spec` and `pid`."""

        def work(header: Json) -> list[np.ndarray]:
            keep_memory()
            header["pid"] = os.getpid()
            settings = Settings.model_validate_json(self._settings)
            self._worker = Worker(settings, torch.device(self._device))
            header["spec"] = self._worker.spec.to_json()
            return []

        return answer(work, line_of)

    def play(self, order: str, weights: np.ndarray) -> Reply:
        """Play a part of an order; the header has `done`, and the bytes are its episodes."""

        def work(header: Json) -> list[np.ndarray]:
            episodes: dict[int, np.ndarray] = {}
            header["done"] = self._worker.play(
                json.loads(order),
                weights.tobytes(),
                lambda index, episode: episodes.update(
                    {index: np.frombuffer(episode.to_bytes(), np.uint8)}
                ),
            )
            return [episodes[index] for index in sorted(episodes)]

        return answer(work, line_of)

    def close(self) -> None:
        """Close the environments."""
        self._worker.close()
