"""Batches of an evaluation's episodes as tasks of Ray: the same numbers, on any node of a cluster.

A task is one batch of one run, as it would be played here. Ray makes it again where its process or
node is gone; its result is the same. Checkpoints go there as the bytes of a file, all else as JSON.
"""

import contextlib
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from planet_rssm.base.cluster import Head, connected
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.malloc import keep_memory
from planet_rssm.base.stopwatch import Stages
from planet_rssm.base.text import one_line
from planet_rssm.evaluation.opened_run import OnEpisode, Pools, RunPlayer, Subject
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.precision import planning_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.remote import Reply, accept, answer

if TYPE_CHECKING:
    from ray import ObjectRef

OPTION = "--on"
_TICK = 0.2  # seconds between two looks at the head
_AGAIN = 5  # times that Ray makes a task again whose process or node is gone


class Tasks:
    """The batches that are played on the cluster that this process is connected to."""

    def __init__(self) -> None:
        """Begin with none."""
        import ray

        self._ray = ray
        self._head = Head(OPTION)
        self._data: dict[RunPlayer, ObjectRef] = {}
        self._begun: dict[tuple[RunPlayer, tuple[int, ...]], ObjectRef] = {}
        threads = torch.get_num_threads()
        largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        self._task: Any = ray.remote(num_cpus=min(threads, largest), max_retries=_AGAIN)(play)

    def begin(self, subject: Subject, seeds: Sequence[int], width: int) -> None:
        """Have a batch played, an episode a seed in rows of the given number.

        Raises:
            PlanetError: what is evaluated is no trained model, or the cluster is not for it.
        """
        player = subject.player
        if player is None:
            raise PlanetError(
                f"{subject.name}: {OPTION} plays run folders and packaged models; leave it out"
            )
        if player not in self._data:
            self._data[player] = self._put(player)
        order = {
            "device": str(player.device),
            "threads": torch.get_num_threads(),
            "seeds": list(seeds),
            "width": width,
        }
        task = self._task
        if player.device.type == "cuda":
            if self._ray.cluster_resources().get("GPU", 0) < 1:
                raise PlanetError(f"{OPTION}: no node has a GPU for tasks; give --device cpu")
            task = task.options(num_gpus=1)
        self._begun[player, tuple(seeds)] = task.remote(self._data[player], json.dumps(order))

    def finish(
        self, subject: Subject, seeds: Sequence[int], width: int, on_episode: OnEpisode
    ) -> list[EpisodeResult]:
        """Wait for the episodes of a batch.

        Raises:
            PlanetError: it could not be played, a node has other versions, or the head is gone.
        """
        if subject.player is None or (subject.player, tuple(seeds)) not in self._begun:
            self.begin(subject, seeds, width)
        assert subject.player is not None
        ref = self._begun.pop((subject.player, tuple(seeds)))
        try:
            while not self._ray.wait([ref], timeout=_TICK)[0]:
                self._head.check()
            reply = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise PlanetError(f"{OPTION}: {one_line(lines[0])}") from error
        header, _ = accept(OPTION, reply)
        results = [EpisodeResult(*episode) for episode in header["episodes"]]
        for result in results:
            on_episode(result)
        return results

    def _put(self, player: RunPlayer) -> "ObjectRef":
        """Give the cluster what is played, in the precision that was chosen here."""
        kept = player.checkpoint
        precision = planning_precision(kept.settings, player.device)
        planner = kept.settings.planner.model_copy(update={"precision": precision})
        settings = kept.settings.model_copy(update={"planner": planner})
        sent = replace(kept, settings=settings, optimizer={}, collecting={})
        return self._ray.put(np.frombuffer(checkpoints.to_bytes(sent), np.uint8))


@contextlib.contextmanager
def tasks_on(where: str | None) -> Iterator[Tasks | None]:
    """Connect to the cluster that `where` names, `ray` or `ray:ADDRESS`; None: play here.

    Raises:
        PlanetError: see `connected`.
    """
    if where is None:
        yield None
        return
    with connected(OPTION, where, 1):
        yield Tasks()


@functools.cache
def _pools() -> Pools:
    """Return what stays open in a process of the cluster from task to task."""
    keep_memory()
    return Pools()


def play(data: np.ndarray, words: str) -> Reply:
    """Play a batch in a process of the cluster; the header has its `episodes`."""

    def work(header: Json) -> list[np.ndarray]:
        order, pools = json.loads(words), _pools()
        torch.set_num_threads(order["threads"])
        checkpoint = checkpoints.from_bytes(data.tobytes(), "what was sent")
        player = RunPlayer(checkpoint, torch.device(order["device"]))
        seeds, width = order["seeds"], order["width"]
        try:
            header["episodes"] = player.play(seeds, width, pools, Stages(), lambda result: None)
        except BaseException:
            pools.drop()
            raise
        return []

    return answer(work)
