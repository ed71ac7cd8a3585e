"""Plays a run's episodes beside the process that learns.

`python -m planet_rssm.training.collector_worker` is started by `collector_process`. Orders with the
weights to plan with come on standard input. Each episode goes back as it ends, on a pipe, and then
what the order took. At the end of standard input the environments are closed. When the parent dies
this process is killed, and its environments with it.
"""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import BinaryIO

import safetensors.torch
import torch

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.malloc import keep_memory
from planet_rssm.base.messages import Message, read_message, write_message
from planet_rssm.base.parent import die_with_parent, own_commands
from planet_rssm.base.seeding import Stream
from planet_rssm.base.stopwatch import Stages
from planet_rssm.base.text import one_line
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import Settings
from planet_rssm.data.episode import Episode
from planet_rssm.envs.pool import EnvPool
from planet_rssm.training.collector import Networks, Order, Watch
from planet_rssm.training.local_collector import LocalCollector
from planet_rssm.world_model import untrained_model


class _Log(logging.Handler):
    """Sends the parent what is logged."""

    def __init__(self, replies: int) -> None:
        super().__init__()
        self._replies = replies

    def emit(self, record: logging.LogRecord) -> None:
        write_message(self._replies, Message({"log": [record.levelno, record.getMessage()]}))


def main() -> None:
    """Serve one run.

    Arguments are descriptors: of the replies, and of a pipe whose other end only the parent has.
    The first message has the settings and the device.
    """
    replies, life = (int(number) for number in sys.argv[1:])
    for descriptor in (replies, life):  # not for the environments
        os.set_inheritable(descriptor, False)
    die_with_parent(life)
    commands = os.fdopen(own_commands(), "rb")
    keep_memory()
    log = logging.getLogger("planet_rssm")
    log.addHandler(_Log(replies))
    log.setLevel(logging.INFO)
    try:
        first = read_message(commands)
        if first is not None:
            settings = Settings.model_validate_json(first.body)
            _serve(settings, torch.device(first.header["device"]), commands, replies)
    except BrokenPipeError:  # the parent died meanwhile
        os._exit(0)
    except Exception as error:
        write_message(replies, Message({"error": line_of(error)}))


class Worker:
    """Environments and a copy of the agent, which play the orders of another process."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        """Start the environments.

        Raises:
            PlanetError: they do not start.
        """
        self._device = device
        self._pool = EnvPool(settings.env, settings.train.envs)
        self.spec = self._pool.spec
        model = untrained_model(settings, self.spec).to(device)
        self._networks = Networks(model, untrained_behavior(settings, model))
        self._collector = LocalCollector(settings, device, self._pool, Stages())

    def play(self, order: Json, weights: bytes, ended: Callable[[int, Episode], object]) -> Json:
        """Play an order, a dictionary of its fields, and return what it took.

        `weights` are `Networks.weights` as safetensors. `ended` is called with each episode.

        Raises:
            PlanetError: see Collector.
        """
        wanted = Order(**{**order, "stream": Stream(order["stream"])})
        self._networks.load_weights(safetensors.torch.load(weights), "order")
        if self._device.type == "cpu":
            torch.set_num_threads(wanted.threads)
        self._collector.stages = Stages()
        self._collector.begin(wanted, self._networks)
        played = self._collector.finish(Watch(tick=lambda: None, ended=ended))
        return {"lost": played.lost, "seconds": self._collector.stages.seconds}

    def close(self) -> None:
        """Close the environments."""
        self._pool.close()


def line_of(error: Exception) -> str:
    """Return the line that says what ended a worker; the traceback of a surprise is printed."""
    if isinstance(error, PlanetError):
        return str(error)
    traceback.print_exception(error)  # code of the user's, say: another process would fail alike
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    line = one_line(f"{type(error).__name__}: {error}")
    return f"the process that collects: {line} ({where})"


def _serve(settings: Settings, device: torch.device, commands: BinaryIO, replies: int) -> None:
    def send(index: int, episode: Episode) -> None:
        write_message(replies, Message({"episode": index}, episode.to_bytes()))

    with contextlib.closing(Worker(settings, device)) as worker:
        write_message(replies, Message({"spec": worker.spec.to_json()}))
        while message := read_message(commands):
            done = worker.play(message.header, message.body, send)
            write_message(replies, Message({"done": done}))


if __name__ == "__main__":
    main()
