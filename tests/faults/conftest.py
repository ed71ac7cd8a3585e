"""A complete training run in a fraction of a second: only the environments are made up."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.data.episode import Episode
from planet_rssm.envs.pool import Step
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG, METRICS, Run
from planet_rssm.training import start, trainer
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import OF_THE_MACHINE

STEPS = 6  # agent steps an episode
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    1,
    50,
    0.5,
    50 * STEPS,
    "raycast",
    "mujoco 3.17.0",
)
# 3 rounds of 1 episode; tests after the second and the third
TINY = f"""
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=50 model.depth=2
    rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8 model.decode_fraction=0.5
    planner.candidates=4 planner.iterations=1 planner.elites=2 planner.horizon=2 train.env_steps={
    3 * SPEC.episode_steps
} train.seed_episodes=1 train.envs=1 train.updates=2 train.batch_size=2
    train.batch_length=4 train.test_every=2 train.test_episodes=1 device=cpu
""".split()


class LocalPool:
    """Stands in for EnvPool: a bar that the action moves, the further right the better."""

    def __init__(self, settings: object, count: int) -> None:
        self.count, self.lost, self.spec = count, 0, SPEC
        self.place: dict[int, float] = {}
        self.time: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        for row, seed in seeds.items():
            self.place[row], self.time[row] = np.random.default_rng(seed).uniform(5, 25), 0
        return {row: self.see(row) for row in seeds}

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        return {row: self.step_row(row, float(action[0])) for row, action in actions.items()}

    def step_row(self, row: int, action: float) -> Step:
        self.place[row] = float(np.clip(self.place[row] + 2 * action, 0, 31))
        self.time[row] += 1
        return Step(self.see(row), self.place[row] / 31, False, self.time[row] == STEPS, 50, False)

    def see(self, row: int) -> dict[str, np.ndarray]:
        image = np.zeros((32, 32, 3), np.uint8)
        image[:, int(self.place[row])] = 255
        return {"image": image}


@pytest.fixture
def local_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "EnvPool", LocalPool)


@pytest.fixture
def tiny() -> list[str]:
    """Return the settings of the run."""
    return TINY


@pytest.fixture
def train(local_pool: None) -> Callable[..., None]:
    """Return a function that trains in a folder, from its last commit, with `key=value` texts."""

    def train(folder: Path, *overrides: str) -> None:
        if (folder / CONFIG).exists():
            run = Run.open(folder)
            run = Run.open(folder, config.override(run.settings, overrides))
        else:
            run = Run.create(folder, config.load("planet", [*TINY, *overrides]), "cpu")
        start.train(run, Display())

    return train


@pytest.fixture(scope="session")
def kept_peace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the run that nothing disturbed is kept for all tests."""
    return tmp_path_factory.mktemp("peace") / "run"


@pytest.fixture
def peace(train: Callable[..., None], kept_peace: Path) -> Path:
    """Return the folder of a run that nothing disturbed; not to be changed, it is trained once."""
    if not kept_peace.exists():
        train(kept_peace)
    return kept_peace


@pytest.fixture
def measured() -> Callable[[Path], list[dict]]:
    """Return a function that reads a run's metrics without what the machine decides."""
    return _measured


@pytest.fixture
def same() -> Callable[[Path, Path], None]:
    """Return a function that compares all that two runs have learned, measured and collected."""
    return _same


@pytest.fixture
def committed() -> Callable[[Path], list[str]]:
    """Return a function that names the episodes that a run's newest checkpoint knows, all read."""
    return _committed


def _measured(folder: Path) -> list[dict]:
    lines = (folder / METRICS).read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in OF_THE_MACHINE}
        for line in lines
    ]


def _same(ours: Path, theirs: Path) -> None:
    assert _measured(ours) == _measured(theirs)
    names = [path.name for path in location.numbered(theirs)]
    assert [path.name for path in location.numbered(ours)] == names
    for name in ("last", "best"):
        a, b = (checkpoints.load(location.find(folder, name)) for folder in (ours, theirs))
        for group in ("model", "optimizer"):
            left, right = getattr(a, group), getattr(b, group)
            assert left.keys() == right.keys()
            assert all((left[key] == right[key]).all() for key in left)
    episodes = {path.name: path.read_bytes() for path in (theirs / "episodes").iterdir()}
    assert {path.name: path.read_bytes() for path in (ours / "episodes").iterdir()} == episodes
    assert not list(ours.rglob("*.tmp"))


def _committed(folder: Path) -> list[str]:
    known = location.numbered(folder)
    count = checkpoints.load(known[-1]).progress["episodes"] if known else 0
    paths = [folder / "episodes" / f"{index:06d}.safetensors" for index in range(count)]
    for path in paths:
        Episode.load(path)
    return [path.name for path in paths]
