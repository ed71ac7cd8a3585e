"""The parent's end of one worker process: start, send, receive, end."""

import contextlib
import functools
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from planet_rssm.base.descriptors import hold_standard
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl
from planet_rssm.envs.registry import worker_environment
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.envs.worker import Shared

PRINTED = 1 << 16  # bytes of what a worker printed that are kept, the last ones
_CHUNK = 1 << 16  # bytes of a pipe that are read at once
_PIPES = 16  # chunks that are read of what was printed last; a pipe holds one
_CHECK_EVERY = 0.02  # seconds between two checks of a process that is ending
SILENT = "no answer in time"
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_log = logging.getLogger("planet_rssm")


class Ending(NamedTuple):
    """How a worker ended."""

    words: str  # the last line that it printed
    accident: bool  # killed from outside, or silent: its environment need not do it again


class WorkerProcess:
    """One `planet_rssm.envs.worker`. It owns nothing that outlives a kill -9 of parent or worker.

    It runs in its own session, so that Ctrl-C reaches the parent alone, which then finishes what it
    must. It finds the modules that the parent finds, and has one thread for arithmetic. When it
    ends, and when the parent dies, the processes that its environment started end with it.
    """

    shared: Shared
    spec: EnvSpec

    def __init__(self, settings: EnvSettings, row: int = 0) -> None:
        """Start the process, the `row`-th of several; its first answer is for `begin`.

        This returns at once.
        """
        hold_standard()
        self.ready = False
        self._memory = _shareable_file()
        self._received = b""
        self._printed = b""
        self._last = ""  # words of the worker, if an error ended it
        self.descriptor, replies = os.pipe()  # readable when there is something to receive
        self.prints, printed = os.pipe()  # readable when there is something to `listen` to
        life, self._life = os.pipe()  # nothing is written: the worker notices when it closes
        os.set_blocking(self.prints, False)
        arguments = [settings.model_dump_json(), str(self._memory), str(replies), str(life)]
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-P", "-m", "planet_rssm.envs.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=printed,  # whatever a library prints
            stderr=printed,
            bufsize=0,
            pass_fds=(self._memory, replies, life),
            start_new_session=True,
            env=environment(settings, row),
        )
        for other_end in (replies, printed, life):
            os.close(other_end)
        assert self._process.stdin is not None  # for the type checker
        self._commands = self._process.stdin
        self.pid = self._process.pid

    def begin(self, first: Json) -> None:
        """Take the first answer: map the shared memory, which the worker has sized by now."""
        self.spec = EnvSpec.from_json(first["spec"])
        self.shared = Shared(self._memory, self.spec)
        self.ready = True

    def send(self, command: Json) -> None:
        """Send a command; `receive` finds out if the worker is dead."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(json.dumps(command).encode() + b"\n")

    def receive(self) -> Json | None:
        """Read once; return the answer if it is complete, else None.

        Raises:
            EOFError: the worker is dead, or dying.
            PlanetError: settings or environment are at fault; another worker would fail alike.
        """
        data = os.read(self.descriptor, _CHUNK)
        if not data:
            raise EOFError
        self._received += data
        if not self._received.endswith(b"\n"):
            return None
        complete, self._received = self._received, b""
        answer = json.loads(complete)
        for level, line in answer.pop("log", []):
            _log_once(level, line)
        if "error" in answer:
            raise PlanetError(answer["error"])
        if "last" in answer:
            self._last = answer["last"]
            raise EOFError
        return answer

    def listen(self) -> bool:
        """Read once of what it prints, of which the end is kept; False at the end of it."""
        try:
            data = os.read(self.prints, _CHUNK)
        except BlockingIOError:
            return True
        self._printed = (self._printed + data)[-PRINTED:]
        return bool(data)

    @property
    def dead(self) -> bool:
        """Whether the process has ended; its children may still have its pipes open."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:  # its number stays taken until `end`
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # SIGCHLD is ignored: the system has taken it away
            return True

    def dismiss(self) -> None:
        """Have the worker close its environment and end."""
        self._commands.close()

    def end(self, patience: float) -> Ending:
        """Wait `patience` seconds for the worker to end, then kill it and what it has started."""
        deadline = time.monotonic() + patience
        while not (ended := self.dead) and (left := deadline - time.monotonic()) > 0:
            self._read_prints(min(left, _CHECK_EVERY))
        _kill(_started_by(self.pid))
        # PermissionError: macOS, of a group of zombies
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        for _ in range(_PIPES):  # a process that left the session may print for ever
            if not self._read_prints(0.0):
                break
        self._commands.close()
        for descriptor in (self.descriptor, self.prints, self._life, self._memory):
            os.close(descriptor)
        if self._last:
            return Ending(self._last, accident=False)
        return self._ending(code) if ended else Ending(SILENT, accident=True)

    def _read_prints(self, seconds: float) -> bool:
        """Read what it prints, waiting so long for it; return whether there was any."""
        poll = select.poll()
        poll.register(self.prints, select.POLLIN)
        if not poll.poll(1000 * seconds):
            return False
        if more := self.listen():
            return more
        time.sleep(seconds)  # closed by the process, which still runs
        return False

    def _ending(self, code: int) -> Ending:
        if code < 0:
            return Ending(f"killed by {signal.Signals(-code).name}", -code in _FROM_OUTSIDE)
        lines = self._printed.decode(errors="replace").strip().splitlines()
        words = one_line(lines[-1]) if code and lines else f"exit code {code}"
        return Ending(words, accident=False)


def _started_by(pid: int) -> set[int]:
    """Return the processes of the session that `pid` leads, and its descendants elsewhere.

    Linux only; elsewhere none.
    """
    parents = {}
    started = {pid}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            _, parent, _, session = path.read_text(errors="replace").rpartition(")")[2].split()[:4]
            parents[int(path.parent.name)] = int(parent), int(session)
    while new := {
        child for child, above in parents.items() if child not in started and started & {*above}
    }:
        started |= new
    return started - {pid}


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _shareable_file() -> int:
    """Return the descriptor of a file that has no name, and so vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("planet_rssm")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def environment(settings: EnvSettings, row: int = 0) -> dict[str, str]:
    """Return the variables of a process that runs this environment, the `row`-th of several.

    It finds the modules that this process finds, then those in the current folder.
    """
    path = os.pathsep.join([*(entry or os.getcwd() for entry in sys.path), os.getcwd()])
    ours = {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "PYOPENGL_PLATFORM": None,
    } | worker_environment(settings)
    if ours.get("MUJOCO_GL") == "egl":
        ours |= gl.device_variables(row)
    return {key: value for key, value in (os.environ | ours).items() if value is not None}


@functools.cache
def _log_once(level: int, line: str) -> None:
    """Log what a worker logged, once in this process: the other workers log the same."""
    _log.log(level, line)
