"""A sweep's runs on a cluster of Ray: each an actor, which has a process that trains.

The folder of a run says where it stands, and all nodes share it. So whoever begins a run again,
on any node, continues it.
"""

import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from planet_rssm.base.cluster import Head, connected, why_lost
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.config import Settings
from planet_rssm.runs.remote import Reply, accept, answer
from planet_rssm.sweep.local import last_line, start
from planet_rssm.sweep.plan import Sweep, SweepRun
from planet_rssm.sweep.state import state_of

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

OPTION = "--on"
_TICK = 0.2  # seconds between two looks
_AGAIN = 5  # times that a run may be lost without having committed anything between
_LEFT = 60.0  # seconds that a lost run's process has to be gone from its folder
_COMMIT = 15.0  # seconds that runs have to commit where the head is gone, before Ray ends all
_SLOW = 30.0  # seconds without any run after which a line says so
_ROOM = 600.0  # seconds after which it is an error: a cluster may start machines meanwhile


class RayTraining:
    """The actor: trains one run on its node. `stop` may be called meanwhile."""

    def __init__(self, run: str, out: str, folder: str, threads: int) -> None:
        """Take the run as JSON, the sweep's folder, that of the command, and threads."""
        self._run = _received(run)
        self._out = Path(out)
        self._folder = Path(folder)
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False  # to stop

    def look(self, mark: str) -> Reply:
        """Say who this is, or that there is no `mark` in the sweep's folder here."""

        def work(header: Json) -> list[np.ndarray]:
            # the names in it: asked for one alone, a network's file system may answer from memory
            if not self._out.is_dir() or mark not in os.listdir(self._out):
                raise PlanetError(
                    f"{OPTION}: node {header['host']} does not see {self._out} of this machine; "
                    "`out` must be in a folder that all nodes share, with the same path on each"
                )
            return []

        return answer(work)

    def train(self) -> Reply:
        """Train to the end; the header has the exit `code` and the last `line` of the log."""

        def work(header: Json) -> list[np.ndarray]:
            end = time.monotonic() + _LEFT
            # a process of before, on a node that is being lost
            while state_of(self._run).state == "running" and time.monotonic() < end:
                time.sleep(_TICK)
            if self._asked:
                raise PlanetError(f"{self._run.name}: stopped before it began")
            life, self._life = os.pipe()  # it is killed when this process is
            folder = self._folder if self._folder.is_dir() else None
            self._process = start(self._run, self._out, self._threads, life=life, folder=folder)
            os.close(life)
            header["code"] = self._process.wait()
            header["line"] = last_line(self._out, self._run)
            return []

        return answer(work)

    def stop(self) -> None:
        """Have the run commit what it has learned, and end."""
        self._asked = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)


def run_on(
    where: str, sweep: Sweep, runs: Sequence[SweepRun], at_once: int, say: Callable[[str], object]
) -> list[str]:
    """Make the runs on a cluster, `at_once` at a time, and return the names of those that failed.

    A run whose process or node is lost is begun again. A signal that ends this process stops the
    runs first, which commit what they have learned.

    Args:
        where: `ray` for one of this machine, or `ray:ADDRESS`.
        sweep: their file; its `ray` says what a run needs of a node.
        runs: of it.
        at_once: at most so many; Ray itself lets those wait that have no room.
        say: given a line where something begins or ends.

    Raises:
        PlanetError: the cluster cannot be reached or loses its head, no node has room, or a node
            has other versions or another folder.
    """
    out = sweep.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with (
        connected(OPTION, where, math.ceil(sweep.ray["num_cpus"])),
        tempfile.NamedTemporaryFile(prefix=".shared-", dir=out) as mark,
        _Runs(out, Path(mark.name).name, sweep.ray, say) as going,
    ):
        return going.make(runs, at_once)


@dataclass
class _Going:
    """A run that is being made."""

    run: SweepRun
    actor: "ActorHandle"
    host: str = ""  # where it trains, once it does
    losses: int = 0  # since it has committed anything
    updates: int = 0  # that were committed when it was lost


class _Runs:
    """The driver's end of the actors. Leaving it stops what is under way."""

    def __init__(self, out: Path, mark: str, options: Json, say: Callable[[str], object]) -> None:
        """Make runs in `out`, which has a file `mark`; `options` are Ray's, of an actor.

        Raises:
            PlanetError: Ray refuses the options.
        """
        import ray

        self._ray = ray
        self._head = Head(OPTION)
        self._out, self._mark, self._say = out, mark, say
        self._options = options
        self._failed: list[str] = []
        self._going: dict[ObjectRef, _Going] = {}
        self._without: float | None = None  # since when no run has had a place
        self._said = False
        remote: Any = ray.remote
        try:
            self._make = remote(max_concurrency=2, max_restarts=0, **options)(RayTraining)
        except (ValueError, TypeError, AssertionError) as error:
            line = one_line(str(error))
            raise PlanetError(f"{OPTION}: Ray refuses ({line}); fix `ray` in the file") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Have all runs commit, wait until they have, and end their actors."""
        committing = {ref: going for ref, going in self._going.items() if going.host}
        for going in committing.values():
            going.actor.stop.remote()
        if committing:
            patience = _COMMIT if self._head.gone else None
            self._ray.wait(list(committing), num_returns=len(committing), timeout=patience)
        for going in self._going.values():
            self._ray.kill(going.actor)

    def make(self, runs: Sequence[SweepRun], at_once: int) -> list[str]:
        """Make the runs and return the names of those that failed."""
        waiting = deque(runs)
        while waiting or self._going:
            while waiting and len(self._going) < at_once:
                self._begin(waiting.popleft())
            self._check_room()
            self._head.check()
            for ref in self._ray.wait(list(self._going), timeout=_TICK)[0]:
                going = self._going.pop(ref)
                try:
                    header, _ = accept(OPTION, self._ray.get(ref))
                except self._ray.exceptions.RayError as error:
                    self._lost(going, why_lost(error))
                else:
                    self._take(going, header)
        return self._failed

    def _begin(self, run: SweepRun, losses: int = 0, updates: int = 0) -> None:
        threads = max(1, int(self._options["num_cpus"]))
        actor = self._make.remote(_sent(run), str(self._out), os.getcwd(), threads)
        going = _Going(run, actor, losses=losses, updates=updates)
        self._going[actor.look.remote(self._mark)] = going

    def _take(self, going: _Going, header: Json) -> None:
        """Let a run train that has a place, or take the end of one that did."""
        name = going.run.name
        if not going.host:
            going.host = header["host"]
            self._going[going.actor.train.remote()] = going
            self._say(f"{name}: begun on {going.host}")
        elif (code := header["code"]) < 0:
            self._lost(going, f"its process was killed (signal {-code})")
        else:
            if code:
                self._failed.append(name)
            self._say(f"{name}: {header['line'] if code else 'complete'}")
            self._ray.kill(going.actor)

    def _lost(self, going: _Going, words: str) -> None:
        """Begin a run again that was lost, unless it comes to nothing."""
        self._ray.kill(going.actor)  # it may be alive beyond a network that is not
        name, updates = going.run.name, state_of(going.run).updates
        losses = 1 if updates > going.updates else going.losses + 1
        if losses > _AGAIN:
            self._failed.append(name)
            self._say(f"{name}: lost {losses} times and learned nothing, at last: {words}")
            return
        where = f" on {going.host}" if going.host else ""
        self._say(f"{name}: lost{where}, it is begun again: {words}")
        self._begin(going.run, losses, updates)

    def _check_room(self) -> None:
        """Say that no run has had a place for long; give up where none can ever have one.

        Raises:
            PlanetError: no node is large enough, and it was too long.
        """
        if any(going.host for going in self._going.values()):
            self._without, self._said = None, False
            return
        now = time.monotonic()
        self._without = self._without or now
        waited = now - self._without
        if waited < _SLOW or (self._said and waited < _ROOM):
            return
        wants = {"CPU": self._options["num_cpus"], "GPU": self._options.get("num_gpus", 0)}
        wants |= {"memory": self._options.get("memory", 0), **self._options.get("resources", {})}
        wants = {name: count for name, count in wants.items() if count}
        large = any(
            all(node["Resources"].get(name, 0) >= count for name, count in wants.items())
            for node in self._ray.nodes()
            if node["Alive"]
        )
        line = (
            f"{OPTION}: no run has begun for {waited:.0f} s: each wants "
            + ", ".join(f"{name} {count:g}" for name, count in wants.items())
            + (", which is taken" if large else ", which no node has")
        )
        if not large and waited >= _ROOM:
            raise PlanetError(f"{line}; add a node, or change `ray` in the file")
        if not self._said:
            self._said = True
            self._say(f"{line}; it goes on when a node has room")


def _sent(run: SweepRun) -> str:
    """Return a run as JSON."""
    run = run.absolute()
    return json.dumps(
        {
            "name": run.name,
            "folder": str(run.folder),
            "preset": run.preset,
            "overrides": run.overrides,
            "settings": run.settings.model_dump_json(),
        }
    )


def _received(text: str) -> SweepRun:
    value = json.loads(text)
    return SweepRun(
        value["name"],
        Path(value["folder"]),
        value["preset"],
        tuple(value["overrides"]),
        Settings.model_validate_json(value["settings"]),
    )
