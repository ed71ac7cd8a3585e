"""The service over HTTP by uvicorn: one thread for all clients, each of whom can do little harm.

uvicorn itself limits neither connections that say nothing, nor heads, nor the requests that a
client sends ahead, nor how long it waits for a client.
"""

import asyncio
import functools
import logging
import socket
from http import HTTPStatus
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.serve.service import Service
from planet_rssm.serve.web import NO_LENGTH, PATIENCE, TEXT, asgi_app

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, httptools
except ImportError as error:
    raise PlanetError(f"needs {error.name}: pip install 'planet-rssm[serve]'") from None

BACKLOG = 128  # connections that wait to be taken
MOST_HEAD = 1 << 16  # bytes
MOST_AHEAD = 1 << 20  # bytes that a client sends before it has the answers
PART = 1 << 11  # bytes that are parsed before it is looked whether a request waits
GRACE = 5  # seconds for requests under way at the end

_log = logging.getLogger("planet_rssm")


class WebServer:
    """Listens; `run` serves until SIGINT, SIGTERM or `end`."""

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
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise PlanetError(
                f"--host {host} --port {port}: cannot listen there ({error.strerror}); use another"
            ) from None
        self.port = self._socket.getsockname()[1]
        patience: Any = patience_s  # any number will do
        protocol: Any = functools.partial(_Protocol, service=service, most=connections)
        self._server = uvicorn.Server(
            uvicorn.Config(
                asgi_app(service, token=token, patience_s=patience_s),
                interface="asgi3",
                http=protocol,
                ws="none",
                lifespan="off",
                backlog=BACKLOG,
                timeout_keep_alive=patience,
                timeout_graceful_shutdown=GRACE,
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="debug" if _log.isEnabledFor(logging.DEBUG) else "critical",
            )
        )

    def run(self) -> None:
        """Serve; requests under way at the end are answered, for a few seconds."""
        self._server.run([self._socket])

    def end(self) -> None:
        """Let `run` return soon; any thread may call this."""
        self._server.should_exit = True


class _Joining:
    """A transport that sends an answer's head with its body: two packets wake a client twice."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ANN401
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(b"".join(parts))


class _Protocol(HttpToolsProtocol):
    """A connection. uvicorn's timer for one that is idle is here for all that a client delays."""

    timeout_keep_alive_task: asyncio.TimerHandle | None

    def __init__(self, *, service: Service, most: int, **given: Any) -> None:  # noqa: ANN401
        super().__init__(**given)
        self._service = service
        self._most = most
        self._unread = bytearray()  # not parsed yet
        self._head = 0  # bytes of a head that is not complete

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        joining: Any = _Joining(transport, self.loop)
        super().connection_made(joining)
        self._watch()
        if len(self.connections) > self._most:
            self._service.counts["refused_connections"] += 1
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MOST_AHEAD:
            self.transport.abort()
        self._parse()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._parse()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # close would wait until all is sent

    def _parse(self) -> None:
        """Parse what came, while no complete request waits."""
        while self._unread and self._listens and not self.transport.is_closing():
            part = bytes(self._unread[:PART])
            del self._unread[:PART]
            try:
                self.parser.feed_data(part)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._unread.clear()
                if not self._idle:
                    self.cycle.keep_alive = False  # its answer is the last
                elif "Content-Length" in str(error):
                    self._refuse(411, NO_LENGTH)
                else:
                    self._refuse(400, f"no HTTP: {error}")
            self._head = self._head + len(part) if self._idle else 0
            if self._head > MOST_HEAD:
                self._refuse(431 if self.headers else 414, f"a head of over {MOST_HEAD} bytes")
        if self._unread:
            self.flow.pause_reading()
        self._watch()

    def _watch(self) -> None:
        """Leave the client, unless it does in time what is waited for."""
        if not (self._listens or self.flow.write_paused or self.transport.is_closing()):
            self._unset_keepalive_if_required()
        elif self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _listens(self) -> bool:
        return self._idle or (self.cycle.more_body and not self.pipeline)

    def _refuse(self, status: int, line: str) -> None:
        self._service.counts["refused_http"] += 1
        text = f"{status}: {line}\n"
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {TEXT}\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()
        )
        self.transport.close()
