"""Work on a cluster of Ray: the same numbers as here, whatever happens to its processes."""

import contextlib
import gc
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from planet_rssm import config
from planet_rssm.base import cluster
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.seeding import Stream
from planet_rssm.cli.main import main
from planet_rssm.data.replay import Replay
from planet_rssm.envs.registry import resolve
from planet_rssm.evaluation.compare import compare
from planet_rssm.runs import location, remote
from planet_rssm.runs.run import Run
from planet_rssm.runs.surroundings import check_versions, own_versions
from planet_rssm.sweep import Sweep, on_ray, state_of
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
# 2 rounds of 2 collectors with an episode each, after 3 random ones; 10 agent steps an episode.
# Processes that Ray starts load little for this environment: dm_control takes them a second.
TINY = """
    env.id=gym/Pendulum-v1 env.observe=vectors env.action_repeat=20 env.renderer=none
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=1400 train.seed_episodes=3 train.collectors=2 train.updates=2
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
    same_episodes(ours, theirs)


def committed(run: Path) -> int:
    """Return how many episodes a run has: on disk, by its manifest, and by its metrics."""
    collected = [line for line in lines(run) if line["phase"] == "collect"]
    counts = {
        len(list((run / "episodes").glob("*.safetensors"))),
        len(Replay(run / "episodes", sys.maxsize).episodes),
        sum(len(line["returns"]) for line in collected),
    }
    assert len(counts) == 1, counts
    return counts.pop()


def same_episodes(ours: Path, theirs: Path) -> None:
    assert committed(ours) == committed(theirs)
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


def test_what_its_environment_cannot_do_is_the_same_line_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a collector keeps what its process logs, which this process is not to do from now on
    monkeypatch.setattr(remote, "_kept", lambda: SimpleNamespace(lines=[]))
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


@needs_ray
def test_an_address_where_something_else_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            client, _ = other.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            pytest.raises(PlanetError, match=f"what listens at {address} is no head node"),
            cluster.connected("--on", f"ray:{address}", 1),
        ):
            pass
        thread.join(10)


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


OWN = """
import os, signal, sys, time
from planet_rssm.base import cluster

def before(number, frame):
    sys.exit(7)

signal.signal(signal.SIGTERM, before)
with cluster.connected("--on", "ray", 2):
    import ray
    assert signal.getsignal(signal.SIGTERM) is before
    assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    print(ray.get_runtime_context().gcs_address, ray.cluster_resources()["CPU"] >= 2)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
"""


@needs_ray
@pytest.mark.slow
def test_a_cluster_of_its_own_ends_with_it() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 7, answer.stderr  # by the handler of before
    address, enough = answer.stdout.split()
    host, port = address.split(":")
    assert enough == "True"
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), 1)


# An environment that fails where a file says so: each fault once, or in every step.
FRAIL = """
import os, signal, time
import gymnasium, numpy as np

FAULTS = os.path.dirname(__file__)


def once(fault):
    try:
        os.unlink(f"{FAULTS}/{fault}")
    except FileNotFoundError:
        return False
    return True


class Frail(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.normal(size=3).astype(np.float32), 0
        return self.state, {}

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and once("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == 6 and once("hangs"):
            time.sleep(1000)
        if os.path.exists(f"{FAULTS}/broken"):
            os._exit(3)
        self.state = np.clip(0.9 * self.state + 0.1 * action[0], -10, 10).astype(np.float32)
        return self.state, float(self.state.sum()), False, self.steps == 10, {}
"""


class OnThisMachine:
    """A cluster of two nodes, a CPU each, that this process is connected to.

    No disk counts as one with room, so an object store that is full is.
    """

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._node = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        self._node |= {"num_cpus": 1, "object_store_memory": 80_000_000}
        full = {"local_fs_capacity_threshold": 0.0, "oom_grace_period_s": 0.2}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**self._node, "_system_config": full}
        )
        self.where = f"ray:{self._cluster.address}"
        self.add()

    def add(self, **variables: str) -> None:
        """Add a node; `variables` are of its processes."""
        handler = signal.getsignal(signal.SIGTERM)
        self.last = self._cluster.add_node(**self._node, env_vars=variables or None)
        signal.signal(signal.SIGTERM, handler)  # a node of Ray in this process has its own

    def remove(self) -> None:
        """Kill the node that was added last."""
        self._cluster.remove_node(self.last, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnThisMachine]:
    """Ray on this machine, for what follows; its `folder` has the module `frail`."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "frail.py").write_text(FRAIL)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.syspath_prepend(folder)
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.setenv("RAY_worker_niceness", "0")  # else the other tests' processes go first
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", cluster._token())
        # Ray does not wait for the processes that it ends
        warnings.simplefilter("ignore", ResourceWarning)
        nodes = OnThisMachine(folder)
        signal.signal(signal.SIGTERM, handler)
        try:
            with cluster.connected("--collect-on", nodes.where, 2):
                assert signal.getsignal(signal.SIGTERM) == handler
                yield nodes
        finally:
            nodes.end()
            signal.signal(signal.SIGTERM, handler)
        gc.collect()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this machine alone."""
    folder = tmp_path_factory.mktemp("here") / "run"
    train(new_run(folder, "train.staleness=1"), Display())
    return folder


def both_join(collectors: RayCollector) -> None:
    """Wait for the second of them, which joins after the first."""
    while len(collectors.pids) < 2:
        collectors._look(lambda index, episode: None)


def fill(held: list[object]) -> None:
    """Fill the cluster's object store with what it cannot move to a disk: arrays in use."""
    import ray

    looks = 0
    while looks < 2:  # what nobody holds is freed late
        before, size = len(held), 64_000_000
        while size > 10_000:
            try:
                put = ray.put(np.zeros(size, np.uint8))
            except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
                size //= 4
            else:
                held.append((put, ray.get(put)))
        looks = looks + 1 if len(held) == before else 0
        time.sleep(0.2)


@needs_ray
@pytest.mark.slow
def test_a_run_is_the_same_where_a_collector_is_killed_and_the_object_store_is_full(
    ray_cluster: OnThisMachine,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Random episodes, planned ones in turns and beside the learner, and a test's.

    What is lost is played again, a full store is a line, and the run goes on later.
    """

    killed, held = [], []
    begin = RayCollector.begin_with

    def harm(self: RayCollector, *arguments) -> None:
        if (tmp_path / "checkpoints").exists() and location.numbered(tmp_path):
            fill(held)
        both_join(self)
        begin(self, *arguments)
        if not killed:
            (actor, _), *_ = self._going.values()
            killed.append(self.pids[actor][1])
            os.kill(killed[0], signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(RayCollector, "begin_with", harm)
        with pytest.raises(
            PlanetError, match="--collect-on: no room in the cluster's object store for .* weights"
        ):
            train(new_run(tmp_path, "train.staleness=1"), Display(), collect_on="ray")
    held.clear()
    assert 0 < committed(tmp_path) < committed(here)
    (said,) = [line for line in caplog.messages if "was lost and is replaced" in line]
    assert f"(process {killed[0]}) was lost and is replaced, its episodes are begun again" in said
    assert "\n" not in said
    train(Run.open(tmp_path, settings_of("train.staleness=1")), Display(), collect_on="ray")
    same(tmp_path, here)
    ages = [line.get("age") for line in lines(tmp_path) if line["phase"] == "collect"]
    assert ages == [None, None, 2]


def once(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], orders: int) -> None:
    """Have `act` called when the collectors have been given so many orders."""
    begin, left = RayCollector.begin_with, [orders]

    def counted(self: RayCollector, *arguments) -> None:
        left[0] -= 1
        if left[0] == 0:
            both_join(self)
        begin(self, *arguments)
        if left[0] == 0:
            act()

    monkeypatch.setattr(RayCollector, "begin_with", counted)


@needs_ray
@pytest.mark.slow
def test_fresh_weights_are_the_local_run_too_where_a_node_goes_and_another_version_comes(
    ray_cluster: OnThisMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(new_run(tmp_path / "here"), Display())
    once(monkeypatch, ray_cluster.remove, 2)
    try:
        train(new_run(tmp_path / "there"), Display(), collect_on="ray")
        same(tmp_path / "there", tmp_path / "here")
        said = [line for line in caplog.messages if "was lost and is replaced" in line]
        assert said and all(line.count("\n") == 0 for line in said)
        assert not any("age" in line for line in lines(tmp_path / "there"))
        node_with_another_version_ends_the_run(ray_cluster, tmp_path)
    finally:
        ray_cluster.add()


def node_with_another_version_ends_the_run(ray_cluster: OnThisMachine, folder: Path) -> None:
    """A node that has another gymnasium before its own."""
    other = folder / "other" / "gymnasium-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: gymnasium\nVersion: 0.1\n")
    ray_cluster.add(PYTHONPATH=os.pathsep.join([str(other.parent), os.environ["PYTHONPATH"]]))
    try:
        with pytest.raises(
            PlanetError,
            match=r"--collect-on: node \S+ has gymnasium 0.1, this machine \S+; install",
        ):
            train(new_run(folder / "run", "train.env_steps=20000"), Display(), collect_on="ray")
    finally:
        ray_cluster.remove()


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("started_by_python")
def test_a_cluster_that_asks_for_another_token(ray_cluster: OnThisMachine, tmp_path: Path) -> None:
    words = "collect cartpole-swingup --policy random --episodes 1 -s env.observe=vectors".split()
    words += ["-s", "env.renderer=none"]
    answer = subprocess.run(
        [sys.executable, "-m", "planet_rssm", *words, "--out", tmp_path / "set"]
        + ["--on", ray_cluster.where],
        env=os.environ | {"RAY_AUTH_TOKEN": "of another cluster, of at least 16"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = answer.stderr
    assert answer.returncode == 1 and said.count("\n") == 1, said
    assert f"--on {ray_cluster.where}: the cluster asks for Ray's token; give" in said


def frail(*overrides: str) -> list[str]:
    return [
        *"env.id=frail:Frail env.time_limit=10 env.action_repeat=1 env.step_timeout=2".split(),
        *"model.vector_units=16 train.collectors=1 train.env_steps=70".split(),
        *overrides,
    ]


@needs_ray
@pytest.mark.slow
def test_environments_that_die_and_hang_on_a_node(
    ray_cluster: OnThisMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each once, and the run is that without; then in every step, and nothing committed is lost."""
    train(new_run(tmp_path / "here", *frail()), Display())
    for fault in ("dies", "hangs"):
        (ray_cluster.folder / fault).touch()
    run = new_run(tmp_path / "there", *frail())
    train(run, Display(), collect_on="ray")
    same_episodes(tmp_path / "there", tmp_path / "here")
    said = [line for line in caplog.messages if "was lost in step" in line]
    assert len(said) == 2 and not any("\n" in line for line in said)
    assert "SIGKILL" in said[0] and "no answer in time" in said[1]
    before, count = lines(tmp_path / "there"), committed(tmp_path / "there")
    longer = Run.open(run.folder, settings_of(*frail("train.env_steps=110")))
    (ray_cluster.folder / "broken").touch()
    with pytest.raises(PlanetError, match=r"its worker failed 3 times in a row, at last in step 1"):
        train(longer, Display(), collect_on="ray")
    assert lines(tmp_path / "there") == before and committed(tmp_path / "there") == count
    (ray_cluster.folder / "broken").unlink()


@needs_ray
@pytest.mark.slow
def test_a_learner_that_is_killed_goes_on_where_it_was(
    ray_cluster: OnThisMachine, tmp_path: Path
) -> None:
    more = ["train.env_steps=2400", "train.staleness=1", "train.collectors=1"]
    train(new_run(tmp_path / "here", *more), Display())
    words = [word for value in (*TINY, *more) for word in ("-s", value)]
    run = tmp_path / "there"
    words += ["--run-dir", str(run), "--plan-episodes", "0", "--collect-on", ray_cluster.where]
    with (tmp_path / "log").open("wb") as log:
        learner = subprocess.Popen(
            [sys.executable, "-m", "planet_rssm", "train", "planet", *words], stdout=log, stderr=log
        )
    end = time.monotonic() + 120
    while not (run / "checkpoints").exists() or len(location.numbered(run)) < 2:
        assert learner.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.01)
    learner.kill()
    assert learner.wait() == -signal.SIGKILL
    train(Run.open(run, settings_of(*more)), Display(), collect_on="ray")
    same(run, tmp_path / "here")


# A learner that has less patience with the head than it has by default.
IMPATIENT = """
import sys
from planet_rssm.base import cluster
from planet_rssm.cli.main import main

cluster._LOOK, cluster._GONE = 0.5, 2.0
main(sys.argv[1:])
"""


@needs_ray
@pytest.mark.slow
def test_a_head_that_is_gone_is_a_line_and_the_run_goes_on(tmp_path: Path) -> None:
    more = ["train.staleness=1", "train.collectors=1", "train.updates=20"]
    run, handler = tmp_path / "there", signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", cluster._token())
        warnings.simplefilter("ignore", ResourceWarning)
        from ray.cluster_utils import Cluster  # reads the variables

        node = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        node |= {"num_cpus": 1, "object_store_memory": 80_000_000}
        nodes = Cluster(initialize_head=True, head_node_args=node)
        address = nodes.address
        signal.signal(signal.SIGTERM, handler)
        words = [
            word for value in (*TINY, *more, "train.env_steps=99999") for word in ("-s", value)
        ]
        words += ["--run-dir", str(run), "--collect-on", f"ray:{address}"]
        with (tmp_path / "log").open("wb") as log:
            learner = subprocess.Popen(
                [sys.executable, "-c", IMPATIENT, "train", "planet", *words], stdout=log, stderr=log
            )
        try:
            end = time.monotonic() + 60
            while not (run / "checkpoints").exists() or len(location.numbered(run)) < 2:
                assert learner.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            nodes.head_node.kill_gcs_server(check_alive=False)
            assert learner.wait(30) == 1
        finally:
            learner.kill()
            nodes.shutdown()
            signal.signal(signal.SIGTERM, handler)
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert f"--collect-on: the head of Ray's cluster at {address} is gone (" in said
    assert "the same command with --resume" in said
    budget = f"train.env_steps={lines(run)[-1]['env_steps'] + 400}"
    train(Run.open(run, settings_of(*more, budget)), Display())
    train(new_run(tmp_path / "here", *more, budget), Display())
    same(run, tmp_path / "here")


@needs_ray
@pytest.mark.slow
def test_a_comparison_is_the_same_on_a_cluster(
    ray_cluster: OnThisMachine, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times are measured once and kept, the episodes are played again."""
    monkeypatch.setattr("planet_rssm.evaluation.equal_time.STEPS", (1, 2))
    on_this_machine = compare([str(here)], [1000.0], [1, 2])
    for path in (here / "eval").glob("*.json"):
        if not path.name.startswith("times-"):
            path.unlink()
    there = compare([str(here)], [1000.0], [1, 2], on="ray")
    assert not there.errors
    assert [one.to_json() for one in there.groups] == [
        one.to_json() for one in on_this_machine.groups
    ]


@needs_ray
@pytest.mark.slow
def test_a_sweep_is_the_same_on_a_cluster_and_goes_on(
    ray_cluster: OnThisMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    """Stopped, then with a run whose actor is killed; the same file once more does nothing."""

    def sweep(out: str, seeds: int) -> Path:
        path = tmp_path / f"{out}.yaml"
        settings = dict(word.split("=") for word in [*TINY, "train.env_steps=3000"])
        tasks = [settings.pop("env.id")]
        values = {"preset": "planet", "tasks": tasks, "seeds": seeds, "set": settings}
        path.write_text(json.dumps({**values, "out": str(tmp_path / out)}))
        return path

    [run] = Sweep.read(sweep("there", 1)).runs

    def stop(self: object) -> None:
        if run.folder.exists() and location.numbered(run.folder):
            raise KeyboardInterrupt

    command = ["sweep", str(sweep("there", 1)), "--on", ray_cluster.where]
    with monkeypatch.context() as patch:
        patch.setattr(on_ray._Runs, "_check_room", stop)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 130 and state_of(run).state == "stopped"
    log = (tmp_path / f"there/logs/{run.name}.log").read_text()
    assert "the same command with --resume continues" in log
    before = state_of(run).updates

    def gone(self: object) -> None:
        if state_of(run).state == "running" and state_of(run).updates > before:
            raise OSError("no route")

    with monkeypatch.context() as patch:
        lose(patch, gone)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 1 and state_of(run).state == "stopped"
    assert "is gone (no route); what was committed is kept: start Ray" in capfd.readouterr().err
    killed = []

    def kill(self: object) -> None:
        if not killed and state_of(run).state == "running":
            killed.extend(actors("RayTraining"))
            os.kill(killed[0], signal.SIGKILL)

    sweep("there", 2)
    with monkeypatch.context() as patch:
        patch.setattr(on_ray._Runs, "_check_room", kill)
        main(command)
    said = capfd.readouterr().err
    assert killed and said.count("it is begun again: its process was killed or crashed") == 1
    main([*command, "--json"])
    assert json.loads(capfd.readouterr().out) == {"begun": [], "failed": [], "jobs": []}
    main(["sweep", str(sweep("here", 2))])
    for ours in Sweep.read(sweep("there", 2)).runs:
        assert state_of(ours).state == "complete"
        same(ours.folder, tmp_path / "here" / ours.name)


def lose(patch: pytest.MonkeyPatch, ask: Callable[[object], None]) -> None:
    """Let the head be gone as soon as `ask` raises an OSError."""
    patch.setattr(cluster, "_LOOK", 0.0)
    patch.setattr(cluster, "_GONE", 0.0)
    patch.setattr(cluster.Head, "_ask", ask)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["eval", "collect"])
def test_a_head_that_is_gone_is_a_line(
    ray_cluster: OnThisMachine,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
    verb: str,
) -> None:
    def gone(self: object) -> None:
        raise OSError("no route")

    lose(monkeypatch, gone)
    words = {
        "eval": [str(here), "--fresh"],
        "collect": ["gym/Pendulum-v1", "--policy", "random", "--out", str(tmp_path / "set")],
    }[verb]
    with pytest.raises(SystemExit) as ended:
        main([verb, *words, "--episodes", "2", "--on", ray_cluster.where])
    said = capfd.readouterr().err + caplog.text
    assert ended.value.code == 1 and "start Ray again, then the same command\n" in said
    assert re.search(r"--on: the head of Ray's cluster at \S+ is gone \(no route\)", said)


def actors(kind: str) -> list[int]:
    """Return the processes of actors of this class."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ray::{kind}".encode()):
                found.append(int(path.parent.name))
    return found


def sweep_of_one(folder: Path, **ray: int) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(json.dumps({"preset": "quickstart", "out": str(folder / "out"), "ray": ray}))
    return Sweep.read(path)


@needs_ray
@pytest.mark.slow
def test_a_sweep_needs_a_folder_that_all_see(
    ray_cluster: OnThisMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of_one(tmp_path)
    begin = on_ray._Runs._begin

    def elsewhere(self: on_ray._Runs, *arguments) -> None:
        self._mark = "of another machine"
        begin(self, *arguments)

    monkeypatch.setattr(on_ray._Runs, "_begin", elsewhere)
    with pytest.raises(PlanetError, match="does not see .* all nodes share, with the same path"):
        on_ray.run_on(ray_cluster.where, sweep, sweep.runs, 1, print)
    assert not sweep.runs[0].folder.exists()


@needs_ray
@pytest.mark.slow
def test_a_sweep_that_no_node_has_room_for(
    ray_cluster: OnThisMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_SLOW", 0.2)
    monkeypatch.setattr(on_ray, "_ROOM", 0.5)
    sweep, said = sweep_of_one(tmp_path, num_gpus=8), []
    with pytest.raises(PlanetError, match=r"CPU 1, GPU 8, which no node has; add a node, or"):
        on_ray.run_on(ray_cluster.where, sweep, sweep.runs, 1, said.append)
    assert len(said) == 1 and said[0].endswith("it goes on when a node has room")


@needs_ray
@pytest.mark.slow
def test_an_evaluation_is_the_same_on_a_cluster(
    ray_cluster: OnThisMachine, here: Path, capfd: pytest.CaptureFixture
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
    ray_cluster: OnThisMachine, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Of a run with noise, in two shares of which the second is not full."""
    words = f"collect gym/Pendulum-v1 --policy {here} --noise 0.3 --envs 1 --episodes 5".split()
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
    ray_cluster: OnThisMachine,
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
