"""A planning service beside clients that are slow, silent, too many, or speak no HTTP."""

import contextlib
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import numpy as np
import pytest

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.control import RemoteAgent, wire
from planet_rssm.serve import Service, WebServer

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
    service = Service(agent)
    with pytest.raises(PlanetError, match=f"--port {port}: cannot listen there .*; use another"):
        WebServer(service, "127.0.0.1", port)
    service.close()


def test_a_service_decides_without_a_connection(agent: Agent) -> None:
    service = Service(agent)
    frame = wire.Frame(FRAME, STILL, True)
    assert service.decide(service.begin(0), wire.Request(0, [frame])).action.shape == (1, 2)
    service.close()
