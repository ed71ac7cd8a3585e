"""Episodes in a folder, sampled as chunks straight from their files.

    NNNNNN.safetensors            one episode each, NNNNNN its index in the run
    manifest.json                 the episodes that were committed, oldest first
    NNNNNN.safetensors.damaged    set aside, skipped, left for a person to look at

What is sampled follows from the episodes and the capacity alone: the newest that fit. A run commits
in the order episodes, manifest, checkpoint; until the checkpoint is there it may go back to the one
before, and sample again what that one had. Therefore an episode that no longer fits keeps its file
for one more commit, and `truncate` gives back exactly the episodes that the checkpoint knew.

Opening the folder checks the headers of all files, which takes milliseconds. Every byte of a file
is checked before the first chunk is read from it: nothing is learned from a damaged episode.

Only `add`, `commit` and `truncate` write, so a run's replay may be opened by others while it
trains; opening and sampling only set damaged files aside.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import remove_stale, write_atomic
from planet_rssm.config import FirstAction
from planet_rssm.data import manifest
from planet_rssm.data.episode import Episode
from planet_rssm.data.header import (
    DTYPES,
    PREFIX,
    DamagedFileError,
    check_bytes,
    open_file,
    parse_header,
    read_header,
)
from planet_rssm.data.manifest import Entry, Part

Array = np.ndarray
T = TypeVar("T")
EPISODES = "episodes"  # the folder of a run that holds its replay
_log = logging.getLogger("planet_rssm")
_EPISODE_FILE = re.compile(r"(\d{6,})\.safetensors")
_SAMPLED = ("action", "reward", "is_first", "is_terminal")


class Chunks(NamedTuple):
    """B pieces of episodes, L frames each, aligned as in data/episode.py.

    Every piece begins a fresh sequence.
    """

    observation: dict[str, Array]  # [B, L, ...] uint8 images and float32 vectors
    action: Array  # [B, L, A] float32, zeros at frame 0 unless it is kept
    reward: Array  # [B, L] float32, at frame 0 too the one that came with the image
    is_first: Array  # [B, L] bool, set at frame 0 unless its action is kept
    is_terminal: Array  # [B, L] bool
    mask: Array  # [B, L] bool, False where the episode was over: everything is zero there

    def select_observations(self, keys: Iterable[str]) -> "Chunks":
        """Return the same chunks with the observations named `keys` alone."""
        return self._replace(observation={key: self.observation[key] for key in keys})


# Earlier versions took an environment's render_fps for its rate; nothing that is learned depends on
# it.
_OF_TIME = {"env.control_interval", "env.interval_from", "env.limit_from"}


class Replay:
    """The episodes of one environment in `folder`.

    The newest are sampled, as many as have `capacity` frames together.

    Raises:
        PlanetError: the episodes differ in environment, renderer, size or simulator, or have a
            newer format.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        """Open `folder`, which need not exist yet, and check its files against the manifest."""
        self.folder = Path(folder)
        self.capacity = capacity
        self._identity: dict[str, Any] | None = None
        self._entries: dict[int, Entry] = {}  # by index, all that have a file to keep
        self._live: list[Entry] = []  # those that are sampled
        self._frames = np.zeros(0, np.int64)  # of the live ones
        self._needed = 0  # index of the first episode that the last checkpoint samples
        self._unwanted: set[Path] = set()  # files to delete once the manifest no longer names them
        self._intact: set[int] = set()  # indices of those whose every byte was checked
        self._damaged = 0
        self.parts: list[Part] = []  # of a set, see data/episode_set.py
        # damaged files, and why, while the folder is opened; None afterwards
        self._wrong: list[tuple[Path, str]] | None = []
        self._foreign = False  # whether the folder's manifest.json is somebody else's
        self._open()

    def __len__(self) -> int:
        """Episodes that are sampled."""
        return len(self._live)

    @property
    def episodes(self) -> tuple[Entry, ...]:
        """What is known of the episodes that are sampled, by index."""
        return tuple(self._live)

    @property
    def frames(self) -> int:
        """Frames that are sampled."""
        return int(self._frames.sum())

    @property
    def env(self) -> dict[str, Any] | None:
        """The `EnvSpec`, as JSON, that all episodes share; None before there is one."""
        if self._identity is None:
            return None
        return {
            key.removeprefix("env."): value
            for key, value in self._identity.items()
            if key.startswith("env.")
        }

    def add(self, episode: Episode, index: int) -> None:
        """Write an episode, which is sampled from now on; it is kept for good by the next `commit`.

        Raises:
            PlanetError: the index is taken, or the episode differs in environment, renderer, size
                or simulator.
        """
        if index in self._entries:
            raise PlanetError(
                f"episode {index}: {self.folder} has one already; "
                "take another index or truncate first"
            )
        self._refuse_foreign()
        path = self.folder / f"{index:06d}.safetensors"
        data = episode.to_bytes()
        header = parse_header(path, data, len(data))
        self._admit(path, manifest.identity(header))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [data])
        self._unwanted.discard(path)
        self._intact.add(index)
        self._keep([*self._entries.values(), manifest.entry(index, path.name, header)])

    def commit(self) -> None:
        """Write the manifest; the caller's checkpoint follows.

        Files that neither it nor the checkpoint before samples are deleted.
        """
        live = {entry.index for entry in self._live}  # among them an early one that was added late
        self._forget(
            [
                entry
                for index, entry in self._entries.items()
                if index < self._needed and index not in live
            ]
        )
        self._write()

    def truncate(self, count: int) -> None:
        """Go back to a checkpoint that knows `count` episodes; delete those from that index on."""
        self._forget([entry for entry in self._entries.values() if entry.index >= count])
        self._write()

    def take_damaged(self) -> int:
        """Return how many episodes turned out damaged or missing since the last call."""
        damaged, self._damaged = self._damaged, 0
        return damaged

    def padding(self, length: int) -> float:
        """Return the share of a batch of chunks of `length` frames that is expected to be padding.

        Raises:
            PlanetError: there is no episode.
        """
        self._check_filled()
        starts = self._starts(length)
        return float(starts @ np.maximum(length - self._frames, 0) / (starts.sum() * length))

    def sample(
        self,
        rng: np.random.Generator,
        batch_size: int,
        length: int,
        first_action: FirstAction = "zeros",
    ) -> Chunks:
        """Draw B chunks of L frames, uniformly over all starts at which a full chunk fits.

        An episode shorter than L counts as one start and is padded. The chunks follow from the
        state of `rng` and the episodes alone. With `first_action` kept, the action that led to a
        chunk's first frame stays, and `is_first` is set there only where an episode begins.

        Raises:
            PlanetError: there is no episode.
        """
        self._check_filled()
        out: dict[str, Array] = {}
        mask = np.zeros((batch_size, length), bool)
        for row, (entry, start) in enumerate(self._draw(rng, length, batch_size)):
            pieces = self._read_or_redraw(rng, entry, start, length)
            for name, piece in pieces.items():
                if name not in out:
                    out[name] = np.zeros((batch_size, length, *piece.shape[1:]), piece.dtype)
                out[name][row, : len(piece)] = piece
            mask[row, : len(piece)] = True
        if first_action == "zeros":
            out["action"][:, 0] = 0
            out["is_first"][:, 0] = True
        observation = {
            name.removeprefix(PREFIX): out.pop(name)
            for name in list(out)
            if name.startswith(PREFIX)
        }
        return Chunks(observation, **out, mask=mask)

    def _check_filled(self) -> None:
        if not self._live:
            raise PlanetError(f"replay {self.folder}: holds no episode; collect some first")

    def _starts(self, length: int) -> Array:
        """Return in how many places of each episode a chunk may start, int64 [episodes], or 1."""
        return np.maximum(self._frames - length + 1, 1)

    def _draw(self, rng: np.random.Generator, length: int, count: int) -> list[tuple[Entry, int]]:
        starts = self._starts(length)
        ends = np.cumsum(starts)
        picks = rng.integers(ends[-1], size=count)
        chosen = np.searchsorted(ends, picks, side="right")
        return [
            (self._live[i], int(pick - ends[i] + starts[i]))
            for i, pick in zip(chosen, picks, strict=True)
        ]

    def _read_or_redraw(
        self, rng: np.random.Generator, entry: Entry, start: int, length: int
    ) -> dict[str, Array]:
        while True:
            if entry.index in self._entries:  # another row may have dropped it as damaged
                try:
                    self._check_bytes(entry.index, self.folder / entry.file)
                    return _read_frames(
                        self.folder / entry.file, entry, start, min(length, entry.frames - start)
                    )
                except DamagedFileError as error:
                    self._set_aside(self.folder / entry.file, str(error))
                    self._keep([kept for kept in self._entries.values() if kept is not entry])
                    self._check_filled()
            [(entry, start)] = self._draw(rng, length, 1)

    def _check_bytes(self, index: int, path: Path) -> bool:
        """Return True, or raise DamagedFileError; the file is read once at most."""
        if index not in self._intact:
            check_bytes(path)
            self._intact.add(index)
        return True

    def _open(self) -> None:
        matches = [
            (_EPISODE_FILE.fullmatch(path.name), path) for path in self.folder.glob("*.safetensors")
        ]
        paths = {int(match[1]): path for match, path in matches if match}
        listed = self.folder / manifest.NAME
        named, self.parts = self._checked(lambda: manifest.load(listed), listed) or ({}, [])
        oldest = min(named, default=0)
        self._unwanted = {
            path for index, path in paths.items() if index < oldest
        }  # left by a killed commit
        present = {index: self.folder / entry.file for index, entry in named.items()}
        present.update({index: path for index, path in paths.items() if index >= oldest})
        entries = [
            self._open_episode(index, path, named.get(index))
            for index, path in sorted(present.items())
        ]
        self._keep([entry for entry in entries if entry is not None])
        self._needed = self._oldest()
        self._settle(listed)
        if unnamed := sorted(self._entries.keys() - named.keys()):
            span = f"{unnamed[0]} to {unnamed[-1]}"
            # Usual after a kill, and not yet decided: a trainer next truncates to what its
            # checkpoint knows.
            _log.debug(
                "%s: took in %d episodes that %s lacks (%s)",
                self.folder,
                len(unnamed),
                manifest.NAME,
                span,
            )

    def _settle(self, listed: Path) -> None:
        """Set damaged files aside, unless nothing shows that this is a folder of episodes."""
        wrong, self._wrong = self._wrong or [], None
        ours = bool(self._entries) or manifest.is_ours(listed)
        self._foreign = not ours and listed.exists()
        for path, reason in wrong:
            if ours:
                self._move_aside(path, reason)
            else:
                _log.warning("%s; left as it is", reason)

    def _refuse_foreign(self) -> None:
        if self._foreign:
            raise PlanetError(
                f"{self.folder}: its {manifest.NAME} is not that of episodes; give another folder"
            )

    def _open_episode(self, index: int, path: Path, named: Entry | None) -> Entry | None:
        header = self._checked(lambda: read_header(path), path)
        if header is None:
            return None
        entry = manifest.entry(index, path.name, header)
        if named is not None and named != entry:
            self._set_aside(path, f"episode {path}: not the file that {manifest.NAME} names")
            return None
        identity = manifest.identity(header)
        # A wrong byte in one header must not refuse all the others, nor in the first one's decide
        # over them.
        if identity != self._identity and not self._checked(
            lambda: self._check_bytes(index, path), path
        ):
            return None
        self._admit(path, identity)
        return entry

    def _checked(self, read: Callable[[], T], path: Path) -> T | None:
        try:
            return read()
        except DamagedFileError as error:
            self._set_aside(path, str(error))
            return None

    def _set_aside(self, path: Path, reason: str) -> None:
        self._damaged += path.name != manifest.NAME
        if self._wrong is not None:
            self._wrong.append((path, reason))
        else:
            self._move_aside(path, reason)

    def _move_aside(self, path: Path, reason: str) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        movable = path.exists() and os.access(self.folder, os.W_OK)
        _log.warning("%s; %s", reason, f"set aside as {aside.name}" if movable else "skipped")
        if movable:
            os.replace(path, aside)

    def _admit(self, path: Path, identity: dict[str, Any]) -> None:
        if self._identity is None:
            self._identity = identity
        for key in (identity.keys() | self._identity.keys()) - _OF_TIME:
            if identity.get(key) != self._identity.get(key):
                raise PlanetError(
                    f"episode {path}: {key} is {identity.get(key)!r}, the others of this replay "
                    f"have {self._identity.get(key)!r}; use another folder for it"
                )

    def _keep(self, entries: list[Entry]) -> None:
        """Take these episodes, in any order; sample the newest that fit, at least one."""
        entries = sorted(entries, key=lambda entry: entry.index)
        fitting = np.cumsum([entry.frames for entry in reversed(entries)]) <= self.capacity
        self._entries = {entry.index: entry for entry in entries}
        self._live = entries[-max(int(fitting.sum()), 1) :]
        self._frames = np.array([entry.frames for entry in self._live], np.int64)

    def _oldest(self) -> int:
        return self._live[0].index if self._live else 0

    def _forget(self, entries: list[Entry]) -> None:
        gone = {entry.index for entry in entries}
        self._intact -= gone
        self._unwanted.update(self.folder / entry.file for entry in entries)
        self._keep([entry for index, entry in self._entries.items() if index not in gone])

    def _write(self) -> None:
        self._refuse_foreign()
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder)
        manifest.write(self.folder / manifest.NAME, list(self._entries.values()), self.parts)
        for path in self._unwanted:
            path.unlink(missing_ok=True)
        self._unwanted = set()
        self._needed = self._oldest()


def _read_frames(path: Path, entry: Entry, start: int, count: int) -> dict[str, Array]:
    """Read `count` frames from frame `start` on.

    Nothing is mapped, so a file cut short is an error, not a SIGBUS.
    """
    descriptor = open_file(path)  # microseconds, so no descriptor is kept open between chunks
    try:
        pieces = {}
        for name, tensor in entry.tensors.items():
            if name in _SAMPLED or name.startswith(PREFIX):
                size = tensor.frame_bytes
                data = os.pread(descriptor, count * size, tensor.offset + start * size)
                if len(data) != count * size:
                    raise DamagedFileError(
                        f"episode {path}: cut short, {name} ends before frame {start + count}"
                    )
                pieces[name] = np.frombuffer(data, DTYPES[tensor.dtype]).reshape(
                    count, *tensor.shape[1:]
                )
        return pieces
    finally:
        os.close(descriptor)
