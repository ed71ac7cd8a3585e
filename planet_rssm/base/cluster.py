"""Ray Core (extra `ray`): the cluster that `ray` or `ray:ADDRESS` names, to work on."""

import contextlib
import functools
import importlib.util
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.text import one_line

_PATIENCE = 5.0  # seconds for a first answer from another machine
_PORT = "6379"
_LOOK = 2.0  # seconds between two looks at the head, and for an answer
_GONE = 20.0  # seconds without any answer after which it is gone: Ray ends the process after 60
# Ray speaks gRPC, which is HTTP/2: both sides begin with a frame of settings, here of none.
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS


def check_cluster(option: str, where: str) -> None:
    """Refuse a `where` that is neither `ray` nor `ray:ADDRESS`, before anything is begun.

    Raises:
        PlanetError: it is something else, or Ray is not installed.
    """
    _address(option, where)
    if importlib.util.find_spec("ray") is None:
        raise PlanetError(f"{option} {where}: needs Ray; pip install 'planet-rssm[ray]'")


@contextlib.contextmanager
def connected(option: str, where: str, cpus: int) -> Iterator[None]:
    """Work on a cluster inside: on that of the address, or on one of this process alone.

    The latter begins on this machine with room for `cpus` tasks at once and ends with the block. A
    program that has called `ray.init` itself keeps its cluster.

    Raises:
        PlanetError: see `check_cluster`, or the cluster cannot be reached or does not begin.
    """
    check_cluster(option, where)
    address = _address(option, where)
    if address is not None:
        _try_port(option, where, address)
    import ray

    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        begin = functools.partial(ray.init, log_to_driver=False, configure_logging=False)
        if address is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="planet-ray-",
                    dir="/tmp",  # names of sockets may have no more than 107 bytes
                    ignore_cleanup_errors=True,
                )
            )
            stack.enter_context(_own_token())
            room = max(cpus, os.cpu_count() or 1)
            begin = functools.partial(
                begin, "local", num_cpus=room, include_dashboard=False, _temp_dir=folder
            )
        else:
            begin = functools.partial(begin, address)
        give_back = _sigterm()
        stack.callback(give_back)
        stack.callback(ray.shutdown)
        stack.enter_context(_silence())
        _try(f"{option} {where}", begin)
        give_back()
        yield


class Head:
    """The head of the cluster that this process is connected to, by whether its port answers.

    The system answers, however busy the head is. Ray itself says nothing: 60 s after the head has
    gone it ends this process.
    """

    def __init__(self, option: str, again: str = "the same command") -> None:
        """Take the option that named the cluster, and what to do once Ray has started again."""
        import ray

        self.gone = False
        self._option = option
        self._again = again
        self._address: str = ray.get_runtime_context().gcs_address
        self._looked = time.monotonic()
        self._silent: float | None = None  # since the first of the looks that failed in a row

    def check(self) -> None:
        """Look whether it is there, if the last look was a while ago.

        Raises:
            PlanetError: it has been gone for long. Most calls of Ray that ask it never return.
        """
        if time.monotonic() - self._looked < _LOOK:
            return
        try:
            self._ask()
        except OSError as error:
            self._looked = time.monotonic()
            self._silent = self._silent or self._looked
            if self._looked - self._silent > _GONE:
                self.gone = True
                raise PlanetError(
                    f"{self._option}: the head of Ray's cluster at {self._address} is gone "
                    f"({one_line(str(error))}); what was committed is kept: start Ray again, then "
                    f"{self._again}"
                ) from error
        else:
            self._looked, self._silent = time.monotonic(), None

    def _ask(self) -> None:
        host, _, port = self._address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _LOOK).close()


def why_lost(error: Exception) -> str:
    """Return in a line why an actor was lost; Ray says it in a paragraph."""
    text = str(error)
    if "worker process has died" in text:
        return "its process was killed or crashed"
    if "unavailable" in text:
        return "its process does not answer"
    if "node has died" in text or "NodeDied" in type(error).__name__:
        return "its node is gone"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1] if lines else type(error).__name__)


def _address(option: str, where: str) -> str | None:
    name, _, address = where.partition(":")
    if name != "ray" or where == "ray:" or address.startswith("//"):
        raise PlanetError(
            f"{option} {where}: must be ray, for a cluster of this machine, or ray:ADDRESS with "
            "the HOST:PORT of a head node or auto, on a machine that is a node of it"
        )
    return address or None


def _try_port(option: str, where: str, address: str) -> None:
    """Refuse an address where nobody listens, or no Ray: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":") if ":" in address else (address, "", _PORT)
    try:
        with socket.create_connection((host, int(port)), _PATIENCE) as link:
            link.sendall(_HELLO)
            answer = link.recv(len(_SETTINGS), socket.MSG_WAITALL)
    except (OSError, ValueError, OverflowError) as error:
        raise PlanetError(
            f"{option} {where}: no head node answers at {address} ({one_line(str(error))}); start "
            f"one there: ray start --head --port {_PORT}"
        ) from error
    if answer[3:4] != _SETTINGS[3:4] and "RAY_USE_TLS" not in os.environ:
        raise PlanetError(
            f"{option} {where}: what listens at {address} is no head node; give the port that "
            f"`ray start --head` was given, {_PORT} unless it was another"
        )


def _try(what: str, begin: Callable[[], object]) -> None:
    """Call `ray.init`; what it writes and raises becomes one line.

    Its libraries write to standard error at each of many tries, what the exception does not have.
    """
    import ray

    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            begin()
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            line = f"{one_line(str(error))}; `ray status` on this machine says what it is part of"
            no_token = isinstance(error, ray.exceptions.AuthenticationError)
            if no_token or b"InvalidAuthToken" in os.pread(said.fileno(), 1 << 16, 0):
                line = (
                    "the cluster asks for Ray's token; give this command RAY_AUTH_MODE=token, and "
                    "in RAY_AUTH_TOKEN or ~/.ray/auth_token the one that the cluster has"
                )
            raise PlanetError(f"{what}: {line}") from error
        finally:
            os.dup2(before, 2)
            os.close(before)


@functools.cache  # Ray reads it once in a process
def _token() -> str:
    return secrets.token_hex(32)


@contextlib.contextmanager
def _own_token() -> Iterator[None]:
    """Let only this process and its own into the cluster that it begins inside.

    Without a token of ours Ray writes one into the home folder, for all clusters to come. It asks
    for one unless RAY_AUTH_MODE says otherwise, which it sets.
    """
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    before = {name: os.environ.get(name) for name in names}
    if not any(before.values()):
        os.environ["RAY_AUTH_TOKEN"] = _token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep standard output ours: Ray prints there what goes wrong on nodes, always."""
    from ray._private import worker

    name = "print_to_stdstream"
    if (before := getattr(worker, name, None)) is None:  # another version has another way
        yield
        return
    setattr(worker, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(worker, name, before)


def _sigterm() -> Callable[[], None]:
    """Return what gives SIGTERM back to whom it is now.

    Ray has a handler of its own from its begin on, by which the process ends at once. At its end
    the system has none any more, though Python says otherwise.
    """
    before = signal.getsignal(signal.SIGTERM)

    def give_back() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

    return give_back
