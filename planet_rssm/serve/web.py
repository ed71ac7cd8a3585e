"""The service over HTTP: what it takes is checked by its length and its head before it is read.

    GET    /health               200 while it plans
    GET    /metrics              counts and latencies, as Prometheus reads them
    GET    /agent                spec, horizon and rounds, JSON
    POST   /sessions             {"seed": N} -> {"session": KEY}
    POST   /sessions/KEY/decide  frames -> a plan, see control/wire.py
    DELETE /sessions/KEY

An error is a status and one line of text. One thread reads and answers all connections: a thread
for each would fight with the one that plans for Python's lock.
"""

import contextlib
import functools
import hmac
import json
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Self

from planet_rssm.base.errors import PlanetError
from planet_rssm.control import wire
from planet_rssm.control.remote import OCTETS
from planet_rssm.serve.connection import TEXT, Answer, Connection, Place
from planet_rssm.serve.service import Outcome, RefusedError, Service

JSON = "application/json"
MOST_JSON = 1 << 12  # bytes of a request that is no decision
WAITING = 128  # connections that the system keeps until they are taken
PATIENCE = 60.0  # seconds that a client may be silent, or not read, before it is left


class WebServer:
    """Listens from the beginning; `serve_forever` answers."""

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        *,
        token: str | None = None,
        connections: int = 512,
        patience_s: float = PATIENCE,
    ) -> None:
        """Listen on `host`, on a free port where `port` is 0.

        Args:
            service: what is served.
            host: an address of this machine.
            port: of it.
            token: what every client must say, but to ask for the health; None: nothing.
            connections: at once, at most; another one is closed.
            patience_s: seconds after which a silent client, or one that does not read, is left.

        Raises:
            PlanetError: it cannot listen there.
        """
        self.service = service
        self.patience_s = patience_s
        self._token = token
        self._most = connections
        self._most_bytes = wire.most_bytes(service.agent.spec)
        self._connections: set[Connection] = set()
        self._outcomes: deque[tuple[Connection, Outcome]] = deque()
        self._selector = selectors.DefaultSelector()
        self._ending = False
        self._ended = threading.Event()
        try:
            self._listener = socket.create_server((host, port), backlog=WAITING)
        except OSError as error:
            raise PlanetError(
                f"--host {host} --port {port}: cannot listen there ({error.strerror}); use another"
            ) from None
        self.server_port: int = self._listener.getsockname()[1]
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        for source, ready in ((self._listener, self._accept), (self._woken, self._deliver)):
            source.setblocking(False)
            self._selector.register(source, selectors.EVENT_READ, ready)

    def serve_forever(self) -> None:
        """Answer until `shutdown`, which another thread calls."""
        turn = self.patience_s / 4
        seen = time.monotonic()
        try:
            while not self._ending:
                for key, _ in self._selector.select(turn):
                    key.data()
                if time.monotonic() - seen > turn:
                    seen = time.monotonic()
                    for connection in list(self._connections):
                        connection.leave(seen - self.patience_s)
        finally:
            self._ended.set()

    def shutdown(self) -> None:
        """Let `serve_forever` return, and wait until it has."""
        self._ending = True
        self._wake()
        self._ended.wait()

    def server_close(self) -> None:
        """Close all connections, where nobody serves any more."""
        self._deliver()
        for connection in list(self._connections):
            connection.close()
        self._selector.close()
        for end in (self._listener, self._woken, self._waker):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server_close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it has gone again, or no descriptor is free
            client, _ = self._listener.accept()
            if len(self._connections) >= self._most:
                self.service.counts["refused_connections"] += 1
                client.close()
                return
            counts, closed = self.service.counts, self._connections.discard
            self._connections.add(Connection(client, self._selector, counts, self._find, closed))

    def _find(
        self, connection: Connection, method: str, path: str, named: Mapping[str, str]
    ) -> Place:
        parts = path.strip("/").split("/")
        if (method, parts) != ("GET", ["health"]):
            self._check_token(named)
        match method, *parts:
            case "GET", "health":
                return Place(0, "", self._health)
            case "GET", "metrics":
                return Place(0, "", self._metrics)
            case "GET", "agent":
                return Place(0, "", lambda _: _json(self.service.about()))
            case "POST", "sessions":
                return Place(MOST_JSON, JSON, self._begin)
            case "DELETE", "sessions", key:
                return Place(0, "", functools.partial(self._end, key))
            case "POST", "sessions", key, "decide":
                ask = functools.partial(self._decide, connection, key)
                return Place(self._most_bytes, OCTETS, ask)
        raise RefusedError(404, "path", f"{method} {path[:100]!r}: no such place")

    def _check_token(self, named: Mapping[str, str]) -> None:
        said, token = named.get("authorization", ""), self._token
        if token is not None and not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
            self.service.counts["refused_token"] += 1
            raise RefusedError(401, "token", "the token is missing or another")

    def _health(self, _: bytes) -> Answer:
        if not self.service.healthy:
            raise RefusedError(503, "closed", "it does not plan any more")
        return Answer(TEXT, b"ok\n")

    def _metrics(self, _: bytes) -> Answer:
        lines = [f"planet_{name} {value:g}" for name, value in self.service.measured().items()]
        return Answer(TEXT, "\n".join([*lines, ""]).encode())

    def _begin(self, body: bytes) -> Answer:
        return _json({"session": self.service.begin(_seed(body))})

    def _end(self, key: str, _: bytes) -> Answer:
        self.service.end(key)
        return _json({})

    def _decide(self, connection: Connection, key: str, body: bytes) -> None:
        request = wire.unpack_request(body, self.service.agent.spec)
        self.service.ask(key, request, functools.partial(self._decided, connection))

    def _decided(self, connection: Connection, outcome: Outcome) -> None:
        """Take an outcome over from the thread that plans."""
        self._outcomes.append((connection, outcome))
        if len(self._outcomes) == 1:  # else this thread is woken already
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is full, or nobody serves any more
            self._waker.send(b"\0")

    def _deliver(self) -> None:
        """Send what was decided."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(WAITING)
        while self._outcomes:
            connection, outcome = self._outcomes.popleft()
            if isinstance(outcome, PlanetError):
                connection.answer(connection.refusal(outcome))
            else:
                connection.answer(Answer(OCTETS, wire.pack_reply(outcome)))


def _json(value: object) -> Answer:
    return Answer(JSON, json.dumps(value).encode())


def _seed(body: bytes) -> int:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    seed = value.get("seed", 0) if isinstance(value, dict) else None
    if type(seed) is not int or not 0 <= seed < 1 << 63:
        raise PlanetError('session: must be JSON, {"seed": N} with N from 0 to 2^63 - 1')
    return seed
