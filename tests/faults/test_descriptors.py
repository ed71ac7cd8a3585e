"""Standard input, output and error closed, as daemons and cron start programs."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.data.episode import Episode

ECHO = """
import gymnasium
import numpy as np

box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


class Echo(gymnasium.Env):
    action_space = observation_space = box

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(2, 0.5, np.float32), {}

    def step(self, action):
        print("step")
        return np.array(action), 1.0, False, False, {}
"""
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
# The same by the library, without torch: whatever is closed.
SCRIPT = """
import sys
import numpy as np
from planet_rssm.config import EnvSettings
from planet_rssm.envs.pool import EnvPool
settings = EnvSettings(id="echo:Echo", observe="vectors", renderer="none", action_repeat=1)
with EnvPool(settings, 1) as pool:
    pool.reset({0: 0})
    step = pool.step({0: np.array([0.25, 0.75], np.float32)})[0]
with open(sys.argv[1], "w") as file:
    file.write(f"{step.observation['vector'].tolist()} {step.reward}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which has an environment that shows the last action."""
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def start(closed: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *words])


def test_collect_writes_what_was_seen_and_done(folder: Path) -> None:
    common = "-m planet_rssm collect echo:Echo --policy random --episodes 1 --envs 1".split()
    settings = "-s env.observe=vectors -s env.time_limit=20 --out".split()
    runs = [
        start(closed, *common, *settings, f"set{number}") for number, closed in enumerate(CLOSED)
    ]
    assert [run.wait(300) for run in runs] == [0] * len(CLOSED)
    for number in range(len(CLOSED)):
        [path] = (folder / f"set{number}").glob("*.safetensors")
        episode = Episode.load(path)
        assert (episode.observation["vector"][0] == 0.5).all()
        np.testing.assert_array_equal(episode.observation["vector"][1:], episode.action[1:])
        assert np.abs(episode.action[1:]).min() > 0 and episode.reward.sum() == 20


@pytest.mark.parametrize("closed", CLOSED)
def test_the_library_alone_holds_them_open(folder: Path, closed: str) -> None:
    assert start(closed, "-c", textwrap.dedent(SCRIPT), "step").wait(100) == 0
    assert (folder / "step").read_text() == "[0.25, 0.75] 1.0"
