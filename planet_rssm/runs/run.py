"""A run folder: its settings, its surroundings, its metrics.

    config.yaml    resolved settings          checkpoints/   see checkpoint.py
    run.json       versions and machine       episodes/      see data/episode_folder.py
    metrics.jsonl  one line a measurement     videos/        what `planet plan --video` filmed

A checkpoint alone is enough to act (agent.py); the folder is what a run needs to go on.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import (
    IrregularFileError,
    check_regular,
    claim,
    read_regular,
    write_atomic,
)
from planet_rssm.base.json_types import Json
from planet_rssm.base.trust import own
from planet_rssm.config import FORMAT, Settings
from planet_rssm.data import manifest
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.envs.registry import canonical_id
from planet_rssm.runs import location

CONFIG = "config.yaml"
RECORD = "run.json"
METRICS = "metrics.jsonl"
VIDEOS = "videos"
LOCK = ".lock"
EVENTS = "tensorboard"
COMMITTED = "committed"  # key of the record: there was a checkpoint once
MOST_METRICS = 1 << 32  # bytes that are read of metrics.jsonl
# What a resumed run may change: nothing that decides what was already learned or is measured.
RESUMABLE = {
    "device",
    "env.step_timeout",
    "train.collect_threads",
    "train.env_steps",
    "train.fast",
    "train.keep",
    "train.trackers",
    "train.test_every",
    "train.test_episodes",
    "train.threads",
    "train.offline_updates",
}
LARGEST = 1e300  # of a measurement: beyond it no axis can be drawn


class Run:
    """A run folder that exists, with its settings."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def create(cls, folder: Path, settings: Settings, device: str) -> "Run":
        """Make a new run folder with resolved settings and a record of the machine.

        A folder in which a run began and committed nothing is begun anew.

        Raises:
            PlanetError: the folder already holds a run, or it cannot be written.
        """
        from planet_rssm.runs.surroundings import surroundings  # torch: not to look into a folder

        run = cls(folder, settings)
        own(config.imported(settings))  # whoever begins a run has named its code
        try:
            run.check_new()  # also before a lock is left in somebody else's folder
            record = json.dumps(surroundings(settings, device), indent=1).encode()
            folder.mkdir(parents=True, exist_ok=True)
            with run.lock():  # of two that begin together only the first writes
                run.check_new()
                _clear(folder)
                (folder / location.FOLDER).mkdir(exist_ok=True)
                write_atomic(folder / RECORD, [record])
                config.save(settings, folder / CONFIG)
        except OSError as error:
            raise _unwritable(folder, error) from None
        return run

    def check_new(self) -> None:
        """Refuse a folder in which no run can begin.

        Raises:
            PlanetError: a run has committed something in it, or it holds episodes or checkpoints.
        """
        if self.is_uncommitted():
            return
        if (self.folder / CONFIG).exists():
            raise PlanetError(
                f"run folder {self.folder}: already a run, it holds {CONFIG}; add --resume to go "
                "on, or give another --run-dir"
            )
        if left := _left_of_a_run(self.folder):
            raise PlanetError(_without_settings(self.folder, left))

    def check_files(self) -> None:
        """Refuse a run of which a file that is read or written is no regular file.

        Raises:
            PlanetError: one is a FIFO, a folder, a socket or a device.
        """
        newest = location.numbered(self.folder)[-1:]
        for path in (*(self.folder / name for name in (CONFIG, RECORD, METRICS)), *newest):
            try:
                check_regular(path)
            except IrregularFileError as error:
                raise PlanetError(
                    f"{path}: {error.strerror}; take it away and put the run's own file there, "
                    "or give a copy of the run"
                ) from None

    @classmethod
    def open(cls, folder: Path, settings: Settings | None = None) -> "Run":
        """Open a run folder to go on with it, as it is or with `settings`, which are kept.

        Raises:
            PlanetError: it is no run folder, is in use or of a newer format, cannot be written, or
                `settings` differ in more than RESUMABLE.
        """
        path = folder / CONFIG
        if settings is not None:
            own(config.imported(settings))
        try:
            if not path.is_file():
                if left := _left_of_a_run(folder):
                    raise PlanetError(_without_settings(folder, left))
                begin = "" if settings is None else "; without --resume one begins there"
                raise PlanetError(f"{location.no_run(folder, f'no {CONFIG}')}{begin}")
            saved = config.load(path)
            _check_format(folder / RECORD)
            settings = saved if settings is None else as_resolved(settings, saved)
            if key := decided_otherwise(saved, settings):
                before, after = config.flatten(saved)[key], config.flatten(settings)[key]
                raise PlanetError(
                    f"{key} = {after}: the run in {folder} has {before}; a resumed run may change "
                    f"only {', '.join(sorted(RESUMABLE))}; as it was: planet train {path} --resume "
                    f"--run-dir {folder}; to have {after}: another --run-dir, without --resume"
                )
            if not os.access(folder, os.W_OK):
                raise PlanetError(
                    f"run folder {folder}: cannot be written; change its permissions or copy it"
                )
            if saved != settings:
                with cls(folder, saved).lock():  # not under the hands of a process that trains
                    config.save(settings, path)
        except OSError as error:
            raise _unwritable(folder, error) from None
        return cls(folder, settings)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing this run; the lock ends with the process.

        Raises:
            PlanetError: another process has it.
        """
        _refuse_links(self.folder)
        path = self.folder / LOCK
        os.close(
            os.open(
                path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
            )
        )
        taken = f"run folder {self.folder}: another process is training in it; wait or stop it"
        with claim(path, taken):
            yield

    def check_still_own(self) -> None:
        """Refuse a folder in which another process has begun a run since this one was made.

        Raises:
            PlanetError: the settings there are others.
        """
        path = self.folder / CONFIG
        if path.exists() and (key := decided_otherwise(config.load(path), self.settings)):
            raise PlanetError(
                f"run folder {self.folder}: another process has begun a run there, with another "
                f"{key}; give another --run-dir"
            )

    def is_uncommitted(self) -> bool:
        """Return whether a run began in this folder and ended before it committed anything."""
        begun = (self.folder / CONFIG).exists() and bool(_record(self.folder))
        return (
            begun
            and not any((self.folder / location.FOLDER).glob("[!.]*"))
            and not self.was_committed()
        )

    def was_committed(self) -> bool:
        """Return whether a checkpoint was ever written in this folder, by its other files."""
        if _record(self.folder).get(COMMITTED):
            return True
        try:
            # of a run that is older than that record: a second round begins after the first commit
            lines = read_regular(self.folder / METRICS, MOST_METRICS).splitlines()
        except OSError:
            return False
        return any(
            sum(phase in line for line in lines) > 1
            for phase in (b'"phase": "collect"', b'"phase": "train"')
        )

    def mark_committed(self) -> None:
        """Record that there is a checkpoint; a record that cannot be read stays as it is."""
        if (record := _record(self.folder)) and not record.get(COMMITTED):
            write_atomic(
                self.folder / RECORD, [json.dumps({**record, COMMITTED: True}, indent=1).encode()]
            )


def _left_of_a_run(folder: Path) -> Path | None:
    """Return a checkpoint or an episode that is in a folder, by its name there; None without."""
    for pattern in (f"{location.FOLDER}/*", f"{EPISODES}/*"):
        if existing := next(folder.glob(pattern), None):
            return existing.relative_to(folder)
    return None


def _without_settings(folder: Path, left: Path) -> str:
    return (
        f"run folder {folder}: holds {left} but no {CONFIG}, so nothing can begin in it and "
        f"nothing can go on; bring {CONFIG} back, or give another --run-dir"
    )


def _clear(folder: Path) -> None:
    """Delete what a run that committed nothing has left: it may be of other settings."""
    _refuse_links(folder)
    for path in (
        *(folder / EPISODES).glob("*.safetensors*"),
        folder / EPISODES / manifest.NAME,
        folder / METRICS,
    ):
        path.unlink(missing_ok=True)


def _record(folder: Path) -> Json:
    """Return what run.json holds; nothing where it is missing or damaged."""
    try:
        value = json.loads(read_regular(folder / RECORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_links(folder: Path) -> None:
    """Refuse a run whose files are links: what it writes or deletes would be somewhere else."""
    for name in (LOCK, METRICS, EVENTS, location.FOLDER, EPISODES):
        if (path := folder / name).is_symlink():
            raise PlanetError(
                f"run folder {folder}: {name} is a link, to {os.readlink(path)}; a run changes "
                "only files in its own folder: put the real one there, or link to the run folder"
            )


def decided_otherwise(before: Settings, after: Settings) -> str | None:
    """Return a setting that differs and is not RESUMABLE; None if there is none."""
    old, new = config.flatten(before), config.flatten(after)
    return next((key for key in new if new[key] != old[key] and key not in RESUMABLE), None)


def _check_format(path: Path) -> None:
    """Refuse a record of a newer format; one that is missing or damaged stands in nobody's way."""
    newer = _record(path.parent).get("format")
    if isinstance(newer, int) and newer > FORMAT:
        raise PlanetError(
            f"{path}: of a newer format, this version reads up to {FORMAT}; upgrade planet_rssm"
        )


def as_resolved(settings: Settings, saved: Settings) -> Settings:
    """Return `settings` with the names and choices that were resolved when the run was made."""
    env = settings.env
    resolved = {
        "id": canonical_id(env.id),
        "renderer": saved.env.renderer if env.renderer == "auto" else env.renderer,
        "action_repeat": env.action_repeat or saved.env.action_repeat,
    }
    chosen = {
        name: getattr(saved.train, name)
        for name in ("precision", "threads", "collect_threads")
        if getattr(settings.train, name) == "auto"
    }
    changed = {
        "env": env.model_copy(update=resolved),
        "train": settings.train.model_copy(update=chosen),
    }
    return settings.model_copy(update=changed)


def _unwritable(folder: Path, error: OSError) -> PlanetError:
    return PlanetError(
        f"run folder {folder}: cannot be written ({error.strerror}); give another --run-dir"
    )


def read_metrics(run: Path) -> list[Json]:
    """Return the lines of a run's metrics; a last line that is half written is skipped.

    Raises:
        PlanetError: there is no such file, it is of a newer format, or a line before the last is
            damaged.
    """
    path = run / METRICS
    try:
        lines = read_regular(path, MOST_METRICS).decode(errors="replace").splitlines()
    except OSError as error:
        raise PlanetError(
            f"{path}: not readable ({error.strerror}); give the folder of a run"
        ) from None
    measured = []
    for number, line in enumerate(lines, 1):
        try:
            measured.append(_measurement(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                what = f"line {number} is not a measurement"
                raise PlanetError(f"{path}: {what}; restore the file or delete the line") from None
    if measured and (newer := measured[-1].get("format", FORMAT)) > FORMAT:
        raise PlanetError(
            f"{path}: format {newer}, this version reads up to {FORMAT}; upgrade planet_rssm"
        )
    return measured


def _measurement(line: str) -> Json:
    value = json.loads(line)
    if not isinstance(value, dict) or not isinstance(value.get("phase"), str):
        raise ValueError
    numbers = [value.get(key, 0) for key in ("env_steps", "return", "format")]
    if any(not isinstance(number, int | float) or abs(number) > LARGEST for number in numbers):
        raise ValueError
    return value
