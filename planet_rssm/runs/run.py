"""A run folder: its settings, its surroundings, its metrics.

    config.yaml    resolved settings          checkpoints/   see checkpoint.py
    run.json       versions and machine       episodes/      see data/replay.py
    metrics.jsonl  one line a measurement     videos/        what `planet plan --video` filmed

A checkpoint alone is enough to act (agent.py); the folder is what a run needs to go on.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planet_rssm import config
from planet_rssm.base.device import processor
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import claim, read_regular, write_atomic
from planet_rssm.base.trust import own
from planet_rssm.config import FORMAT, Settings
from planet_rssm.data import manifest
from planet_rssm.data.replay import EPISODES
from planet_rssm.envs import gl
from planet_rssm.envs.registry import GL_BACKENDS, canonical_id
from planet_rssm.runs import checkpoint

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
    "train.env_steps",
    "train.keep",
    "train.test_every",
    "train.test_episodes",
    "train.offline_updates",
}
LARGEST = 1e300  # of a measurement: beyond it no axis can be drawn
PACKAGES = ("planet_rssm", "torch", "numpy", "mujoco", "dm-control", "gymnasium")


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
        run = cls(folder, settings)
        own(config.imported(settings))  # whoever begins a run has named its code
        try:
            run.check_new()  # also before a lock is left in somebody else's folder
            record = json.dumps(surroundings(settings, device), indent=1).encode()
            folder.mkdir(parents=True, exist_ok=True)
            with run.lock():  # of two that begin together only the first writes
                run.check_new()
                _clear(folder)
                (folder / checkpoint.FOLDER).mkdir(exist_ok=True)
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
        for pattern in (CONFIG, f"{checkpoint.FOLDER}/*", f"{EPISODES}/*"):
            if existing := next(self.folder.glob(pattern), None):
                raise PlanetError(
                    f"run folder {self.folder}: already a run, it holds "
                    f"{existing.relative_to(self.folder)}; add --resume to go on, or give another "
                    "--run-dir"
                )

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
                begin = "" if settings is None else ", or leave --resume out to begin one"
                raise PlanetError(
                    f"{folder}: not a run folder (no {CONFIG}); "
                    f"give the --run-dir of a `planet train`{begin}"
                )
            saved = config.load(path)
            _check_format(folder / RECORD)
            settings = saved if settings is None else _as_resolved(settings, saved)
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

    def is_uncommitted(self) -> bool:
        """Return whether a run began in this folder and ended before it committed anything."""
        begun = (self.folder / CONFIG).exists() and bool(_record(self.folder))
        return (
            begun
            and not any((self.folder / checkpoint.FOLDER).glob("[!.]*"))
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


def _clear(folder: Path) -> None:
    """Delete what a run that committed nothing has left: it may be of other settings."""
    _refuse_links(folder)
    for path in (
        *(folder / EPISODES).glob("*.safetensors*"),
        folder / EPISODES / manifest.NAME,
        folder / METRICS,
    ):
        path.unlink(missing_ok=True)


def _record(folder: Path) -> dict[str, Any]:
    """Return what run.json holds; nothing where it is missing or damaged."""
    try:
        value = json.loads(read_regular(folder / RECORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_links(folder: Path) -> None:
    """Refuse a run whose files are links: what it writes or deletes would be somewhere else."""
    for name in (LOCK, METRICS, EVENTS, checkpoint.FOLDER, EPISODES):
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


def _as_resolved(settings: Settings, saved: Settings) -> Settings:
    """Return `settings` with the names and choices that were resolved when the run was made."""
    env = settings.env
    resolved = {
        "id": canonical_id(env.id),
        "renderer": saved.env.renderer if env.renderer == "auto" else env.renderer,
        "action_repeat": env.action_repeat or saved.env.action_repeat,
    }
    train = settings.train
    if train.precision == "auto":
        train = train.model_copy(update={"precision": saved.train.precision})
    return settings.model_copy(update={"env": env.model_copy(update=resolved), "train": train})


def _unwritable(folder: Path, error: OSError) -> PlanetError:
    return PlanetError(
        f"run folder {folder}: cannot be written ({error.strerror}); give another --run-dir"
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
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


def _measurement(line: str) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict) or not isinstance(value.get("phase"), str):
        raise ValueError
    numbers = [value.get(key, 0) for key in ("env_steps", "return", "format")]
    if any(not isinstance(number, int | float) or abs(number) > LARGEST for number in numbers):
        raise ValueError
    return value


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on, by package."""
    return {name: _version(name) for name in PACKAGES}


def surroundings(settings: Settings, device: str) -> dict[str, Any]:
    """Return what a reader needs to judge a run's numbers: versions, code, machine."""
    return {
        "format": FORMAT,
        "versions": versions() | {"python": platform.python_version()},
        "commit": _commit(),
        "device": device,
        "renderer": {"backend": settings.env.renderer, "gl": _gl_renderer(settings)},
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "processor": processor(),
        },
    }


def _gl_renderer(settings: Settings) -> str | None:
    """Return GL's own name, which shows hardware or software; None where no GL is used here."""
    backend = settings.env.renderer
    offline = settings.data.folder is not None
    return gl.probe(backend).renderer if backend in GL_BACKENDS and not offline else None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """Return the checkout's commit, or None where the package is not in a checkout."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
