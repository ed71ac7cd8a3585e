"""The service over HTTP: what it takes is checked by its length and its head before it is read.

    GET    /health               200 while it plans
    GET    /metrics              counts and latencies, as Prometheus reads them
    GET    /agent                spec, horizon and rounds, JSON
    POST   /sessions             {"seed": N} -> {"session": KEY}
    POST   /sessions/KEY/decide  frames -> a plan, see control/wire.py
    DELETE /sessions/KEY

An error is a status and one line of text.
"""

import hmac
import json
import logging
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.control import wire
from planet_rssm.control.remote import OCTETS
from planet_rssm.serve.service import RefusedError, Service

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
MOST_JSON = 1 << 12  # bytes of a request that is no decision
PATIENCE = 60.0  # seconds that a client may be silent, or not read, before it is left

_log = logging.getLogger("planet_rssm")


class WebServer(ThreadingHTTPServer):
    """Listens, with a thread for each connection; `serve_forever` serves."""

    daemon_threads = True
    request_queue_size = 128

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
        self.token = token
        self.patience_s = patience_s
        self._free = threading.Semaphore(connections)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise PlanetError(
                f"--host {host} --port {port}: cannot listen there ({error.strerror}); use another"
            ) from None

    def server_bind(self) -> None:
        """Bind, without asking for the machine's name as the base does: it may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Take a connection, or close it where there are too many."""
        if not self._free.acquire(blocking=False):
            self.service.counts["refused_connections"] += 1
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say in the log that a connection ended otherwise than it should."""
        _log.debug("connection of %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"
    error_content_type = TEXT  # of what the base class refuses itself, with a page
    error_message_format = "%(code)d: %(message)s\n"
    server_version, sys_version = "planet", ""
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience_s)

    def do_GET(self) -> None:  # noqa: N802
        self._answer("GET")

    def do_POST(self) -> None:  # noqa: N802
        self._answer("POST")

    def do_DELETE(self) -> None:  # noqa: N802
        self._answer("DELETE")

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002, ANN401
        _log.debug(format, *arguments)

    def _answer(self, method: str) -> None:
        try:
            kind, body = self._result(method, self.path.strip("/").split("/"))
            self._send(200, kind, body)
        except RefusedError as error:
            self._send(error.status, TEXT, str(error).encode())
        except PlanetError as error:
            self.server.service.counts["refused_wrong"] += 1
            self._send(400, TEXT, str(error).encode())

    def _result(self, method: str, path: list[str]) -> tuple[str, bytes]:
        service = self.server.service
        if (method, path) == ("GET", ["health"]):
            self._body(0)
            if not service.healthy:
                raise RefusedError(503, "closed", "it does not plan any more")
            return TEXT, b"ok\n"
        self._check_token()
        match method, *path:
            case "GET", "metrics":
                self._body(0)
                lines = [f"planet_{name} {value:g}" for name, value in service.measured().items()]
                return TEXT, "\n".join([*lines, ""]).encode()
            case "GET", "agent":
                self._body(0)
                return JSON, json.dumps(service.about()).encode()
            case "POST", "sessions":
                seed = _seed(self._body(MOST_JSON, JSON))
                return JSON, json.dumps({"session": service.begin(seed)}).encode()
            case "DELETE", "sessions", key:
                self._body(0)
                service.end(key)
                return JSON, b"{}"
            case "POST", "sessions", key, "decide":
                spec = service.agent.spec
                request = wire.unpack_request(self._body(wire.most_bytes(spec), OCTETS), spec)
                return OCTETS, wire.pack_reply(service.decide(key, request))
        self.close_connection = True  # its body was not read
        raise RefusedError(404, "path", f"{method} {self.path[:100]!r}: no such place")

    def _check_token(self) -> None:
        token = self.server.token
        said = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
            self.close_connection = True
            raise self._refused(401, "token", "the token is missing or another")

    def _body(self, most: int, kind: str = "") -> bytes:
        """Return the body of the request, once its head says that it may be read."""
        said = self.headers.get("Content-Length", "0")
        length = int(said) if said.isascii() and said.isdigit() and len(said) < 16 else -1
        if length < 0 or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise self._refused(411, "length", "the request must say its Content-Length")
        if length > most:
            self.close_connection = True
            raise self._refused(413, "length", f"{length} bytes: at most {most} are taken here")
        # a page in a browser on this machine cannot send these without being asked
        if kind and self.headers.get("Content-Type", "").partition(";")[0].strip() != kind:
            self.close_connection = True
            raise self._refused(415, "kind", f"Content-Type must be {kind}")
        body = self.rfile.read(length) if length else b""
        if len(body) < length:
            self.close_connection = True
            raise self._refused(400, "length", f"{len(body)} bytes of {length} came")
        return body

    def _refused(self, status: int, reason: str, line: str) -> RefusedError:
        self.server.service.counts[f"refused_{reason}"] += 1
        return RefusedError(status, reason, line)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _seed(body: bytes) -> int:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    seed = value.get("seed", 0) if isinstance(value, dict) else None
    if type(seed) is not int or not 0 <= seed < 1 << 63:
        raise PlanetError('session: must be JSON, {"seed": N} with N from 0 to 2^63 - 1')
    return seed
