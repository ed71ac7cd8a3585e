"""An environment that raises, dies, hangs or gives NaN in step 37 of a training run."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode import Episode
from planet_rssm.envs import worker
from planet_rssm.runs.run import Run
from planet_rssm.training import start
from planet_rssm.training.display import Display

# 40 agent steps an episode
REAL = ["env.action_repeat=25", "env.step_timeout=1.5", "train.batch_length=8"]
# Read by Python as it starts, in the workers too: whatever stands first in the file is done in step
# 37, once.
SITE = """
import os, time
from pathlib import Path
from planet_rssm.envs.dmc import DMControlEnv

faults, steps = Path({faults!r}), 0
reset, step = DMControlEnv.reset, DMControlEnv.step


def counted(self, **options):
    global steps
    steps = 0
    return reset(self, **options)


def broken(self, action):
    global steps
    observation, reward, *rest = step(self, action)
    steps += 1
    if steps == 37:
        fault, *others = faults.read_text().split()
        faults.write_text(" ".join(others))
        if fault == "raise":
            raise RuntimeError("on purpose")
        if fault == "die":
            os.kill(os.getpid(), 9)
        if fault == "hang":
            time.sleep(1000)
        if fault in ("nan", "inf", "1e300"):
            reward = float(fault)
    return observation, reward, *rest


DMControlEnv.reset, DMControlEnv.step = counted, broken
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets what fails in the next episodes' step 37; `ok` is nothing."""

    def say(faults: str) -> None:
        (tmp_path / "faults").write_text(faults)

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        SITE.format(faults=str(tmp_path / "faults"))
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    return say


def train(folder: Path, tiny: list[str], episodes: int) -> None:
    steps = [f"train.env_steps={1000 * episodes}", f"train.seed_episodes={episodes}"]
    start.train(Run.create(folder, config.load("planet", [*tiny, *REAL, *steps]), "cpu"), Display())


def test_whatever_a_worker_does_in_step_37_costs_its_episode_alone(
    tiny: list[str],
    faulty: Callable[[str], None],
    measured: Callable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty("raise ok die ok hang nan ok inf 1e300 ok ok ok")
    train(tmp_path / "run", tiny, 5)
    replaced = [message for message in caplog.messages if "is replaced" in message]
    raised = r"RuntimeError: on purpose \(sitecustomize.py, line \d+\)"
    endings = [raised, "killed by SIGKILL", "no answer in time", *["must be finite.*"] * 3]
    assert len(replaced) == len(endings) == len(caplog.messages)  # one line each
    for line, ending in zip(replaced, endings, strict=True):
        assert re.fullmatch(
            f"environment 0 was lost in step 37 of an episode and is replaced: .*{ending}", line
        )
    assert "reward = nan: must be finite" in replaced[3]
    assert measured(tmp_path / "run")[-1]["lost"] == 6
    for path in (tmp_path / "run" / "episodes").glob("*.safetensors"):
        assert Episode.load(path).length == 41


def test_a_reward_that_is_always_nan_ends_the_run_and_is_never_stored(
    tiny: list[str], faulty: Callable[[str], None], tmp_path: Path
) -> None:
    faulty("ok nan nan nan")
    with pytest.raises(PlanetError) as caught:
        train(tmp_path / "run", tiny, 2)
    assert str(caught.value) == (
        "env.id = 'dmc/cartpole-swingup': its worker failed 3 times in a row, "
        "at last in step 37 of an episode: "
        "reward = nan: must be finite, in float32; fix the environment"
    )
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    faulty("ok ok ok")
    start.train(Run.open(tmp_path / "run"), Display())
    assert len(list((tmp_path / "run" / "episodes").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_observation_that_is_not_finite_is_refused_by_the_worker(wrong: float) -> None:
    from planet_rssm.envs.spec import EnvSpec

    class Env:
        def reset(self, seed: int) -> tuple:
            return {"speed": np.array([0.0, wrong])}, {}

    spec = EnvSpec("fake", {"speed": ((2,), "float32")}, 1, 1, 0.1, 10, "none", "fake 0")
    descriptor = os.memfd_create("test")
    try:
        with pytest.raises(PlanetError, match="speed = (nan|inf|-inf): must be finite"):
            worker._obey(Env(), worker.Shared(descriptor, spec), {"do": "reset", "seed": 0})
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_episode_with_a_reward_that_is_not_finite_is_one_line(wrong: float) -> None:
    zeros, info = np.zeros((4, 1), np.float32), {"env": {}, "seed": 0, "env_steps": 3}
    reward = np.array([0, wrong, 0], np.float32)
    with pytest.raises(
        PlanetError, match="episode reward: not finite at frame 2; drop the episode or fix"
    ):
        Episode.from_transitions({"speed": zeros}, zeros[1:], reward, False, True, info)
