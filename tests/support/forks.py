"""Real processes, forked from one that has imported everything: Python's start takes seconds.

Most of what a test with a worker process waits for is the import of numpy, MuJoCo and torch. While
this is on, `python -m planet_rssm` and its workers are forked instead, from a server: a process of
one thread that has imported them. A fork is a child of the process that asked for it, with its own
number, session, descriptors, folder, variables and modules of the user's; it is killed, stopped and
waited for like any other. What it does not go through is the start of Python itself: tests of that
use the fixture `started_by_python`.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import inspect
import io
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compiled
import parsed

WORKER = "planet_rssm.envs.worker"
MODULES = ("planet_rssm", WORKER, "planet_rssm.training.collector_worker", "follower")
IMPORTED = (
    *MODULES[:-1], "planet_rssm.cli.train", "planet_rssm.cli.collect",
    "planet_rssm.training.trainer",
    "planet_rssm.training.record", "planet_rssm.training.agent_player", "planet_rssm.report.curves",
    "matplotlib.figure", "dm_control.suite", "torch.utils.tensorboard",
)  # fmt: skip
# What Python, a renderer or a library reads as it starts. A server is started with these; where a
# process is to have others, it is not forked.
AT_START = ("PYTHON", "OMP_", "OPENBLAS_", "MKL_", "LD_", "MUJOCO_GL", "PYOPENGL_")
OURS = {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "disable"}
_CUSTOM = "sitecustomize", "usercustomize"
_FREE = 500  # descriptors from here on are used while those of a fork are put in place
_SUBREAPER = 36  # of prctl: orphans among its descendants become children of this process
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGALRM}

_Popen, real_fsync = subprocess.Popen, os.fsync
_NAMES = list(inspect.signature(_Popen._execute_child).parameters)[1:]
_started_by_python = False


def fsync(file: Any) -> None:
    """In place of os.fsync, which takes most of a tiny run's time on a slow disk.

    No test cuts the power, and what a process has written outlives its kill without it.
    """
    os.fstat(file if isinstance(file, int) else file.fileno())  # it has to be open all the same


@contextlib.contextmanager
def started_by_python() -> Iterator[None]:
    """Nothing is forked meanwhile."""
    global _started_by_python
    before, _started_by_python = _started_by_python, True
    yield
    _started_by_python = before


class Popen(_Popen):
    """subprocess.Popen, whose process is forked where it can be."""

    def _execute_child(self, *arguments: Any) -> None:
        asked = dict(zip(_NAMES, arguments, strict=True))
        request = _request(asked)
        if request is None:
            return super()._execute_child(*arguments)
        pipes = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        standard = [number if pipe == -1 else pipe for number, pipe in enumerate(pipes)]
        self.pid = Server.here().fork(request, [*standard, *asked["pass_fds"]])
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in ends))


class Server:
    """The end of a process that has one: it forks what is asked for."""

    _known: dict[int, "Server"] = {}  # by process: a fork of one that has a server has none

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self.modules = set(json.loads(channel.recv(1 << 20)))  # that the server has imported

    @classmethod
    def here(cls) -> "Server":
        """Return the server of this process, which is started at its first use."""
        if os.getpid() not in cls._known:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            process = _Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | OURS | {"PYTHONPATH": os.pathsep.join(_PATH)},
                start_new_session=True,
            )
            theirs.close()
            cls._known[os.getpid()] = cls(ours)
            cls._known[os.getpid()].process = process  # it ends when this process does
        return cls._known[os.getpid()]

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Return the number of a new child of this process."""
        libc = ctypes.CDLL(None)
        with self._lock:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            libc.prctl(_SUBREAPER, 1)
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
                return int(self._channel.recv(64))
            finally:
                libc.prctl(_SUBREAPER, 0)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def at_start(variables: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(AT_START) and name != "PYTHONPATH"
    }


def _request(asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a fork is to become; None if it has to be started by Python."""
    if sys.platform != "linux":  # whose orphans can be adopted
        return None
    words = [os.fspath(word) for word in asked["args"]] if isinstance(asked["args"], list) else []
    options = [word for word in words[1:3] if word in ("-u", "-P")]
    program, *words = words[:1] + words[1 + len(options) :] or [""]
    if program != sys.executable or words[:1] != ["-m"] or words[1] not in MODULES:
        return None
    variables = dict(os.environ if asked["env"] is None else asked["env"])
    folder = os.getcwd() if asked["cwd"] is None else os.fspath(asked["cwd"])
    path = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = path if "-P" in options else [folder, *path]
    if (
        _started_by_python
        or at_start(variables) != at_start(os.environ | OURS)
        or asked["preexec_fn"]
        or os.geteuid() != _USER
        or max(asked["pass_fds"], default=0) >= _FREE
        or _hides(path, Server.here().modules)
    ):
        return None
    return {
        "module": words[1],
        "words": words[2:],
        "variables": variables,
        "path": path,
        "folder": folder,
        "session": asked["start_new_session"],
        "unbuffered": "-u" in options,
        "descriptors": [0, 1, 2, *asked["pass_fds"]],
        "parent": os.getpid(),
    }


def _hides(path: list[str], modules: set[str]) -> bool:
    """Whether a folder of this path, put there by a test, has another module of such a name."""
    return any(
        os.path.isfile(f"{folder}/{name}/__init__.py")
        if os.path.isdir(f"{folder}/{name}")
        else name.endswith(".py")
        for folder in path
        if folder not in _KNOWN and os.path.isdir(folder)
        for name in os.listdir(folder)
        if name.removesuffix(".py") in modules
    )


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork until the other end is closed; return in each fork, with what it is to become."""
    channel.send(json.dumps([name for name in sys.modules if "." not in name]).encode())
    while True:
        data, descriptors, *_ = socket.recv_fds(channel, 1 << 20, 64)
        if not data:
            os._exit(0)
        if not (child := os.fork()):
            if os.fork():
                os._exit(0)  # so that the fork is an orphan, which the asking process adopts
            return json.loads(data), descriptors
        os.waitpid(child, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
    """Make this process one that was started by the process that asked."""
    end = time.monotonic() + 10
    while os.getppid() != request["parent"]:
        time.sleep(0.0005)
        if time.monotonic() > end:
            os._exit(1)  # it has died
    if request["session"]:
        os.setsid()
    channel.send(str(os.getpid()).encode())
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _FREE) for descriptor in descriptors]
    os.closerange(0, _FREE)
    for source, target in zip(high, request["descriptors"], strict=True):
        os.dup2(source, target)
    os.closerange(_FREE, max(high) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    sys.path[:] = [*request["path"], *_PATH]
    importlib.invalidate_caches()
    sys.stdin = open(0, closefd=False)
    if request["unbuffered"]:
        raw = open(1, "wb", buffering=0, closefd=False)
        sys.stdout = io.TextIOWrapper(raw, write_through=True)
    else:
        sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    for name in _CUSTOM:  # as Python itself does
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _run(channel: socket.socket) -> None:
    """Serve; what a fork returns from, it is to run."""
    request, descriptors = _serve(channel)
    _become(request, descriptors, channel)
    channel.detach()  # its number is another's by now
    if request["module"] != WORKER:  # its workers have a server, from before it has threads
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            ours.close()
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return _run(theirs)
        theirs.close()
        Server._known = {os.getpid(): Server(ours)}
        subprocess.Popen = Popen
    sys.argv = [request["module"], *request["words"]]
    if "." in request["module"]:  # else it is the package, which stays
        del sys.modules[request["module"]]  # or Python warns of a second copy
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _end(1)
    _end(0)


def _end(code: int) -> None:
    """End as Python does, but for taking apart all that was imported: it takes a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


_PATH = [entry or os.getcwd() for entry in sys.path]  # where all of them find modules
_USER = os.geteuid()
_KNOWN = {*_PATH, str(Path(__file__).parents[2])}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.fsync = fsync
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # of an extra
            importlib.import_module(name)
    logging.root.handlers.clear()  # absl, which dm_control imports, sets one up if nobody has
    compiled.keep(("cartpole", "swingup"))  # the task of most tests
    parsed.keep()
    config = sys.modules["planet_rssm.config"]
    for preset in config.presets():
        config.load(preset)
    gc.freeze()  # else a fork's first collection writes into all pages that it shares
    _run(socket.socket(fileno=int(sys.argv[1])))
