"""Work on a cluster of Ray: the same numbers as here, whatever happens to its processes."""

import gc
import importlib.util
import json
import os
import re
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from planet_rssm import config
from planet_rssm.base import cluster
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream
from planet_rssm.cli.main import main
from planet_rssm.envs.registry import resolve
from planet_rssm.runs.run import Run
from planet_rssm.runs.surroundings import check_versions, own_versions
from planet_rssm.training import ray_collector
from planet_rssm.training.collector import Order
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines as lines
from planet_rssm.training.ray_collector import RayCollector
from planet_rssm.training.ray_worker import RayWorker
from planet_rssm.training.start import train

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'planet-rssm[ray]'"
)
# 2 rounds of 2 collectors with an episode each, after 3 random ones; 10 agent steps an episode
TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.action_repeat=100 env.renderer=none
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=7000 train.seed_episodes=3 train.collectors=2 train.updates=2
    train.batch_size=4 train.batch_length=8 train.test_every=2 train.test_episodes=2 device=cpu
    train.threads=1 train.collect_threads=1 train.precision=float32
""".split()


def settings_of(*overrides: str) -> config.Settings:
    settings = config.load("planet", [*TINY, *overrides])
    return settings.model_copy(update={"env": resolve(settings.env)})


def new_run(folder: Path, *overrides: str) -> Run:
    return Run.create(folder, settings_of(*overrides), "cpu")


def same(ours: Path, theirs: Path) -> None:
    """Check that nothing tells the two runs apart."""
    assert lines(ours) == lines(theirs)
    for path in (theirs / "episodes").glob("*.safetensors"):
        assert path.read_bytes() == (ours / "episodes" / path.name).read_bytes()


def test_parts_are_all_seeds_in_order() -> None:
    order = Order(Stream.COLLECT, 3, range(10, 17), threads=1)
    parts = order.parts(3)
    assert [list(part.seeds) for part in parts] == [[10, 11], [12, 13], [14, 15, 16]]
    assert [part.first for part in parts] == [0, 2, 4]
    assert [part.draws for part in parts] == [(3,), (3, 1), (3, 2)]
    assert [part.parts(3) for part in parts] == [[part] for part in parts]
    assert len(order.parts(9)) == 7


def test_what_its_environment_cannot_do_is_the_same_line_as_here(tmp_path: Path) -> None:
    settings = config.load("planet", [*TINY, "env.id=gym/CartPole-v1", "env.kwargs.nonsense=1"])
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(PlanetError) as here:
        train(Run(tmp_path, settings), Display())
    header, _ = RayWorker(settings.model_dump_json(), "cpu").start()
    assert header["error"] == str(here.value) and "nonsense" in header["error"]


def test_a_node_with_another_version_is_refused() -> None:
    there = own_versions()
    check_versions("--on", "node7", there)
    with pytest.raises(
        PlanetError, match=r"^--on: node node7 has torch 1.0, this machine \S+; install the same"
    ):
        check_versions("--on", "node7", there | {"torch": "1.0"})
    with pytest.raises(PlanetError, match="node7 has its own code None, this machine"):
        check_versions("--on", "node7", {**there, "its own code": None})


@pytest.mark.parametrize("where", ["slurm", "ray:", "ray://head:10001"])
def test_a_cluster_that_is_none(where: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["train", "planet", "--run-dir", str(tmp_path / "run"), "--collect-on", where])
    error = capsys.readouterr().err
    assert f"--collect-on {where}: must be ray, for a cluster" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@needs_ray
def test_an_address_where_nobody_is() -> None:
    began = time.monotonic()
    with (
        pytest.raises(PlanetError, match="no head node answers at 127.0.0.1:1 .*ray start --head"),
        cluster.connected("--on", "ray:127.0.0.1:1", 1),
    ):
        pass
    assert time.monotonic() - began < 10


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlanetError, match=r"--on ray: needs Ray; pip install 'planet-rssm\[ray\]'"):
        cluster.check_cluster("--on", "ray")


def test_the_page_has_files_that_ray_and_bash_take() -> None:
    page = (Path(__file__).parents[1] / "docs/scale.md").read_text()
    blocks = re.findall(r"^```(yaml|bash)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for text in (text for kind, text in blocks if kind == "bash"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    (cluster_yaml,) = (yaml.safe_load(text) for _, text in blocks if "cluster_name" in text)
    if (ray := importlib.util.find_spec("ray")) is None:
        pytest.skip("needs ray for the schema of its file: pip install 'planet-rssm[ray]'")
    import jsonschema

    schema = Path(ray.origin).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(cluster_yaml, json.loads(schema.read_text()))


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Ray on this machine, for what follows."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("RAY_worker_niceness", "0")  # else the other tests' processes go first
        # Ray does not wait for the processes that it ends
        warnings.simplefilter("ignore", ResourceWarning)
        with cluster.connected("--collect-on", "ray", 2):
            assert signal.getsignal(signal.SIGTERM) == handler
            yield
        gc.collect()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this machine alone."""
    folder = tmp_path_factory.mktemp("here") / "run"
    train(new_run(folder, "train.staleness=1"), Display())
    return folder


@needs_ray
@pytest.mark.slow
def test_a_run_is_the_same_on_a_cluster_where_a_collector_is_killed(
    ray_cluster: None,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Random episodes, planned ones in turns and beside the learner, and a test's."""
    killed = []
    begin = RayCollector.begin_with

    def kill_one(self: RayCollector, *arguments) -> None:
        begin(self, *arguments)
        if not killed and len(self.pids) == 2:  # the second joins later
            (actor, _), *_ = self._going.values()
            killed.append(self.pids[actor][1])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(RayCollector, "begin_with", kill_one)
    train(new_run(tmp_path, "train.staleness=1"), Display(), collect_on="ray")
    same(tmp_path, here)
    (said,) = [line for line in caplog.messages if "was lost and is replaced" in line]
    assert f"(process {killed[0]}) was lost and is replaced, its episodes are begun again" in said
    assert "\n" not in said
    ages = [line.get("age") for line in lines(tmp_path) if line["phase"] == "collect"]
    assert ages == [None, None, 2]


@needs_ray
@pytest.mark.slow
def test_an_evaluation_is_the_same_on_a_cluster(
    ray_cluster: None, here: Path, capfd: pytest.CaptureFixture
) -> None:
    words = ["eval", str(here), "--episodes", "2", "--fresh", "--json"]
    main(words)
    on_this_machine = json.loads(capfd.readouterr().out)
    with pytest.raises(SystemExit):  # of the second, which is no trained model
        main([*words, "simulator:cartpole-swingup", "--on", "ray"])
    there = json.loads(capfd.readouterr().out)
    assert there["results"] == on_this_machine["results"]
    (error,) = there["errors"]
    assert "--on plays run folders and packaged models" in error["error"]


@needs_ray
@pytest.mark.slow
def test_a_set_is_the_same_on_a_cluster(
    ray_cluster: None, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Of a run with noise, in two shares of which the second is not full."""
    words = (
        f"collect dmc/cartpole-swingup --policy {here} --noise 0.3 --envs 1 --episodes 5".split()
    )
    for where in ("here", "ray"):
        on = [] if where == "here" else ["--on", where]
        main([*words, "--out", str(tmp_path / where), *on])
    files = sorted((tmp_path / "here").glob("*.safetensors"))
    assert len(files) == 5
    for path in files:
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes()


@needs_ray
@pytest.mark.slow
def test_no_room_is_said_and_then_an_error(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ray_collector, "_SLOW", 0.2)
    monkeypatch.setattr(ray_collector, "_ROOM", 0.5)
    monkeypatch.setattr(ray_collector, "_place", lambda *_: ("cpu", 1.0))  # there is no GPU
    with pytest.raises(PlanetError, match="no collector has begun for .* are free; add a node"):
        train(new_run(tmp_path), Display(), collect_on="ray")
    assert any("it goes on when one does" in line for line in caplog.messages)
