"""Where a run keeps its checkpoints, and which file a word means."""

import contextlib
import difflib
from pathlib import Path

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.runs import hub

FOLDER = "checkpoints"
BEST = "best"
SUFFIX = ".safetensors"
PRETRAINED = "pretrained:"  # before the name of a run that is in the package
_PACKAGED = Path(__file__).parents[1] / "pretrained"


def numbered(run: Path) -> list[Path]:
    """Return a run's checkpoints but the best, oldest first.

    Each is named by its env_steps, offline by its updates.
    """
    return sorted(path for path in (run / FOLDER).glob(f"*{SUFFIX}") if path.stem.isdecimal())


def path_of(run: Path, name: int | str) -> Path:
    """Return where a run keeps the checkpoint of `name` env_steps (offline: updates), or `best`."""
    stem = f"{name:010d}" if isinstance(name, int) else name
    return run / FOLDER / f"{stem}{SUFFIX}"


def find(run: Path, which: str = "last") -> Path:
    """Return the file of a run's checkpoint `last`, `best` or of a number of env_steps.

    `run` is a folder, `pretrained:NAME` or `hf:OWNER/NAME[@REVISION]`.

    Raises:
        PlanetError: `run` is no run folder, or it has no such checkpoint.
    """
    asked = run
    run = source(run)
    try:
        there = (run / FOLDER).is_dir()
    except OSError as error:  # a parent that may not be entered
        raise PlanetError(f"run folder {run}: not readable ({error.strerror})") from None
    if not there:
        raise PlanetError(no_run(run, f"it holds no {FOLDER}/"))
    steps = [int(path.stem) for path in numbered(run)]
    if which == "last" and steps:
        return path_of(run, steps[-1])
    if which == BEST and path_of(run, BEST).is_file():
        return path_of(run, BEST)
    if which.isdecimal() and int(which) in steps:
        return path_of(run, int(which))
    have = [str(step) for step in steps] + [BEST] * path_of(run, BEST).is_file()
    raise PlanetError(
        f"{asked}: no checkpoint {which!r}; it has {', '.join(have) or 'none yet: train it first'}"
    )


def no_run(folder: Path, why: str) -> str:
    """Return the line that `folder` is no run, which `why` says if it exists, and which are near.

    Near is what is written alike, of the runs beside it.
    """
    if folder.exists():
        return f"{folder}: not a run folder ({why}); give the --run-dir of a `planet train`"
    if str(folder).lower().startswith(("http:/", "https:/", hub.PREFIX)):
        return f"{folder}: not a run folder; of a model at the Hub give {hub.PREFIX}OWNER/NAME"
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = [path.parent.name for path in folder.parent.glob(f"*/{FOLDER}")]
    near = difflib.get_close_matches(folder.name, beside, n=3, cutoff=0.5)
    meant = " or ".join(str(folder.parent / name) for name in near)
    return f"{folder}: not a run folder, there is none of that name; " + (
        f"did you mean {meant}?" if near else "give the --run-dir of a `planet train`"
    )


def is_named(run: Path | str) -> bool:
    """Return whether a run is no folder of the user's: of the package, or at the Hub."""
    return str(run).startswith((PRETRAINED, hub.PREFIX))


def source(run: Path) -> Path:
    """Return the folder that a run is read from: the package's, one in the Hub's cache, or itself.

    Raises:
        PlanetError: the package has none of that name; or see `hub.fetched`.
    """
    if str(run).startswith(hub.PREFIX):
        return hub.fetched(str(run))
    if not is_named(run):
        return run
    names = sorted(
        f"{PRETRAINED}{folder.name}" for folder in _PACKAGED.iterdir() if (folder / FOLDER).is_dir()
    )
    if str(run) not in names:
        raise PlanetError(f"{run}: no such model in the package{config.nearest(str(run), names)}")
    return _PACKAGED / str(run).removeprefix(PRETRAINED)


def outputs(run: Path) -> Path:
    """Return the folder that what is made of a run goes into: itself, or one in runs/.

    That is runs/pretrained-NAME or runs/hf-OWNER-NAME.
    """
    return Path("runs") / str(run).replace(":", "-").replace("/", "-") if is_named(run) else run
