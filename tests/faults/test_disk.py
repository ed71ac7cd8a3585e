"""A disk that fills at any moment, a limit of the system, a folder that may not be written."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planet_rssm.base import files
from planet_rssm.base.errors import PlanetError
from planet_rssm.training import metrics


class Disk:
    """Counts what a run asks of it; from the `full`-th request on there is no space left."""

    def __init__(self) -> None:
        self.requests, self.full = 0, 0

    def ask(self) -> None:
        self.requests += 1
        if self.full and self.requests >= self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk under the files of planet_rssm: all opens, writes, syncs and renames ask it."""
    disk, real = Disk(), {"fsync": os.fsync, "replace": os.replace}

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            try:
                disk.ask()
            except OSError:
                super().write(bytes(data)[: len(data) // 2])
                raise
            return super().write(data) or 0

    def opened(path: Path, mode: str, **options: Any) -> Any:
        if mode == "rb":
            return open(path, mode)
        disk.ask()
        return io.BufferedWriter(File(path, mode.replace("b", ""), **options))

    def asking(name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            disk.ask()
            real[name](*arguments)

        return call

    for module in (files, metrics):
        monkeypatch.setattr(module, "open", opened, raising=False)
    for name in real:
        monkeypatch.setattr(os, name, asking(name))
    return disk


def test_a_disk_that_fills_at_any_request_costs_nothing_that_was_committed(
    disk: Disk,
    train: Callable[..., None],
    same: Callable[[Path, Path], None],
    committed: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        metrics.importlib.util, "find_spec", lambda name: None
    )  # no TensorBoard: it has its own thread
    # two rounds, with tests after each, and the first checkpoint goes when the second is there
    short = ["train.env_steps=600", "train.test_every=1", "train.keep=1"]
    train(tmp_path / "peace", *short)
    total = disk.requests
    assert total > 40
    kept = set()
    for full in range(1, total + 1):
        disk.requests, disk.full = 0, full
        folder = tmp_path / str(full)
        with pytest.raises(
            PlanetError, match="No space left on device.*(--resume|--run-dir)"
        ) as caught:
            train(folder, *short)
        assert "\n" not in str(caught.value)
        disk.full = 0
        before = committed(folder)
        train(folder, *short)
        assert set(before) <= set(committed(folder))
        same(folder, tmp_path / "peace")
        kept.add(len(before))
    assert kept == {0, 1, 2}
