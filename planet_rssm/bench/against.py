"""Whether this checkout is faster than another one: both timed in turns, each in its own processes.

A turn is the other checkout's own command, `planet bench VERB … --json`, then this one's, or the
other way round. So nothing of it is imported here, and its presets and settings are its own. Of its
answer only a case's `preset`, `precision` and `ms` are read.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.bench.turns import Asked, BenchResult

TURNS = 3
HERE = Path(__file__).parents[2]  # the folder with this checkout's package

Times = dict[tuple[str, str], list[float]]  # milliseconds of every turn, by preset and precision


@dataclass(frozen=True)
class AgainstTiming:
    """A preset in one precision, here and in the other checkout."""

    preset: str
    precision: str
    ms: float  # the median of the turns
    against_ms: float
    ratio: float  # of the two; less than 1 where this checkout is faster
    turns: list[list[float]]  # ms and against_ms of each


def bench_against(against: str, verb: str, asked: Asked) -> BenchResult[AgainstTiming]:
    """Time `planet bench VERB` of this checkout and of another one, in TURNS turns.

    Args:
        against: a folder that has the other `planet_rssm`, or a commit of this repository. Its
            code is run.
        verb: train or behavior.
        asked: presets, settings and precisions that both know; without a precision, those that
            both time by default.

    Raises:
        PlanetError: no such folder or commit, one of the two cannot measure this, or they have no
            case in common.
    """
    words = ["bench", verb, *dict.fromkeys(asked.presets), "--repeats", str(asked.repeats)]
    words += ["--device", asked.device, "--json"]
    words += [word for text in asked.overrides for word in ("-s", text)]
    words += [word for name in asked.precisions for word in ("--precision", name)]
    machine: Json = {}
    with _other(against) as folder:
        sides = [("this checkout", HERE), (against, folder)]
        times: list[Times] = [{}, {}]
        for turn in range(TURNS):
            for side in (0, 1) if turn % 2 else (1, 0):
                name, root = sides[side]
                asked.say(f"turn {turn + 1} of {TURNS}: {name}")
                answer = _run(name, root, words)
                for case in answer["cases"]:
                    key = case["preset"], case["precision"]
                    times[side].setdefault(key, []).append(float(case["ms"]))
                machine = machine if side else answer["machine"]
    ours, theirs = times
    # a precision that is slow here by some turns' measure only is left out, as one of all turns is
    whole = [key for key in ours if len(ours[key]) == len(theirs.get(key, ())) == TURNS]
    cases = [_case(key, ours[key], theirs[key]) for key in whole]
    if not cases:
        raise PlanetError(
            f"--against {against}: it timed {_names(theirs)}, this checkout {_names(ours)}; choose "
            "with --precision what both have"
        )
    return BenchResult(machine | {"against": against}, cases)


def _case(key: tuple[str, str], ours: list[float], theirs: list[float]) -> AgainstTiming:
    preset, precision = key
    ms, against_ms = statistics.median(ours), statistics.median(theirs)
    turns = [list(pair) for pair in zip(ours, theirs, strict=True)]
    return AgainstTiming(preset, precision, ms, against_ms, round(ms / against_ms, 3), turns)


def _names(times: Times) -> str:
    return ", ".join(" ".join(key) for key in times) or "nothing"


def _run(name: str, root: Path, words: Sequence[str]) -> Json:
    """Return what `planet WORDS` prints with the package in `root`, in a process of its own."""
    # -P: else a package in the working directory would come before that of PYTHONPATH
    command = [sys.executable, "-P", "-m", "planet_rssm", *words]
    variables = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.run(command, env=variables, capture_output=True, text=True)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        answer = json.loads(child.stdout)
        if not child.returncode and isinstance(answer["machine"], dict):
            [(case["preset"], case["precision"], float(case["ms"])) for case in answer["cases"]]
            return dict(answer)
    said = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
    raise PlanetError(f"planet {' '.join(words[:2])} of {name}: {said[-1]}")


@contextlib.contextmanager
def _other(against: str) -> Iterator[Path]:
    """Yield the folder that has the other checkout's package."""
    folder = Path(against)
    if folder.is_dir():
        if not (folder / "planet_rssm" / "__main__.py").is_file():
            raise PlanetError(
                f"--against {against}: no planet_rssm/__main__.py in it; give the folder of a "
                "checkout, or a commit of this one"
            )
        yield folder.resolve()
        return
    # Files out of the archive, and no worktree: a kill leaves nothing in the repository.
    with tempfile.TemporaryDirectory(prefix="planet-against-") as place:
        with tarfile.open(fileobj=io.BytesIO(_archive(against))) as files:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; git makes no other files
                files.extraction_filter = tarfile.data_filter
            files.extractall(place)
        yield Path(place)


def _archive(commit: str) -> bytes:
    """Return the files of a commit of this checkout's repository as a tar archive."""
    names = ["planet_rssm", "configs"]
    command = [
        "git",
        "-C",
        str(HERE),
        "archive",
        "--format=tar",
        "--end-of-options",
        commit,
        *names,
    ]
    try:
        child = subprocess.run(command, capture_output=True)
    except OSError as error:
        raise PlanetError(
            f"--against {commit}: no such folder, and git does not start ({error.strerror}); "
            "give a folder with planet_rssm, or install git"
        ) from None
    if child.returncode:
        said = one_line(child.stderr.decode(errors="replace")) or "failed"
        raise PlanetError(
            f"--against {commit}: no such folder, and git in {HERE} says: {said}; give a "
            "folder with planet_rssm, or a commit of this checkout"
        )
    return child.stdout
