"""The parent's end of one worker process: start, send, receive, end."""

import contextlib
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from planet_rssm.config import EnvSettings
from planet_rssm.envs.registry import worker_environment
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.envs.worker import Shared
from planet_rssm.errors import PlanetError

_log = logging.getLogger("planet_rssm")


class WorkerProcess:
    """One `planet_rssm.envs.worker`. It holds nothing that outlives a kill -9 of parent or worker.

    It runs in a session of its own, so that Ctrl-C reaches the parent alone, which then finishes what it must; it sees
    the modules that the parent sees, and has one thread for arithmetic.
    """

    shared: Shared
    spec: EnvSpec

    def __init__(self, settings: EnvSettings) -> None:
        """Start the process and return at once; its first answer is for `begin`."""
        self.ready = False
        self._memory = _shareable_file()
        self._errors = tempfile.TemporaryFile()
        self._received = b""
        self.descriptor, replies = os.pipe()  # readable when there is something to receive
        arguments = [settings.model_dump_json(), str(self._memory), str(replies)]
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-P", "-m", "planet_rssm.envs.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=self._errors,  # whatever a library prints
            stderr=self._errors,
            bufsize=0,
            pass_fds=(self._memory, replies),
            start_new_session=True,
            env=environment(settings),
        )
        os.close(replies)
        assert self._process.stdin is not None  # for the type checker
        self._commands = self._process.stdin
        self.pid = self._process.pid

    def begin(self, first: dict[str, Any]) -> None:
        """Take the first answer: map the shared memory, which the worker has sized by now.

        Raises:
            PlanetError: the settings are at fault, in the worker's words.
        """
        if "error" in first:
            raise PlanetError(first["error"])
        self.spec = EnvSpec.from_json(first["spec"])
        self.shared, self.ready = Shared(self._memory, self.spec), True

    def send(self, command: dict[str, Any]) -> None:
        """Send a command; that the worker is dead is for `receive` to say."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(json.dumps(command).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Read once; return the answer if it is complete, else None.

        Raises:
            EOFError: the worker is dead, or dying.
        """
        data = os.read(self.descriptor, 1 << 16)
        if not data:
            raise EOFError
        self._received += data
        if not self._received.endswith(b"\n"):
            return None
        line, self._received = self._received, b""
        answer = json.loads(line)
        for note in answer.pop("log", []):
            _tell(*note)
        return answer

    def dismiss(self) -> None:
        """Tell the worker to end."""
        self._commands.close()

    def end(self, patience: float) -> str:
        """Wait `patience` seconds for the worker to end, then kill it; return its last words in one line."""
        try:
            words = self._obituary(self._process.wait(patience))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            words = "no answer in time"
        self._commands.close()
        self._errors.close()
        os.close(self.descriptor)
        os.close(self._memory)
        return words

    def _obituary(self, code: int) -> str:
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if code and lines else f"exit code {code}"


def _shareable_file() -> int:
    """Return the descriptor of a file that has no name, and so vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("planet_rssm")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def environment(settings: EnvSettings) -> dict[str, str]:
    """Return the variables of a process that holds this environment.

    It finds the modules that we find, then those in the current folder.
    """
    path = os.pathsep.join([*(entry or os.getcwd() for entry in sys.path), os.getcwd()])
    ours = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYOPENGL_PLATFORM": None} | worker_environment(settings)
    return {key: value for key, value in (os.environ | ours).items() if value is not None}


@functools.cache
def _tell(level: int, line: str) -> None:
    """Log what a worker logged, once in this process: its fellows log the same."""
    _log.log(level, line)
