"""A planning service beside clients that are slow, silent, too many, or speak no HTTP."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import numpy as np
import pytest

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.control import RemoteAgent, exchange, wire
from planet_rssm.control.remote import OCTETS
from planet_rssm.serve import Service, WebServer

HEALTH = b"GET /health HTTP/1.1\r\n\r\n"
BODY = b"Content-Type: application/json\r\nContent-Length: "
STILL = np.zeros((1, 2), np.float32)
FRAME = {"joints": np.ones((1, 3), np.float32)}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def answers(url: str, *parts: bytes) -> bytes:
    """All that comes back on a connection, until the service closes it."""
    with connect(url) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(0.02 if len(parts) > 1 else 0)
        with contextlib.suppress(OSError):  # closed by the service already
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def decide(url: str) -> None:
    with RemoteAgent(url) as robot:
        robot.decide(robot.observe(robot.initial(), FRAME, STILL, np.ones(1, bool)))


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /sessions HT",  # half a head
        b"POST /sessions HTTP/1.1\r\n" + BODY + b"100\r\n\r\n{",  # half a body
    ],
    ids=["nothing", "head", "body"],
)
def test_a_client_that_stops_sending_is_left(serve: Callable[..., str], begun: bytes) -> None:
    url = serve(patience_s=0.2)
    with connect(url) as silent:
        silent.sendall(begun)
        decide(url)  # the others are served meanwhile
        begin = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - begin < 5


def test_a_client_that_stops_reading_is_left(serve: Callable[..., str]) -> None:
    url = serve(patience_s=0.5)
    with connect(url) as deaf:
        deaf.settimeout(0.05)
        sent = 0
        with pytest.raises(TimeoutError):  # its answers fill what the system keeps for it
            while True:
                sent += deaf.send(b"GET /agent HTTP/1.1\r\n\r\n" * 1000)
        assert sent < 1 << 27
        decide(url)
        deaf.settimeout(10)
        with pytest.raises(ConnectionError):
            while True:
                deaf.sendall(HEALTH)
                time.sleep(0.05)
    decide(url)


def test_a_connection_too_many_is_closed_and_a_place_is_free_again(
    serve: Callable[..., str],
) -> None:
    url = serve(connections=3)
    held = [connect(url) for _ in range(3)]
    for client in held:
        client.sendall(HEALTH)
        assert client.recv(1 << 12).startswith(b"HTTP/1.1 200 OK\r\n")
    with connect(url) as another:
        assert another.recv(1) == b""
    with pytest.raises(PlanetError, match="not reached"):
        RemoteAgent(url)
    held.pop().close()
    decide(url)
    for client in held:
        client.close()


def test_a_port_that_is_taken_is_said_in_a_line(serve: Callable[..., str], agent: Agent) -> None:
    port = urlsplit(serve()).port
    service = Service(agent)
    with pytest.raises(PlanetError, match=f"--port {port}: cannot listen there .*; use another"):
        WebServer(service, "127.0.0.1", port)
    service.close()


def test_requests_are_answered_in_turn_in_whatever_pieces_they_come(
    serve: Callable[..., str],
) -> None:
    url = serve()
    begin = b"POST /sessions HTTP/1.1\r\n" + BODY + b'11\r\n\r\n{"seed": 4}'
    together = answers(url, HEALTH + begin + HEALTH * 2000)
    assert together.count(b"HTTP/1.1 200 OK\r\n") == 2002 and b'{"session": "' in together
    whole = begin + HEALTH
    assert answers(url, *(whole[at : at + 7] for at in range(0, len(whole), 7))).count(b"200") == 2
    assert answers(url, b"GET /health HTTP/1.0\n\n" + HEALTH).count(b"200 OK") == 1
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert b"Connection: close\r\n" in answers(url, last + HEALTH)
    patient = begin.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert answers(url, patient).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_a_client_that_sends_no_more_gets_its_decision(serve: Callable[..., str]) -> None:
    url = serve()
    with RemoteAgent(url) as robot:
        key = robot.initial().session
        frames = robot.observe(robot.initial(), FRAME, STILL, np.ones(1, bool)).frames
        body = wire.pack_request(wire.Request(0, frames), robot.spec)
        head = f"POST /sessions/{key}/decide HTTP/1.1\r\nContent-Type: {OCTETS}\r\n"
        got = answers(url, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + HEALTH)
        answered, _, healthy = got.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 ")
        assert wire.unpack_reply(answered, robot.spec).action.shape == (1, 2)
        assert healthy.startswith(b"200 OK")


@pytest.mark.parametrize(
    ("sent", "status", "line"),
    [
        (b"GET /health\r\n\r\n", 400, "400: Bad request syntax ('GET /health')"),
        (b"\x16\x03\x01\x02\r\n\r\n", 400, "400: Bad request syntax ("),
        (b"GET /health HTTP/2.0\r\n\r\n", 505, "505: Invalid HTTP version (2.0)"),
        (b"GET /health HTTP/1.1\r\nno field\r\n\r\n", 400, "400: Bad header line ('no field')"),
        (b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, "400: Bad header line ('c')"),
        (b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 400, "400: Bad header line"),
        (b"GET /health HTTP/1.1\r\nA: " + b"b" * 70_000, 431, "431: Request Header Fields Too"),
        (b"POST /sessions HTTP/1.1\r\n" + BODY + b"100\r\n\r\n{", 400, "25 bytes of 100 came"),
        (b"POST /sessions HTTP/1.1\r\n" + BODY + b"2\r\n" + BODY + b"9\r\n\r\n{}", 411, "must say"),
    ],
)
def test_a_head_that_is_none_is_refused_and_nothing_after_it_is_read(
    serve: Callable[..., str], sent: bytes, status: int, line: str
) -> None:
    url = serve()
    got = answers(url, sent + HEALTH).decode()
    head, _, body = got.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ") and "Connection: close" in head, got
    assert line in body and "200 OK" not in got
    decide(url)


@pytest.mark.parametrize(
    ("came", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", (200, b"ok", False)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", (204, b"", False)),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", (200, b"ok", True)),
        (b"HTTP/1.1 502 Bad\r\n\r\nto the end", (502, b"to the end", True)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: Close\r\n\r\n"
            b"2;a=b\r\nok\r\nA\r\n0123456789\r\n0\r\nAfter: all\r\n\r\n",
            (200, b"ok0123456789", True),
        ),
    ],
)
def test_a_client_understands_proxies(came: bytes, answer: tuple[int, bytes, bool]) -> None:
    assert exchange.read_answer(io.BufferedReader(io.BytesIO(came))) == answer


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (b"", "Remote end closed connection without response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0-OpenSSH_9.6"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            r"IncompleteRead\(2 bytes read, 7 more",
        ),
        (b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", "Bad header line"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n\x1f\x8b", "no size of a chunk"),
    ],
)
def test_a_client_says_what_it_cannot_read(came: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2 if not came else 1):  # a connection that was closed is opened again
                client, _ = server.accept()
                with client:
                    client.recv(1 << 16)
                    client.sendall(came)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PlanetError, match=f"not reached .*{said}"):
            RemoteAgent(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_a_service_decides_without_a_connection(agent: Agent) -> None:
    service = Service(agent)
    frame = wire.Frame(FRAME, STILL, True)
    assert service.decide(service.begin(0), wire.Request(0, [frame])).action.shape == (1, 2)
    service.close()
