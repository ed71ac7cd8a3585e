"""The learner's end of the process that plays episodes beside it: start, order, take, end."""

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import safetensors.torch
import torch
from torch import Tensor

from planet_rssm.base.descriptors import hold_standard
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.messages import Message, read_message, write_message
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.process import environment
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.collector import Networks, Order, Played, Watch

_TICK = 0.1  # seconds between two looks whether the run was asked to stop
_CLOSING = 5.0  # seconds that the process has to close its environments
_MOST_STARTS = 3  # of one order: more is no accident

_log = logging.getLogger("planet_rssm")


class ProcessCollector:
    """Plays orders in a process of its own, so that this one can learn meanwhile.

    It owns nothing that outlives a kill -9 of either process. If it dies, another begins the order
    again: the same weights and the same order give the same episodes.
    """

    spec: EnvSpec

    def __init__(self, settings: Settings, device: torch.device) -> None:
        """Start the process, and wait for its environments.

        Raises:
            PlanetError: they do not start.
        """
        self._settings = settings
        self._device = device
        self._order: Message | None = None
        self.weights: dict[str, Tensor] = {}  # that plan what is under way
        self._child = _Child(settings, device)
        self.spec = self._started()

    def __enter__(self) -> Self:
        """Return the collector."""
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; a busy one is killed."""
        self._child.end(0.0 if self._order else _CLOSING)

    @property
    def pid(self) -> int:
        """The number of the process that plays."""
        return self._child.pid

    def begin(self, order: Order, networks: Networks) -> None:
        """Take an order, which is played with the weights of this moment."""
        self.begin_with(order, networks.weights())

    def begin_with(self, order: Order, weights: dict[str, Tensor]) -> None:
        """Take an order, which is played with `weights`; see Networks.weights."""
        self.weights = weights
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        self._order = Message(asdict(order), safetensors.torch.save(contiguous))
        self._child.send(self._order)

    def finish(self, watch: Watch) -> Played:
        """Wait for the episodes of the order; see Collector."""
        assert self._order is not None
        done: dict[int, Episode] = {}
        starts = 1
        while True:
            reply = self._next(watch)
            if reply is None:
                self._begin_again(starts)
                starts += 1
            elif "done" in reply.header:
                break
            elif (index := reply.header["episode"]) not in done:
                done[index] = Episode.from_bytes(reply.body, Path(f"episode {index}"))
                watch.ended(index, done[index])
        result = reply.header["done"]
        self._order = None
        self.weights = {}
        return Played([done[index] for index in sorted(done)], result["lost"], result["seconds"])

    def _begin_again(self, starts: int) -> None:
        """Start another process, which plays the order from its beginning.

        Raises:
            PlanetError: so many have ended over it that it is no accident.
        """
        assert self._order is not None
        ending = self._child.end(_CLOSING)
        if starts == _MOST_STARTS:
            raise PlanetError(
                f"the process that collects ended {starts} times in a row, at last with {ending}; "
                "free memory, or set train.staleness=0"
            )
        _log.warning("the process that collects ended (%s): its episodes are begun again", ending)
        self._child = _Child(self._settings, self._device)
        self._started()
        self._child.send(self._order)

    def _started(self) -> EnvSpec:
        """Wait until the process has its environments."""
        try:
            reply = self._child.replies.get()
            if reply is None:
                raise PlanetError(
                    f"the process that collects ended as it began: {self._child.end(_CLOSING)}"
                )
            _check(reply)
        except BaseException:
            self._child.end(0.0)
            raise
        return EnvSpec.from_json(reply.header["spec"])

    def _next(self, watch: Watch) -> Message | None:
        """Return the next reply; None if the process has died."""
        while True:
            watch.tick()
            try:
                reply = self._child.replies.get(timeout=_TICK)
            except queue.Empty:
                continue
            if reply is not None:
                _check(reply)
            return reply


class _Child:
    """The process, and a thread that reads what it sends: it never waits for us."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        hold_standard()
        self.replies: queue.Queue[Message | None] = queue.Queue()  # None: the process has ended
        replies, answers = os.pipe()
        life, self._life = os.pipe()  # nothing is written: the child notices when it closes
        self._process = subprocess.Popen(
            [
                sys.executable, "-u", "-P", "-m", "planet_rssm.training.collector_worker",
                str(answers), str(life),
            ],
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=2,  # whatever a library prints
            pass_fds=(answers, life),
            start_new_session=True,  # Ctrl-C reaches this process alone
            env=environment(settings.env),
        )  # fmt: skip
        os.close(answers)
        os.close(life)
        self.pid = self._process.pid
        threading.Thread(target=self._read, args=(os.fdopen(replies, "rb"),), daemon=True).start()
        self.send(Message({"device": str(device)}, settings.model_dump_json().encode()))

    def send(self, message: Message) -> None:
        """Send a message; that the process is dead is noticed where its replies are read."""
        assert self._process.stdin is not None  # for the type checker
        try:
            write_message(self._process.stdin.fileno(), message)
        except BrokenPipeError:
            pass

    def end(self, patience: float) -> str:
        """Have the process close its environments and end, or kill it; return how it ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _read(self, replies: BinaryIO) -> None:
        with replies:
            while message := read_message(replies):
                if "log" in message.header:
                    level, line = message.header["log"]
                    _log.log(level, "%s", line)
                else:
                    self.replies.put(message)
        self.replies.put(None)


def _check(reply: Message) -> None:
    """Raise what the process could not do."""
    if "error" in reply.header:
        raise PlanetError(reply.header["error"])
