"""Episodes in a folder: which are there, which are intact, and what a commit keeps.

    NNNNNN.safetensors            one episode each, NNNNNN its index in the run
    manifest.json                 the episodes that were committed, oldest first
    NNNNNN.safetensors.damaged    set aside, skipped, left for a person to look at

Which episodes count follows from the folder and the capacity alone: the newest that fit. A run
commits in the order episodes, manifest, checkpoint; until the checkpoint is there it may go back to
the one before, and sample again what that one had. Therefore an episode that no longer fits keeps
its file for one more commit, and `truncate` gives back exactly the episodes that the checkpoint
knew.

Opening the folder checks the headers of all files, which takes milliseconds.

Only `add`, `commit` and `truncate` write, so a run's folder may be opened by others while it
trains; opening only sets damaged files aside.
"""

import contextlib
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import remove_stale, sync_folder
from planet_rssm.base.json_types import Json
from planet_rssm.data import manifest
from planet_rssm.data.episode import Episode
from planet_rssm.data.header import DamagedFileError, check_bytes, read_header
from planet_rssm.data.manifest import Entry, Part

Array = np.ndarray
T = TypeVar("T")
_WRITERS = 4  # episodes that are written at once: a disk syncs them together
EPISODES = "episodes"  # the folder of a run that holds its replay
_log = logging.getLogger("planet_rssm")
_EPISODE_FILE = re.compile(r"(\d{6,})\.safetensors")


# Earlier versions took an environment's render_fps for its rate; nothing that is learned depends on
# it.
_OF_TIME = {"env.control_interval", "env.interval_from", "env.limit_from"}


class EpisodeFolder:
    """The episodes of one environment in `folder`.

    Those that count are the newest, as many as have `capacity` frames together.

    Raises:
        PlanetError: the episodes differ in environment, renderer, size or simulator, or have a
            newer format.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        """Open `folder`, which need not exist yet, and check its files against the manifest."""
        self.folder = Path(folder)
        self.capacity = capacity
        self._identity: Json | None = None
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
        """Episodes that count."""
        return len(self._live)

    @property
    def episodes(self) -> tuple[Entry, ...]:
        """What is known of the episodes that count, by index."""
        return tuple(self._live)

    @property
    def frames(self) -> int:
        """Frames that count."""
        return int(self._frames.sum())

    @property
    def env(self) -> Json | None:
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
        entry = self._prepare(episode, index)
        episode.save(self.folder / entry.file)
        self._take_in([entry])

    @contextlib.contextmanager
    def adding(self) -> Iterator[Callable[[Episode, int], None]]:
        """Give what `add` is, for many: a few are written at once while the next one is made.

        What is given must not change until the context ends. Each has its name only once its bytes
        are on the disk. They are sampled, and their names are on the disk, when the context ends;
        `commit` follows. A disk that fails ends it.

        Raises:
            OSError: one could not be written; the others are there.
        """
        writing: deque[tuple[Future[None], Entry]] = deque()
        written: list[Entry] = []

        def finish(most: int) -> None:
            while len(writing) > most:
                done, entry = writing.popleft()
                done.result()
                written.append(entry)

        def add(episode: Episode, index: int) -> None:
            entry = self._prepare(episode, index)
            path = self.folder / entry.file
            writing.append((writers.submit(episode.save, path, sync_name=False), entry))
            finish(_WRITERS)

        with ThreadPoolExecutor(_WRITERS) as writers:
            try:
                yield add
                finish(0)
            finally:
                wait([done for done, _ in writing])
                written += [entry for done, entry in writing if done.exception() is None]
                if written:
                    self._take_in(written)
                    sync_folder(self.folder)

    def _prepare(self, episode: Episode, index: int) -> Entry:
        """Return an episode's entry, if it may be added."""
        if index in self._entries:
            raise PlanetError(
                f"episode {index}: {self.folder} has one already; "
                "take another index or truncate first"
            )
        self._refuse_foreign()
        path = self.folder / f"{index:06d}.safetensors"
        header = episode.header(path)
        self._admit(path, manifest.identity(header))
        self.folder.mkdir(parents=True, exist_ok=True)
        return manifest.entry(index, path.name, header)

    def _take_in(self, entries: Sequence[Entry]) -> None:
        """Sample episodes whose files were written."""
        self._unwanted -= {self.folder / entry.file for entry in entries}
        self._intact |= {entry.index for entry in entries}
        self._keep([*self._entries.values(), *entries])

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

    def _admit(self, path: Path, identity: Json) -> None:
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
