"""What a run folder says of itself; what cannot be read is named, and the rest is still there."""

import functools
import json
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.base.json_types import Json
from planet_rssm.base.trust import allowed
from planet_rssm.config import Settings
from planet_rssm.evaluation.results import describe_observation
from planet_rssm.report.watching import FRESH, goal_of, read_numbers
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, METRICS, RECORD
from planet_rssm.runs.surroundings import versions

OPEN = (None, "auto")  # values of a preset that a run fills in
OF_THE_MACHINE = ("seed", "device", "train.threads", "train.collect_threads", "train.trackers")


@dataclass
class RunFiles:
    """One run, as far as it can be read."""

    name: str  # as the user called it
    folder: Path
    outputs: Path  # where what is made of it lies: the folder, or runs/pretrained-NAME
    settings: Settings | None = None
    record: Json = field(default_factory=dict)  # run.json
    metrics: list[Json] = field(default_factory=list)
    written: float | None = None  # when the last line of metrics came, seconds since 1970
    checkpoint: int | None = None  # env_steps (offline: updates) of the last one
    missing: list[str] = field(default_factory=list)  # lines that say what is not there

    @property
    def word(self) -> str:
        """Its name as a word of a shell's command."""
        return shlex.quote(self.name)

    @property
    def task(self) -> str:
        """What it learns."""
        return "not known" if self.settings is None else self.settings.env.id

    @property
    def observation(self) -> str:
        """What it observes, in words."""
        return (
            "not known"
            if self.settings is None
            else describe_observation(self.settings.env.model_dump())
        )

    @property
    def seed(self) -> int | None:
        """The seed of its training."""
        return None if self.settings is None else self.settings.seed

    @property
    def axis(self) -> str:
        """The counter that grows as it learns: env_steps, or the updates of an offline run."""
        return "env_steps" if self.settings is None else goal_of(self.settings)[0]

    def of(self, phase: str) -> list[Json]:
        """Return the measurements of a phase: collect, train or test."""
        return [line for line in self.metrics if line["phase"] == phase]

    @property
    def last(self) -> Json:
        """The last measurement."""
        return self.metrics[-1] if self.metrics else {}

    def state(self) -> str:
        """Return in words whether it has ended."""
        if not self.metrics:
            return "nothing measured"
        if self.settings is None:
            return f"at {self.last.get('env_steps', 0)} env_steps"
        axis, goal = goal_of(self.settings)
        done = self.last.get(axis, 0)
        if done >= goal:
            return "finished"
        quiet = time.time() - (self.written or 0)
        word = "under way" if quiet < FRESH else "stopped"
        return f"{word}: {done} of {goal} {axis}"


def read_run(name: str) -> RunFiles:
    """Read a run folder, `pretrained:NAME` or `hf:OWNER/NAME`; nothing that it names is imported.

    Raises:
        PlanetError: there is no such folder, or nothing of a run in it.
    """
    folder = location.source(Path(name))
    if not folder.is_dir():
        raise PlanetError(location.no_run(folder, "no folder"))
    if not any((folder / part).exists() for part in (CONFIG, METRICS, location.FOLDER)):
        raise PlanetError(location.no_run(folder, f"no {CONFIG}, {METRICS} or {location.FOLDER}/"))
    run = RunFiles(name, folder, location.outputs(Path(name)))
    _read_settings(run)
    _read_record(run)
    _read_metrics(run)
    checkpoints = location.numbered(folder)
    if checkpoints:
        run.checkpoint = int(checkpoints[-1].stem)
    else:
        run.missing.append("no checkpoint yet")
    if not run.of("test"):
        run.missing.append("no test episodes: curves are of the episodes that it learned from")
    return run


def _read_settings(run: RunFiles) -> None:
    try:
        with allowed():  # settings are read, and what they name is not imported here
            run.settings = config.load(run.folder / CONFIG)
    except PlanetError as error:
        run.settings = _settings_of_checkpoint(run)
        if run.settings is None:
            run.missing.append(f"settings: {error}")


def _settings_of_checkpoint(run: RunFiles) -> Settings | None:
    """Return the settings in the last checkpoint: a model of the package has no config.yaml."""
    from planet_rssm.runs import checkpoint as checkpoints

    try:
        with allowed():
            return checkpoints.load(location.find(run.folder)).settings
    except PlanetError:
        return None


def _read_record(run: RunFiles) -> None:
    try:
        record = json.loads(read_regular(run.folder / RECORD))
        if not isinstance(record, dict):
            raise ValueError
        run.record = record
    except (OSError, ValueError, RecursionError):
        run.missing.append(f"no readable {RECORD}: versions, commit and machine are not known")
        return
    then = run.record.get("versions") or {}
    other = [
        f"{name} {then[name]} (here {here})"
        for name, here in versions().items()
        if isinstance(then, dict) and name in then and then[name] != here
    ]
    if other:
        run.missing.append(f"made with other versions: {', '.join(other)}")


def _read_metrics(run: RunFiles) -> None:
    path = run.folder / METRICS
    if not path.exists():
        run.missing.append(f"no {METRICS}: no curves, times or memory")
        return
    try:
        run.metrics = read_numbers(run.folder)
        run.written = path.stat().st_mtime
    except (PlanetError, OSError) as error:
        run.missing.append(f"curves, times and memory: {error}")


def nearest_preset(settings: Settings) -> tuple[str, Json]:
    """Return the preset that a run differs least from, and in what: its values by dotted key.

    What every run fills in for itself, and what belongs to the machine, is no difference.
    """
    flat = config.flatten(settings)
    best: tuple[str, Json] | None = None
    for name, preset in _presets().items():
        differing = {
            key: value
            for key, value in flat.items()
            if value != preset[key] and preset[key] not in OPEN and key not in OF_THE_MACHINE
        }
        if best is None or len(differing) < len(best[1]):
            best = name, differing
    assert best is not None  # some presets are always there
    return best


@functools.cache
def _presets() -> dict[str, Json]:
    return {name: config.flatten(config.load(name)) for name in config.presets()}


def again(run: RunFiles) -> list[str]:
    """Return the commands that make a run once more; none if its settings are not known."""
    if run.settings is None:
        return []
    name, differing = nearest_preset(run.settings)
    words = ["planet", "train", name, "--seed", str(run.settings.seed)]
    for key, value in differing.items():
        words += ["-s", f"{key}={_as_yaml(value)}"]
    commands = [shlex.join(words)]
    if (run.folder / CONFIG).is_file():
        path = str(run.folder / CONFIG)
        commands.insert(0, shlex.join(["planet", "train", path, "--run-dir", "AGAIN"]))
    return commands


def _as_yaml(value: object) -> str:
    return (
        json.dumps(list(value) if isinstance(value, tuple) else value)
        if not isinstance(value, str)
        else value
    )
