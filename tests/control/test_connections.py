"""A planning service beside clients that are slow, silent, too many, or speak no HTTP."""

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.control import RemoteAgent, wire
from planet_rssm.serve import Service, asgi_app

HEALTH = b"GET /health HTTP/1.1\r\n\r\n"
BODY = b"Content-Type: application/json\r\nContent-Length: "
STILL = np.zeros((1, 2), np.float32)
FRAME = {"joints": np.ones((1, 3), np.float32)}


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


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


def test_a_client_that_sends_byte_by_byte_is_left(serve: Callable[..., str]) -> None:
    url = serve(patience_s=0.5)
    for begun in (b"GET /", b"POST /sessions HTTP/1.1\r\n" + BODY + b"1000\r\n\r\n"):
        begin = time.monotonic()
        with connect(url) as slow, pytest.raises(ConnectionError):
            slow.sendall(begun)
            while time.monotonic() - begin < 5:
                slow.sendall(b"a")
                time.sleep(0.02)
    decide(url)


def test_what_is_sent_ahead_is_answered_in_turn(serve: Callable[..., str]) -> None:
    wrong = b"POST /sessions HTTP/1.1\r\n" + BODY + b"2\r\n\r\n[]"
    asked = [HEALTH, wrong, b"GET /agent HTTP/1.1\r\n\r\n"] * 300
    with connect(serve()) as hasty:
        hasty.sendall(b"".join(asked) + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: hasty.recv(1 << 16), b""))
    given = [int(line[:3]) for line in answers.split(b"HTTP/1.1 ")[1:]]
    assert given == [200, 400, 200] * 300 + [200]


def test_heads_have_an_end(serve: Callable[..., str]) -> None:
    url = serve()
    for begun, status in ((b"GET /", 414), (b"GET / HTTP/1.1\r\nA: b\r\nC: ", 431)):
        with connect(url) as endless:
            endless.sendall(begun)
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    endless.sendall(b"a" * 1000)
                    time.sleep(0.001)
            assert endless.recv(1 << 12).startswith(b"HTTP/1.1 %d " % status)


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
    with contextlib.ExitStack() as held:
        for _ in range(2):
            client = held.enter_context(connect(url))
            client.sendall(HEALTH)
            assert client.recv(1 << 12).startswith(b"HTTP/1.1 200 OK\r\n")
        with RemoteAgent(url), connect(url) as another:
            assert another.recv(1) == b""
            with pytest.raises(PlanetError, match="not reached"):
                RemoteAgent(url)
        end = time.monotonic() + 10
        while True:  # until the service has noticed that a client is gone
            try:
                decide(url)
                break
            except PlanetError:
                assert time.monotonic() < end
                time.sleep(0.02)


def test_a_port_that_is_taken_is_said_in_a_line(serve: Callable[..., str], agent: Agent) -> None:
    port = urlsplit(serve()).port
    from planet_rssm.serve.server import WebServer

    service = Service(agent)
    with pytest.raises(PlanetError, match=f"--port {port}: cannot listen there .*; use another"):
        WebServer(service, "127.0.0.1", port)
    service.close()


def test_a_request_under_way_at_the_end_is_answered(
    serve: Callable[..., str], held: tuple[threading.Event, threading.Event]
) -> None:
    url = serve()
    under_way, go_on = held
    with RemoteAgent(url) as robot, ThreadPoolExecutor() as pool, connect(url) as idle:
        observed = robot.observe(robot.initial(), FRAME, STILL, np.ones(1, bool))
        plan = pool.submit(robot.decide, observed)
        assert under_way.wait(10)
        serve.server.end()
        assert idle.recv(1) == b""
        go_on.set()
        assert plan.result(10)[0].action.shape == (1, 2)


def test_without_uvicorn_the_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "planet_rssm.serve.server", raising=False)
    with pytest.raises(SystemExit):
        main(["serve", "pretrained:cartpole-swingup"])
    assert "needs uvicorn: pip install 'planet-rssm[serve]'" in capsys.readouterr().err


def call(app, path: str, receive=None, **scope: object) -> tuple[int, dict, bytes]:
    """Ask an application as a server of somebody else's does."""
    sent: list[dict] = []

    async def take(message: dict) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "GET", "path": path, "headers": []} | scope
    asyncio.run(app(asked, receive, take))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


def test_the_application_can_be_mounted_in_another_server(agent: Agent) -> None:
    service = Service(agent)
    app = asgi_app(service, token="a token of this test", patience_s=0.1)
    assert call(app, "/planner/health", root_path="/planner")[::2] == (200, b"ok\n")
    assert call(app, "/agent")[0] == 401
    head = [(b"authorization", b"Bearer a token of this test")]
    assert call(app, "/agent", headers=head)[0] == 200
    head += [(b"content-length", b"10"), (b"content-type", b"application/json")]
    sessions = {"method": "POST", "headers": head}

    async def slow() -> dict:
        await asyncio.sleep(0.04)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def gone() -> dict:
        return {"type": "http.disconnect"}

    for receive, status, line in (
        (slow, 408, b"bytes of 10 came in 0.1 s\n"),
        (gone, 400, b"0 bytes of 10 came\n"),
    ):
        answer = call(app, "/sessions", receive, **sessions)
        assert answer[0] == status and answer[2].endswith(line)
        assert answer[1][b"connection"] == b"close"
    with pytest.raises(ValueError, match="lifespan: only http is served"):
        call(app, "", type="lifespan")
    service.close()


def test_a_service_decides_without_a_connection(agent: Agent) -> None:
    service = Service(agent)
    frame = wire.Frame(FRAME, STILL, True)
    assert service.decide(service.begin(0), wire.Request(0, [frame])).action.shape == (1, 2)
    service.close()
