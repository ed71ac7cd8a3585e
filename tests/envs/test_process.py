"""What a worker's environment prints, starts and leaves behind."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.text import LONGEST
from planet_rssm.config import EnvSettings
from planet_rssm.envs import pool as pools
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.process import PRINTED

# How Python begins and ends matters; all other workers are forked.
by_python = pytest.mark.usefixtures("started_by_python")

ROGUES = '''
import os, pathlib, subprocess, sys, time
import gymnasium
import numpy as np

box = gymnasium.spaces.Box
here = pathlib.Path(__file__).parent


class Rogue(gymnasium.Env):
    """Shows the last action."""

    action_space, observation_space = box(-1, 1, (1,), np.float32), box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.act()
        return np.array(action, np.float32), 0.0, False, False, {}

    def act(self):
        pass


class Chatty(Rogue):
    def act(self):
        for line in range(30):
            print("x" * 100_000)
        print("the end of", self.np_random.integers(9), file=sys.stderr)


class Talked(Chatty):
    def act(self):
        super().act()
        raise RuntimeError("out of words")


class Farewell(Rogue):
    """Its library says good-bye as the process ends, as many simulators do."""

    def act(self):
        import atexit
        atexit.register(print, "destroy semaphore\\nbye")
        raise RuntimeError("joint 3 " + "burst " * 1000)


class Loud(Rogue):
    def act(self):
        os.write(1, b"q" * 100_000)
        os._exit(3)


class Forked(Rogue):
    """A helper of its own dies of an error."""

    def act(self):
        if not (child := os.fork()):
            raise RuntimeError("the helper alone")
        os.waitpid(child, 0)


class Parent(Rogue):
    """Starts processes: one of its group, one of another group, one of another session."""

    def __init__(self):
        groups = {}, {"process_group": 0}
        started = [subprocess.Popen(["sleep", "1000"], **group) for group in groups]
        started.append(subprocess.Popen(["sleep", "1000"], start_new_session=True))
        (here / "pids").write_text(" ".join(str(process.pid) for process in [*started]))

    def close(self):
        (here / "closed").write_text("yes")


class Stuck(Parent):
    def __init__(self):
        subprocess.Popen(["sh", "-c", f"echo $$ $PPID > {here}/pids; exec sleep 1000"])

    def act(self):
        (10**8) ** (10**8)  # for ever, and holds Python's lock


class Forks(Rogue):
    """Dies, but a copy of it has the pipes open."""

    def act(self):
        if not os.fork():
            time.sleep(1000)
        os._exit(3)


class Asks(Rogue):
    def act(self):
        assert sys.stdin.read() == "" and subprocess.run(["cat"], capture_output=True).stdout == b""


class Waits(Rogue):
    def __init__(self):
        time.sleep(1000)


class Never(Rogue):
    """Never the same."""

    def reset(self, *, seed=None, options=None):
        return np.array([int.from_bytes(os.urandom(4)) / 2**32], np.float32), {}
'''


@pytest.fixture
def rogue(tmp_path, monkeypatch):
    """Return a function that gives the settings of one of ROGUES."""
    (tmp_path / "rogues.py").write_text(textwrap.dedent(ROGUES))
    monkeypatch.syspath_prepend(tmp_path)

    def settings(name, **more):
        defaults = {
            "id": f"rogues:{name}",
            "observe": "vectors",
            "renderer": "none",
            "action_repeat": 1,
        }
        return EnvSettings(**defaults | more)

    return settings


def act(pool, value=0.5):
    return pool.step({0: np.full(1, value, np.float32)})[0]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_end(pids, seconds=20.0):
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def test_of_what_is_printed_the_end_is_kept(rogue):
    with EnvPool(rogue("Chatty"), 1) as pool:
        pool.reset({0: 0})
        for value in (0.25, 0.5, 0.75):
            assert act(pool, value).observation["vector"] == value
            assert len(pool._workers[0]._printed) <= PRINTED
        worker = pool._workers[0]
    assert worker._printed.decode().splitlines()[-1].startswith("the end of")


def test_last_words_come_after_much_talk(rogue):
    with EnvPool(rogue("Talked"), 1) as pool:
        pool.reset({0: 0})
        assert act(pool).words.startswith("RuntimeError: out of words (rogues.py, line")


@by_python
def test_an_error_is_what_is_reported_whatever_is_printed_after_it(rogue):
    with EnvPool(rogue("Farewell"), 1) as pool:
        pool.reset({0: 0})
        words = act(pool).words
    assert words.startswith("RuntimeError: joint 3 burst") and "(rogues.py, line" in words
    assert " ... " in words and len(words) < 500


@by_python
def test_a_line_without_end_is_shortened(rogue):
    with EnvPool(rogue("Loud"), 1) as pool:
        pool.reset({0: 0})
        assert re.fullmatch(r"q+ \.\.\. q+", words := act(pool).words) and len(words) <= LONGEST


def test_an_error_in_a_fork_of_the_environment_is_not_the_workers(rogue):
    with EnvPool(rogue("Forked"), 1) as pool:
        pool.reset({0: 0})
        assert not any(act(pool).lost for _ in range(2))


@by_python
def test_the_environment_is_closed_and_what_it_started_ends(rogue, tmp_path):
    with EnvPool(rogue("Parent"), 1) as pool:
        pids = (tmp_path / "pids").read_text().split()
        assert len(pids) == 3 and all(alive(pid) for pid in pids)
        pool.reset({0: 0})
    assert (tmp_path / "closed").read_text() == "yes"
    assert all_end(pids[:2])  # what took a session of its own is left to `close`
    os.kill(int(pids[2]), signal.SIGKILL)


def test_what_a_hung_environment_started_ends_in_every_session(rogue, tmp_path):
    with EnvPool(rogue("Parent", step_timeout=0.5), 1) as pool:
        os.kill(pool._workers[0].pid, signal.SIGSTOP)
        pids = (tmp_path / "pids").read_text().split()
        pool.reset({0: 0})
        assert all_end(pids)
        last = int((tmp_path / "pids").read_text().split()[2])
    os.kill(last, signal.SIGKILL)


def test_a_worker_that_hangs_with_pythons_lock_ends_with_a_killed_parent(rogue, tmp_path):
    script = """
        import os, signal, sys, threading, time
        import numpy as np
        from planet_rssm.config import EnvSettings
        from planet_rssm.envs.pool import EnvPool
        pool = EnvPool(EnvSettings.model_validate_json(sys.argv[1]), 1)
        pool.reset({0: 0})
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        pool.step({0: np.zeros(1, np.float32)})
    """
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-c", textwrap.dedent(script), rogue("Stuck").model_dump_json()]
    parent = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 and all_end(pids)


def test_a_death_is_noticed_though_a_copy_has_the_pipes(rogue):
    with EnvPool(rogue("Forks", step_timeout=600), 1) as pool:
        pool.reset({0: 0})
        begin = time.monotonic()
        step = act(pool)
        assert (step.lost, step.words) == (True, "exit code 3")
        assert time.monotonic() - begin < 100


@by_python
def test_what_an_environment_reads_is_no_command(rogue):
    with EnvPool(rogue("Asks"), 1) as pool:
        pool.reset({0: 0})
        assert [act(pool, value).observation["vector"] for value in (0.25, 0.5)] == [0.25, 0.5]


@by_python
def test_a_start_that_hangs_ends_in_a_line_that_names_the_setting(rogue, monkeypatch):
    monkeypatch.setattr(pools, "SHORTEST_START", 0.2)
    monkeypatch.setattr(pools, "_PATIENCE", 0.0)
    with pytest.raises(PlanetError) as caught:
        EnvPool(rogue("Waits", step_timeout=0.1), 1)
    assert "not ready within 0.2 s; if it needs longer, raise env.step_timeout" in str(caught.value)


def test_an_episode_that_is_not_the_same_again_is_lost(rogue, caplog):
    with EnvPool(rogue("Never"), 1) as pool:
        pool.reset({0: 0})
        act(pool)
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        step = act(pool)
        assert (step.lost, step.words, pool.lost) == (True, "killed by SIGKILL", 1)
        pool.reset({0: 0})
        assert not act(pool).lost
    assert (
        "environment 0 does not play the same again: its episode ends at step 0 of 1"
        in caplog.messages
    )
