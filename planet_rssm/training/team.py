"""The processes that torchrun starts, which learn from one batch together.

The first, the leader, is the run: it collects, samples, writes and commits, as one process does.
The others have no files. They get the leader's checkpoint once, then of every batch their rows, and
take the same steps:

    leader    batch [B] --rows--> every rank: loss of its rows --gradients--> sum --> the same step

Only tensors and JSON are exchanged, no pickle.
"""

import contextlib
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # its functions keep the default group there is by then
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.base.torchrun import LEADER
from planet_rssm.ranks import sharing

# The others wait while the leader collects, for hours: a dead process is noticed by its connection.
PATIENCE = timedelta(days=365)
BACKEND = "cpu:gloo,cuda:nccl"
END = -1  # in place of the number of an update
_LOST = ("gloo", "Gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "store")


class Team:
    """This process and the others; every method is called by all of them, in the same order.

    Raises:
        PlanetError: by any method, another process has ended.
    """

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.batch_size = 0
        self.rows = range(0)
        self.lost = False  # whether another process has ended before its time
        self._shapes: list[tuple[tuple[int, ...], np.dtype]] = []

    @classmethod
    @contextlib.contextmanager
    def joined(cls) -> Iterator[Self]:
        """Join the processes that torchrun has started, which waits for all of them.

        When the leader leaves in peace, so do the others.
        """
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        with _saying_who_is_lost():
            dist.init_process_group(BACKEND if cuda else "gloo", timeout=PATIENCE)
        team = cls()
        with team._unhurried():
            try:
                yield team
            except Interrupted:
                team._leave()
                raise
            team._leave()

    @contextlib.contextmanager
    def _unhurried(self) -> Iterator[None]:
        """Let no SIGTERM end this process once another is lost: it ends by itself, with a line.

        torchrun sends one as soon as any process has ended.
        """
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return

        def asked(number: int, frame: FrameType | None) -> None:
            if not self.lost:
                before(number, frame)

        signal.signal(signal.SIGTERM, asked)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _leave(self) -> None:
        if self.rank == LEADER:
            with contextlib.suppress(PlanetError):  # they have ended already
                self.end()
        dist.destroy_process_group()

    def end(self) -> None:
        """Say to the others that there is no other update."""
        self._announce(END)

    def share(self, data: bytes = b"") -> bytes:
        """Return the bytes that the leader gives."""
        with _saying_who_is_lost(self):
            size = torch.tensor(len(data))
            dist.broadcast(size, LEADER)
            shared = torch.empty(int(size), dtype=torch.uint8)
            if self.rank == LEADER:
                shared.numpy()[:] = np.frombuffer(data, np.uint8)
            dist.broadcast(shared, LEADER)
            return shared.numpy().tobytes()

    def begin(self, batch_size: int, arrays: Sequence[np.ndarray]) -> None:
        """Divide batches of so many rows; `arrays` are as those of a batch, with any rows."""
        self.batch_size = batch_size
        self.rows = self._rows(self.rank)
        self._shapes = [(array.shape[1:], array.dtype) for array in arrays]

    def wrapped(
        self, loss: Callable[..., Any], parts: Mapping[str, nn.Module], *, changing: bool
    ) -> Callable[..., Any]:
        """Return the function `loss`, after which all processes' gradients become their mean.

        Args:
            loss: computes what has gradients to the parameters of `parts`.
            parts: the modules that it uses, by name.
            changing: other parameters may be without a gradient in each update.
        """
        with _saying_who_is_lost(self), warnings.catch_warnings():
            # a newer name for the first option, which older versions of PyTorch do not know
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                _Function(loss, parts),
                # Its group's threads end with it, those of ours when the run leaves. A thread that
                # releases a tensor of Python's while Python ends aborts the process.
                process_group=dist.new_group(timeout=PATIENCE),
                broadcast_buffers=False,  # they follow from the steps
                static_graph=not changing,
                find_unused_parameters=changing,
            )

    def next(self) -> int | None:
        """Return the number of the update that the leader begins; None at the end."""
        number = self._announce(0)
        return None if number == END else number

    def own_rows(self, arrays: Sequence[np.ndarray], index: int) -> list[np.ndarray]:
        """Return this process's rows of a batch.

        The leader has it complete and announces update number `index`; the others give nothing and
        have heard of it by `next`.
        """
        with _saying_who_is_lost(self):
            if self.rank == LEADER:
                self._announce(index)
                for rank in range(self.count):
                    if rank != LEADER:
                        dist.send(_together(arrays, self._rows(rank)), rank)
                return [array[self.rows.start : self.rows.stop] for array in arrays]
            sizes = [
                len(self.rows) * math.prod(shape) * dtype.itemsize for shape, dtype in self._shapes
            ]
            received = torch.empty(sum(sizes), dtype=torch.uint8)
            dist.recv(received, LEADER)
        parts = received.split(sizes)
        return [
            # copied: not every type may begin at any byte
            np.frombuffer(part.numpy().tobytes(), dtype).reshape(len(self.rows), *shape).copy()
            for part, (shape, dtype) in zip(parts, self._shapes, strict=True)
        ]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Compute a loss and its gradient inside: the shares of all processes add up."""
        with _saying_who_is_lost(self), sharing(self.count):
            yield

    def summed(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of the complete batch, of each process's shares."""
        values = torch.stack([value.float() for value in metrics.values()])
        dist.all_reduce(values)
        return dict(zip(metrics, values.unbind(), strict=True))

    def _announce(self, number: int) -> int:
        shared = torch.tensor(number)
        with _saying_who_is_lost(self):
            dist.broadcast(shared, LEADER)
        return int(shared)

    def _rows(self, rank: int) -> range:
        return range(
            rank * self.batch_size // self.count, (rank + 1) * self.batch_size // self.count
        )


class _Function(nn.Module):
    """A function as the module that DistributedDataParallel wraps."""

    def __init__(self, function: Callable[..., Any], parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(dict(parts))

    def forward(self, *arguments: Any) -> Any:  # noqa: ANN401
        return self.function(*arguments)


@contextlib.contextmanager
def _saying_who_is_lost(team: Team | None = None) -> Iterator[None]:
    """Turn what torch.distributed raises when a process is gone into one line."""
    try:
        yield
    except (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError) as error:
        raise _lost(team) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in _LOST):
            raise
        raise _lost(team) from error


def _lost(team: Team | None) -> PlanetError:
    if team is not None:
        team.lost = True
    return PlanetError(
        "another process of this run has ended, so no update can be made; what was committed is "
        "kept: start torchrun again with --resume"
    )


def _together(arrays: Sequence[np.ndarray], rows: range) -> Tensor:
    parts = [np.ascontiguousarray(array[rows.start : rows.stop]) for array in arrays]
    return torch.from_numpy(np.concatenate([part.reshape(-1).view(np.uint8) for part in parts]))
