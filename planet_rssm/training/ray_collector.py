"""The learner's end of collectors that are actors of Ray, on any machine of a cluster.

    order --parts--> collectors, each with its own environments --episodes--> the learner commits

Which collector plays a part decides nothing: the same part on the same weights gives the same
episodes. So one that dies is replaced, and its part is played again by whoever is free.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from planet_rssm.base.cluster import Head, why_lost
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs.remote import Reply, accept
from planet_rssm.training.collector import Networks, Order, Played, Watch, joined
from planet_rssm.training.ray_worker import RayWorker

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

OPTION = "--collect-on"
_TICK = 0.1  # seconds between two looks whether the run was asked to stop
_CLOSING = 5.0  # seconds that free collectors have to close their environments
_SLOW = 30.0  # seconds without any collector after which a line says so
_ROOM = 600.0  # seconds after which it is an error: a cluster may start machines meanwhile
_HOPELESS = 300.0  # seconds in which collectors die and no part is done
_ACCIDENTS = 5  # deaths beside one of each collector in such a time, at least

_log = logging.getLogger("planet_rssm")


class RayCollector:
    """Plays orders on the cluster that this process is connected to, see `cluster.connected`."""

    spec: EnvSpec

    def __init__(self, settings: Settings, device: torch.device) -> None:
        """Start the collectors, and wait for the first; the others join when they are ready.

        Raises:
            PlanetError: its environments do not start, no machine has room, or a machine has other
                versions.
        """
        import ray

        self._ray = ray
        self.head = Head(OPTION, "the same command with --resume")
        self._settings = settings.model_dump_json()
        self._count = settings.train.collectors
        self._device, gpus = _place(device, self._count)
        self._make: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(RayWorker)
        self._starting: dict[ObjectRef, ActorHandle] = {}
        self._idle: list[ActorHandle] = []
        self._going: dict[ObjectRef, tuple[ActorHandle, int]] = {}  # the part that each plays
        self._parts: list[Order] = []
        self._waiting: deque[int] = deque()  # parts that nobody plays
        self._done: dict[int, Played] = {}
        self._data: ObjectRef | None = None
        self._accidents, self._since = 0, time.monotonic()  # that a part was done, or an order came
        self._without: float | None = None  # since when there has been no collector
        self._said = False
        self.pids: dict[ActorHandle, tuple[str, int]] = {}  # host and process of each
        self.weights: dict[str, Tensor] = {}  # that plan what is under way
        try:
            for _ in range(self._count):
                self._begin_one()
            while not self._idle:
                self.head.check()
                self._look(lambda index, episode: None)
        except BaseException:
            self._end(0.0)
            raise

    def __enter__(self) -> Self:
        """Return the collector."""
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all collectors; busy ones are killed."""
        self._end(_CLOSING)

    def begin(self, order: Order, networks: Networks) -> None:
        """Take an order, which is played with the weights of this moment."""
        self.begin_with(order, networks.weights())

    def begin_with(self, order: Order, weights: dict[str, Tensor]) -> None:
        """Take an order, which is played with `weights`; see Networks.weights.

        Raises:
            PlanetError: the cluster has no room for the weights.
        """
        self.weights = weights
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        data = np.frombuffer(safetensors.torch.save(contiguous), np.uint8)
        errors = self._ray.exceptions
        try:
            self._data = self._ray.put(data)
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise _full(f"{data.nbytes} bytes of weights") from error
        self._parts = order.parts(self._count)
        self._waiting = deque(range(len(self._parts)))
        self._done = {}
        self._since = time.monotonic()
        self._hand_out()

    def finish(self, watch: Watch) -> Played:
        """Wait for the episodes of the order; see Collector.

        Raises:
            PlanetError: the environment does not work, no machine has room, or collectors die again
                and again.
        """
        while len(self._done) < len(self._parts):
            watch.tick()
            self._look(watch.ended)
        self._data = None
        self.weights = {}
        return joined([self._done[part] for part in range(len(self._parts))])

    def _look(self, ended: Callable[[int, Episode], object]) -> None:
        """Wait a moment for replies, and take those that have come."""
        self._check_room()
        self._hand_out()
        refs = [*self._starting, *self._going]
        for ref in self._ray.wait(refs, timeout=_TICK)[0]:
            actor, part = (
                (self._starting.pop(ref), None) if ref in self._starting else self._going.pop(ref)
            )
            try:
                header, bodies = self._reply(ref)
            except self._ray.exceptions.RayError as error:
                self._replace(actor, part, error)
            else:
                if part is None:
                    self._started(actor, header)
                else:
                    self._take(part, header, bodies, ended)
                self._idle.append(actor)

    def _reply(self, ref: "ObjectRef") -> Reply:
        """Return what an actor has sent.

        Raises:
            RayError: it, its node or its reply was lost.
            PlanetError: what it could not do.
        """
        errors = self._ray.exceptions
        try:
            reply = self._ray.get(ref)
        except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
            raise _full("a collector's episodes") from error
        except errors.RayTaskError as error:  # a surprise: the worker itself raises nothing
            raise PlanetError(f"{OPTION}: {one_line(str(error.cause))}") from error
        return accept(OPTION, reply)

    def _started(self, actor: "ActorHandle", header: Json) -> None:
        """Take the first reply of a collector."""
        self.pids[actor] = header["host"], header["pid"]
        self.spec = EnvSpec.from_json(header["spec"])

    def _take(
        self,
        part: int,
        header: Json,
        bodies: list[np.ndarray],
        ended: Callable[[int, Episode], object],
    ) -> None:
        """Keep the episodes of a part."""
        self._accidents, self._since = 0, time.monotonic()
        first = self._parts[part].first
        episodes = [
            Episode.from_bytes(body.tobytes(), Path(f"episode {first + index}"))
            for index, body in enumerate(bodies)
        ]
        done = header["done"]
        self._done[part] = Played(episodes, done["lost"], done["seconds"])
        for index, episode in enumerate(episodes, first):
            ended(index, episode)

    def _hand_out(self) -> None:
        """Give the parts that nobody plays to collectors that are free."""
        while self._idle and self._waiting:
            actor, part = self._idle.pop(), self._waiting.popleft()
            order = json.dumps(asdict(self._parts[part]))
            self._going[actor.play.remote(order, self._data)] = actor, part

    def _begin_one(self) -> None:
        actor = self._make.remote(self._settings, self._device)
        self._starting[actor.start.remote()] = actor

    def _replace(self, actor: "ActorHandle", part: int | None, error: Exception) -> None:
        """Begin another collector in place of one that was lost, and its part again.

        Raises:
            PlanetError: so many were lost that it is no accident.
        """
        self._accidents += 1
        host, pid = self.pids.pop(actor, ("", 0))
        name = f"the collector on {host} (process {pid})" if host else "a collector that began"
        words = why_lost(error)
        seconds = time.monotonic() - self._since
        if self._accidents >= self._count + _ACCIDENTS and seconds > _HOPELESS:
            raise PlanetError(
                f"{OPTION}: collectors ended {self._accidents} times in {seconds:.0f} s and "
                f"played nothing, at last: {words}; look at the nodes' memory and ray's logs there"
            ) from error
        again = "" if part is None else ", its episodes are begun again"
        _log.warning("%s was lost and is replaced%s: %s", name, again, words)
        self._ray.kill(actor)  # it may be alive beyond a network that is not
        if part is not None:
            self._waiting.appendleft(part)
        self._begin_one()

    def _check_room(self) -> None:
        """Say that there has been no collector for long, and in the end give up.

        Raises:
            PlanetError: it was too long.
        """
        if self._idle or self._going:
            self._without, self._said = None, False
            return
        now = time.monotonic()
        self._without = self._without or now
        waited = now - self._without
        if waited < _SLOW or (self._said and waited < _ROOM):
            return
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        line = (
            f"{OPTION}: no collector has begun for {waited:.0f} s: each wants a CPU, "
            f"{free.get('CPU', 0):g} of {there.get('CPU', 0):g} are free"
        )
        if waited >= _ROOM:
            raise PlanetError(f"{line}; add a node, or lower train.collectors")
        self._said = True
        _log.warning("%s; it goes on when one does", line)

    def _end(self, patience: float) -> None:
        """Have free collectors close their environments, then kill all."""
        actors = [*self._idle, *self._starting.values(), *(one for one, _ in self._going.values())]
        closing: list[Any] = [actor.close.remote() for actor in self._idle]
        if closing and patience:
            self._ray.wait(closing, num_returns=len(closing), timeout=patience)
        for actor in actors:
            self._ray.kill(actor)
        self._idle, self._starting, self._going = [], {}, {}


def _place(device: torch.device, count: int) -> tuple[str, float]:
    """Return where collectors plan, as the learner if it can be, and each one's share of a GPU."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0.0) if device.type == "cuda" else 0.0
    return ("cuda", min(1.0, gpus / count)) if gpus else ("cpu", 0.0)


def _full(what: str) -> PlanetError:
    return PlanetError(
        f"{OPTION}: no room in the cluster's object store for {what}; start its nodes with "
        "more --object-store-memory or a larger disk to spill to, or lower train.envs"
    )
