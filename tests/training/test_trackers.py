"""Trackers get what metrics.jsonl gets, and can do nothing to a run."""

import sys
import threading
import time
import types

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode import Episode
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.metrics import MetricsLog
from planet_rssm.training.trackers import WAITING, Film, Tracker, require_trackers


class Fake:
    """A tracker's package: keeps what it is given, or fails or hangs where it is told to."""

    def __init__(self, fails=None, waits=None):
        self.lines, self.finished = [], False
        self.fails, self.waits = fails, waits

    def init(self, **begin):
        self.begin = begin
        if self.fails == "init":
            raise RuntimeError("no\nnetwork")
        return self

    def log(self, values, step):
        if self.waits:
            self.waits.wait(20)
        if self.fails == "log":
            raise OSError("gone")
        self.lines.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def install(monkeypatch):
    def installed(fake, name="wandb"):
        module = types.ModuleType(name)
        module.init = fake.init
        module.Video = lambda path: ("film", *read_film(path))
        monkeypatch.setitem(sys.modules, name, module)
        return fake

    return installed


def read_film(path):
    av = pytest.importorskip("av", reason="needs PyAV, extra `report`")
    with av.open(path) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        return len(frames), frames[0].shape, float(film.streams.video[0].average_rate)


FILM = Film("test/film", np.zeros((5, 32, 32, 3), np.uint8), 12.5)
COUNTERS = {"env_steps": 100, "agent_steps": 50, "updates": 7, "episodes": 1}


def logged(folder, tracker):
    log = MetricsLog(folder, 0, 0, trackers=[tracker])
    log.write("learn", COUNTERS, 1.0, {"loss/total": 2.0, "returns": [1.0], "skipped": 3})
    log.close()
    return log


def test_a_tracker_gets_numbers_and_settings(install, tmp_path):
    fake = install(Fake())
    logged(tmp_path, Tracker("wandb", tmp_path, {"seed": 3}))
    assert fake.lines == [(100, {"learn/loss/total": 2.0, **COUNTERS})]
    assert fake.finished
    assert fake.begin == {
        "project": "planet_rssm",
        "name": tmp_path.name,
        "config": {"seed": 3},
        "dir": str(tmp_path),
    }


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_films(install, tmp_path, name):
    fake = install(Fake(), name)
    tracker = Tracker(name, tmp_path, {})
    tracker.film(FILM, 300)
    tracker.close()
    assert fake.lines == [(300, {"test/film": ("film", 5, (256, 256, 3), 12.5)})]


def test_a_test_round_is_filmed_where_there_is_a_camera(install, tmp_path):
    fake = install(Fake())
    log = MetricsLog(tmp_path, 0, 0, trackers=[Tracker("wandb", tmp_path, {})])
    for keys in ({"state": ((3,), "float32")}, {"eye": ((16, 16, 3), "uint8")}):
        spec = EnvSpec("gym/x", keys, 1, 1, 0.1, 20, "own", "test 1")
        observation = {key: np.ones((4, *shape), dtype) for key, (shape, dtype) in keys.items()}
        still = np.zeros((3, 1), np.float32)
        info = {"env": spec.to_json(), "seed": 0, "env_steps": 3}
        episode = Episode.from_transitions(observation, still, still[:, 0], False, True, info)
        log.film("test/film", episode, 0.1, 7)
    log.close()
    assert fake.lines == [(7, {"test/film": ("film", 4, (256, 256, 3), 10.0)})]


def test_films_of_one_that_hangs_are_left_out(install, tmp_path):
    release = threading.Event()
    fake = install(Fake(waits=release))
    tracker = Tracker("wandb", tmp_path, {})
    tracker.write({}, 0)
    begin = time.monotonic()
    for step in range(100):  # only one waits: films are large
        tracker.film(FILM, step)
    assert time.monotonic() - begin < 1
    release.set()
    tracker.close()
    assert [step for step, _ in fake.lines] == [0, 0]


@pytest.mark.parametrize("fails", ["init", "log"])
def test_one_that_fails_costs_a_line(install, tmp_path, caplog, fails):
    install(Fake(fails=fails), "trackio")
    logged(tmp_path, Tracker("trackio", tmp_path, {}))
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    [line] = [record.message for record in caplog.records]
    assert line.startswith("trackio: failed (")
    assert line.endswith("the run goes on without it")
    assert "\n" not in line


def test_one_that_hangs_is_left_alone(install, tmp_path, caplog):
    release = threading.Event()
    install(Fake(waits=release))
    tracker = Tracker("wandb", tmp_path, {})
    for step in range(WAITING + 50):  # more than wait for it: the rest is left out, at once
        tracker.write({}, step)
    tracker.close(patience=0.05)
    assert "has not finished after 0.05 s" in caplog.text
    release.set()


def test_one_that_is_missing_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlanetError, match=r"train.trackers: wandb is not installed; pip install"):
        require_trackers(("wandb",))
    require_trackers(())


def test_the_setting_takes_their_names():
    settings = config.load("quickstart", ["train.trackers=[wandb, trackio]"])
    assert settings.train.trackers == ("wandb", "trackio")
    with pytest.raises(PlanetError, match="train.trackers"):
        config.load("quickstart", ["train.trackers=[mlflow]"])
