"""A run whose episodes all end sooner than a chunk learns, plans, stops and goes on."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from torch import Tensor

from planet_rssm import config
from planet_rssm.envs.pool import Step
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import Run
from planet_rssm.training import start, trainer
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines

LONGEST = 4  # frames
SPEC = EnvSpec(
    "gym/Short-v0",
    {"vector": ((2,), "float32")},
    2,
    1,
    1.0,
    1000,
    "none",
    "fake 0",
    discrete=True,
    terminates=True,
)
TINY = """
    env.id=gym/Short-v0 env.observe=vectors rssm.deter=8 rssm.stoch=4 rssm.hidden=8
    model.vector_units=8
    model.reward_units=8 model.continue_units=8 planner.candidates=4 planner.iterations=1
    planner.elites=2
    planner.horizon=2 train.env_steps=14 train.seed_episodes=4 train.envs=2 train.updates=3
    train.batch_size=16
    train.test_every=2 train.test_episodes=1 device=cpu behavior.units=8
""".split()


class ShortPool:
    """Stands in for EnvPool: the second choice pays 1, episodes end after one to three steps."""

    def __init__(self, settings: object, count: int) -> None:
        self.count, self.lost, self.spec = count, 0, SPEC
        self.left: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        self.left |= {row: 1 + seed % (LONGEST - 1) for row, seed in seeds.items()}
        return {row: self.see(row) for row in seeds}

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        self.left |= {row: self.left[row] - 1 for row in actions}
        ends = {row: self.left[row] == 0 for row in actions}
        return {
            row: Step(self.see(row), float(a[1]), ends[row], False, 1, False)
            for row, a in actions.items()
        }

    def see(self, row: int) -> dict[str, np.ndarray]:
        return {"vector": np.array([self.left[row], 1], np.float32)}


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict]]:
    """train("name", "key=value", ...) trains in that folder, or continues; returns its metrics."""
    monkeypatch.setattr(trainer, "EnvPool", ShortPool)

    def train(name: str, *overrides: str) -> list[dict]:
        folder = tmp_path / name
        if folder.exists():
            run = Run.open(folder, config.override(Run.open(folder).settings, overrides))
        else:
            run = Run.create(folder, config.load("cartpole-vectors", [*TINY, *overrides]), "cpu")
        start.train(run, Display())
        return repeatable_lines(folder)

    return train


@pytest.mark.parametrize("preset", [(), ("behavior=v3", "planner.name=actor")])
def test_padding_changes_nothing_that_is_learned_from(
    train, preset: tuple[str, ...], capfd
) -> None:
    """The same steps are drawn whether a chunk is as long as the longest episode or longer."""
    exact, padded = (
        train(str(size), *preset, f"train.batch_length={size}") for size in (LONGEST, 10)
    )
    said = capfd.readouterr().err
    assert (
        said.count("train.batch_length = 10: most episodes are shorter, ") == 1
        and "= 4:" not in said
    )
    unpadded, first = exact[1], padded[1]
    assert unpadded["phase"] == first["phase"] == "train"
    assert unpadded.keys() == first.keys()
    for key in ("reward/real", "continue/real"):
        assert first[key] == pytest.approx(unpadded[key], rel=1e-5), key
    for key in ("loss/vector", "loss/continue", "loss/kl"):  # other draws of the latent
        assert first[key] == pytest.approx(unpadded[key], rel=0.2), key
    assert np.isfinite(
        [value for line in padded for value in line.values() if isinstance(value, float)]
    ).all()
    assert padded[-1]["skipped"] == 0 and padded[-1]["env_steps"] >= 14


def test_a_run_of_short_episodes_goes_on_as_if_it_had_not_stopped(train) -> None:
    complete = train("complete", "train.batch_length=10", "train.test_every=1")
    train("stopped", "train.batch_length=10", "train.test_every=1", "train.env_steps=9")
    assert train("stopped", "train.env_steps=14") == complete


def test_a_run_goes_on_from_a_checkpoint_with_the_older_name_of_the_continue_head(
    train, tmp_path: Path
) -> None:
    def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            key.replace("continue_head.", "goes_on."): tensor for key, tensor in tensors.items()
        }

    options = ("train.batch_length=10", "train.test_every=1")
    expected = train("complete", *options)
    train("stopped", *options, "train.env_steps=9")
    path = location.find(tmp_path / "stopped")
    today = checkpoints.load(path)
    older = dataclasses.replace(
        today, model=renamed(today.model), optimizer=renamed(today.optimizer)
    )
    assert older.model.keys() != today.model.keys()
    assert older.optimizer.keys() != today.optimizer.keys()
    checkpoints.save(older, path)
    assert checkpoints.load(path).model.keys() == today.model.keys()
    assert train("stopped", "train.env_steps=14") == expected
