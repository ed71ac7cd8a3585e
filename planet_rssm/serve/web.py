"""The service as an ASGI application: a request is checked by its head before its body is read.

    GET    /health               200 while it plans
    GET    /metrics              counts and latencies, as Prometheus reads them
    GET    /agent                spec, horizon and rounds, JSON
    POST   /sessions             {"seed": N} -> {"session": KEY}
    POST   /sessions/KEY/decide  frames -> a plan, see control/wire.py
    DELETE /sessions/KEY

An error is a status and one line of text.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from planet_rssm.base.errors import PlanetError
from planet_rssm.control import wire
from planet_rssm.control.remote import OCTETS
from planet_rssm.serve.service import RefusedError, Service

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
MOST_JSON = 1 << 12  # bytes of a request that is no decision
NO_LENGTH = "the request must say its Content-Length"
PATIENCE = 60.0  # seconds that a client may be silent, or not read, before it is left

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def asgi_app(
    service: Service, *, token: str | None = None, patience_s: float = PATIENCE
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return a service as an ASGI 3 application, for a server of your own.

    `POST /sessions` takes `{"seed": N}` and returns a session's key. `POST /sessions/KEY/decide`
    takes at most 64 frames: of each the observation, by the spec's keys, shapes and types, and the
    action [A] that led to it, float32 in the environment's units. It returns the action [A], the
    plan [H, A] and its value. `planet_rssm.control.wire` packs and unpacks both. Milliseconds are
    those of `deadline_ms` and of `/metrics`.

    What is refused is a status and a line: 400 wrong, 401 the token, 404 no such session or place,
    408 the body is slow, 409 another step than the session's, 411 no length, 413 too long, 415
    another kind, 500 the agent fails, 501 another method, 503 full or at an end, 504 too late. The
    connection ends where the body was not read.

    It reads scopes of HTTP alone; `lifespan` and `websocket` are refused by a ValueError, which
    servers take as "has none". How many connections there are, how long a head may be, and clients
    that do not read are the server's to limit. A client's `RemoteAgent` needs it at the root of its
    address. Close the service after the server has ended.

    Args:
        service: what is served; several applications may share it.
        token: what every client must say, but to ask for the health; None: nothing.
        patience_s: seconds in which a body must have come.
    """
    return _App(service, token, patience_s)


class _UnreadError(RefusedError):
    """A refusal before the body was read: the connection ends with it."""


@dataclass(frozen=True)
class _App:
    service: Service
    token: str | None
    patience_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']}: only http is served")
        status, end = 200, []
        try:
            kind, body = await self._result(scope, receive)
        except PlanetError as error:
            if isinstance(error, RefusedError):
                status = error.status
            else:
                status = 400
                self.service.counts["refused_wrong"] += 1
            kind, body = TEXT, f"{error}\n".encode()
            if isinstance(error, _UnreadError):
                end = [(b"connection", b"close")]
        length = str(len(body)).encode()
        headers = [(b"content-type", kind.encode()), (b"content-length", length), *end]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _result(self, scope: Scope, receive: Receive) -> tuple[str, bytes]:
        service = self.service
        method, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        headers = dict(scope["headers"])

        async def body(most: int = 0, kind: str = "") -> bytes:
            length = self._length(headers, most, kind)
            return await self._read(receive, length)

        if method not in ("GET", "POST", "DELETE"):
            raise _UnreadError(501, "method", f"501: Unsupported method ({method!r})")
        places = path.strip("/").split("/")
        if (method, places) == ("GET", ["health"]):
            await body()
            if not service.healthy:
                raise RefusedError(503, "closed", "it does not plan any more")
            return TEXT, b"ok\n"
        self._check_token(headers)
        match method, *places:
            case "GET", "metrics":
                await body()
                lines = [f"planet_{name} {value:g}" for name, value in service.measured().items()]
                return TEXT, "\n".join([*lines, ""]).encode()
            case "GET", "agent":
                await body()
                return JSON, json.dumps(service.about()).encode()
            case "POST", "sessions":
                seed = _seed(await body(MOST_JSON, JSON))
                return JSON, json.dumps({"session": service.begin(seed)}).encode()
            case "DELETE", "sessions", key:
                await body()
                service.end(key)
                return JSON, b"{}"
            case "POST", "sessions", key, "decide":
                spec = service.agent.spec
                request = wire.unpack_request(await body(wire.most_bytes(spec), OCTETS), spec)
                return OCTETS, wire.pack_reply(await service.ask(key, request))
        raise _UnreadError(404, "path", f"{method} {path[:100]!r}: no such place")

    def _check_token(self, headers: dict[bytes, bytes]) -> None:
        said, token = headers.get(b"authorization", b""), self.token
        if token is not None and not hmac.compare_digest(said, f"Bearer {token}".encode()):
            raise self._refused(401, "token", "the token is missing or another")

    def _length(self, headers: dict[bytes, bytes], most: int, kind: str) -> int:
        """Return how long the body is, once the head says that it may be read."""
        said = headers.get(b"content-length", b"0")
        length = int(said) if said.isdigit() and len(said) < 16 else -1
        if length < 0 or b"transfer-encoding" in headers:
            raise self._refused(411, "length", NO_LENGTH)
        if length > most:
            raise self._refused(413, "length", f"{length} bytes: at most {most} are taken here")
        # a page in a browser on this machine cannot send these without being asked
        given = headers.get(b"content-type", b"").decode("latin-1")
        if kind and given.partition(";")[0].strip() != kind:
            raise self._refused(415, "kind", f"Content-Type must be {kind}")
        return length

    async def _read(self, receive: Receive, length: int) -> bytes:
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self.patience_s):
                while more and len(body) < length:
                    message = await receive()
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            line = f"{len(body)} bytes of {length} came in {self.patience_s:g} s"
            raise self._refused(408, "slow", line) from None
        if len(body) != length:
            raise self._refused(400, "length", f"{len(body)} bytes of {length} came")
        return bytes(body)

    def _refused(self, status: int, reason: str, line: str) -> _UnreadError:
        self.service.counts[f"refused_{reason}"] += 1
        return _UnreadError(status, reason, line)


def _seed(body: bytes) -> int:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    seed = value.get("seed", 0) if isinstance(value, dict) else None
    if type(seed) is not int or not 0 <= seed < 1 << 63:
        raise PlanetError('session: must be JSON, {"seed": N} with N from 0 to 2^63 - 1')
    return seed
