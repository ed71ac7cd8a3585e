"""A sweep file, and the runs that it stands for.

preset: [quickstart, quickstart-search]
tasks: [dmc/cartpole-swingup, dmc/reacher-easy]     # env.id; without: the preset's own
seeds: 5                                            # 0 to 4, or a list
set:
  train.env_steps: 100000                           # for all
  rssm.deter: [200, 300]                         # both
out: runs/paper                                     # without: runs/ and the file's name
slurm: {timeout_min: 720, gpus_per_node: 1}         # what submitit is given
ray: {num_cpus: 4, num_gpus: 1}                     # what a run has of a node of Ray
"""

import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings
from planet_rssm.config.files import nearest, read
from planet_rssm.runs.run import CONFIG

KEYS = ("preset", "tasks", "seeds", "set", "out", "slurm", "ray")
RAY_KEYS = ("num_cpus", "num_gpus", "memory", "resources")
INSTEAD = {"env.id": "tasks", "seed": "seeds"}  # settings that have a key of their own
MOST = 10_000  # runs of a sweep
LONGEST = 250  # bytes of a run's name, after which its log has a suffix: systems allow 255


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    name: str
    folder: Path
    preset: str
    overrides: tuple[str, ...]
    settings: Settings

    def words(self) -> list[str]:
        """Return the arguments of `planet` that begin this run, or continue it."""
        words = ["train", self.preset]
        for override in self.overrides:
            words += ["-s", override]
        words += ["--run-dir", str(self.folder), "--plan-episodes", "0"]
        return [*words, "--resume"] if (self.folder / CONFIG).exists() else words

    def absolute(self) -> Self:
        """Return the run with folders that mean the same wherever its process begins."""
        preset = Path(self.preset)
        where = str(preset.resolve()) if preset.is_file() else self.preset
        return replace(self, folder=self.folder.resolve(), preset=where)


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep file."""

    out: Path
    runs: list[SweepRun]
    slurm: Json  # what submitit is given
    ray: Json  # what Ray is given for each run, `num_cpus` among it

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sweep file and resolve the settings of every run.

        Raises:
            PlanetError: it cannot be read, a key or value of it is none, or settings of a run are
                refused.
        """
        values = read(path, "sweep file")
        for key in values:
            if key not in KEYS:
                raise PlanetError(f"sweep file {path}: no key {key!r}{nearest(str(key), KEYS)}")
        presets = _listed(path, values, "preset")
        tasks: list[Any] = _listed(path, values, "tasks") if "tasks" in values else [None]
        changes, slurm = (_mapping(path, values, key) for key in ("set", "slurm"))
        for key, other in INSTEAD.items():
            if key in changes:
                raise PlanetError(f"sweep file {path}: set {key}: give it as `{other}`")
        out = values.get("out") or str(Path("runs") / path.stem)
        if not isinstance(out, str):
            raise PlanetError(f"sweep file {path}: out must be a folder")
        out = os.path.expanduser(out)  # a shell would have done so on the command line
        axes = {
            key: value if isinstance(value, list) else [value] for key, value in changes.items()
        }
        product = list(
            itertools.islice(
                itertools.product(presets, tasks, _seeds(path, values), *axes.values()), MOST + 1
            )
        )
        if not product or len(product) > MOST:
            count = f"more than {MOST} runs" if product else "no run"
            raise PlanetError(f"sweep file {path}: stands for {count}; it must be 1 to {MOST}")
        varied = {key for key, value in axes.items() if len(value) > 1}
        runs = [
            _run(Path(out), str(preset), task, seed, dict(zip(axes, chosen, strict=True)), varied)
            for preset, task, seed, *chosen in product
        ]
        name, times = Counter(run.name for run in runs).most_common(1)[0]
        if times > 1:
            raise PlanetError(
                f"sweep file {path}: {times} runs would be called {name}; leave out what is twice"
            )
        if (size := max(len(os.fsencode(run.name)) for run in runs)) > LONGEST:
            raise PlanetError(
                f"sweep file {path}: a run would have a name of {size} bytes, {LONGEST} are "
                "allowed; let fewer settings vary, or give shorter values"
            )
        return cls(Path(out), runs, slurm, _ray(path, values))

    def unnamed(self) -> list[str]:
        """Return the names of runs in `out` that are none of these."""
        there = {path.parent.name for path in self.out.glob(f"*/{CONFIG}")}
        return sorted(there - {run.name for run in self.runs})


def _run(
    out: Path,
    preset: str,
    task: object,
    seed: int,
    changes: Mapping[str, object],
    varied: set[str],
) -> SweepRun:
    overrides = [f"{key}={_text(value)}" for key, value in changes.items()]
    if task is not None:
        overrides.append(f"env.id={task}")
    overrides.append(f"seed={seed}")
    settings = config.load(preset, overrides)
    parts = [Path(preset).stem, settings.env.id.removeprefix("dmc/").removeprefix("gym/")]
    parts += [f"{key}={_text(value)}" for key, value in changes.items() if key in varied]
    name = "-".join(re.sub(r"[^\w.=-]", "-", part) for part in [*parts, f"seed{seed}"])
    return SweepRun(name, out / name, preset, tuple(overrides), settings)


def _mapping(path: Path, values: Mapping[str, object], key: str) -> Json:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise PlanetError(f"sweep file {path}: {key} must be lines of `key: value`")
    return value


def _ray(path: Path, values: Mapping[str, object]) -> Json:
    options: Json = {"num_cpus": 1, **_mapping(path, values, "ray")}
    for key in options:
        if key not in RAY_KEYS:
            raise PlanetError(
                f"sweep file {path}: ray has no key {key!r}{nearest(str(key), RAY_KEYS)}"
            )
    cpus = options["num_cpus"]
    if type(cpus) not in (int, float) or not 0 < cpus < math.inf:
        raise PlanetError(f"sweep file {path}: ray.num_cpus {cpus!r}: must be a number above 0")
    return options


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(path: Path, values: Mapping[str, object], key: str) -> list[Any]:
    value = values.get(key)
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(one, str) and one for one in listed):
        raise PlanetError(f"sweep file {path}: {key} must be a name or a list of names")
    return listed


def _seeds(path: Path, values: Mapping[str, object]) -> list[int]:
    value = values.get("seeds", 1)
    seeds = list(range(min(value, MOST + 1))) if type(value) is int else value
    if not isinstance(seeds, list) or not all(type(one) is int and one >= 0 for one in seeds):
        raise PlanetError(f"sweep file {path}: seeds must be how many, or a list of numbers from 0")
    return seeds
