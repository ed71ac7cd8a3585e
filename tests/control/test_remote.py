"""A planning service: its clients act as with agents of their own, and what it refuses."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.control import ControlLoop, RemoteAgent, SimulatedTime, wire
from planet_rssm.control.remote import OCTETS
from planet_rssm.serve.service import IDLE

JOINTS = np.array([0.1, -0.2, 0.3], np.float32)
TICKS = 6
TOKEN = "a token of this test"


class At:
    """A time that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def actions(agent: Agent | RemoteAgent, **options: int) -> np.ndarray:
    """What a loop does in a few ticks, with a frame dropped and a second episode."""
    done = []
    with ControlLoop(agent, clock=SimulatedTime(), **options) as loop:
        for tick in range(TICKS):
            frame = None if tick == 2 else {"joints": JOINTS * tick}
            command = loop.tick(frame, is_first=tick in (0, 4))
            done.append(command.action)
            loop.sleep()
    return np.stack(done)


@pytest.mark.parametrize("options", [{}, {"delay": 1, "execute": 2}], ids=["waits", "ahead"])
def test_a_loop_acts_as_with_a_local_agent(
    serve: Callable[..., str], make_agent: Callable[..., Agent], options: dict[str, int]
) -> None:
    with RemoteAgent(serve(), seed=3) as remote:
        ours = actions(remote, **options)
    np.testing.assert_array_equal(ours, actions(make_agent(seed=3), **options))
    assert np.abs(ours).max() > 0


def test_several_are_planned_for_together_and_each_as_if_alone(
    serve: Callable[..., str], make_agent: Callable[..., Agent]
) -> None:
    url = serve(gather_ms=200.0)
    seeds = range(5)
    ready = threading.Barrier(len(seeds))

    def play(seed: int) -> np.ndarray:
        with RemoteAgent(url, seed=seed) as remote:
            carry, done = remote.initial(), []
            for tick in range(TICKS):
                ready.wait(10)
                carry = observe(remote, carry, tick)
                plan, carry = remote.decide(carry)
                done.append(plan.sequence.numpy()[0])
            return np.stack(done)

    with ThreadPoolExecutor(len(seeds)) as pool:
        together = list(pool.map(play, seeds))
    for seed, ours in zip(seeds, together, strict=True):
        alone = make_agent(seed=seed)
        carry = alone.initial()
        for tick in range(TICKS):
            carry = observe(alone, carry, tick)
            plan, carry = alone.decide(carry)
            np.testing.assert_allclose(ours[tick], plan.sequence.numpy()[0], atol=1e-4)
    measured = serve.service.measured()
    assert measured["decisions_total"] == len(seeds) * TICKS
    assert measured["batches_total"] < len(seeds) * TICKS / 2
    assert measured["sessions"] == measured["queue"] == 0


def observe(agent, carry, tick: int):
    first = np.array([tick == 0])
    still = np.zeros((1, 2), np.float32)
    return agent.observe(carry, {"joints": (JOINTS * tick)[None]}, still, first)


def request(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    answer = response.status, response.read().decode(errors="replace")
    connection.close()
    return answer


def test_what_is_wrong_is_refused_in_a_line_and_the_rest_goes_on(serve: Callable[..., str]) -> None:
    url = serve()
    service = serve.service
    with RemoteAgent(url) as remote:
        carry = remote.initial()
        path = f"/sessions/{carry.session}/decide"
        good = wire.pack_request(wire.Request(0, observe(remote, carry, 0).frames), remote.spec)
        length = len(good)
        broken = np.full((1, 3), np.nan, np.float32)
        frame = wire.Frame({"joints": broken}, np.zeros((1, 2), np.float32), True)
        cases = [
            (good + b"\0", {}, 400, "bytes of arrays; 20 are those of 1 frames, 1 with joints"),
            (good[:-4], {}, 400, "16 bytes of arrays"),
            (b"\xff\xff\xff\xff", {}, 400, "must begin with the length of its JSON"),
            (b"\2\0\0\0[]", {}, 400, "its JSON is no object"),
            (good.replace(b'"step": 0', b'"step":-1'), {}, 400, "step must be an integer"),
            (good.replace(b"true, true", b'"no", true'), {}, 400, "pairs of booleans"),
            (wire.pack_request(wire.Request(0, [frame]), remote.spec), {}, 400, "has NaN"),
            (
                good,
                {"Content_Length": str(1 << 40)},
                413,
                f"at most {wire.most_bytes(remote.spec)}",
            ),
            (good, {"Content_Length": "-1"}, 411, "must say its Content-Length"),
            (good, {"Transfer_Encoding": "chunked"}, 411, "must say its Content-Length"),
            (good, {"Content_Type": "text/plain"}, 415, "Content-Type must be application/octet"),
        ]
        for body, headers, status, line in cases:
            got = request(url, "POST", path, body, **({"Content_Type": OCTETS} | headers))
            assert got[0] == status and line in got[1], got
        octets = {"Content_Type": OCTETS}
        assert request(url, "POST", "/sessions/other/decide", good, **octets)[0] == 404
        assert request(url, "POST", "/nothing", good)[0] == 404
        assert request(url, "PUT", "/agent") == (501, "501: Unsupported method ('PUT')\n")
        assert request(url, "HEAD", "/agent") == (501, "")
        status, line = request(url, "GET", "/" + "a" * 70_000)
        assert status == 414 and line.startswith("414: ") and line.count("\n") == 1
        for body in (b"", b"[]", b'{"seed": -1}', b'{"seed": true}'):
            assert (
                request(url, "POST", "/sessions", body, Content_Type="application/json")[0] == 400
            )
        assert request(url, "POST", path, good, **octets)[0] == 200
        later = wire.pack_request(
            wire.Request(9, [frame._replace(is_first=False, observation=None)]), remote.spec
        )
        status, line = request(url, "POST", path, later, **octets)
        assert status == 409 and "has taken in 1 observations, not 9; begin an episode" in line
        assert request(url, "POST", path, good, **octets)[0] == 200  # an episode may begin any time
        with pytest.raises(PlanetError, match="rounds 4: at most 3"):
            remote.decide(observe(remote, remote.initial(), 0), rounds=4)
        assert length < 1000 and service.healthy
    assert request(url, "GET", "/health") == (200, "ok\n")
    text = request(url, "GET", "/metrics")[1]
    assert re.search(r"^planet_refused_wrong_total \d+$", text, re.M)
    assert re.search(r"^planet_latency_ms_p99 [\d.]+$", text, re.M)


def test_a_token_is_asked_for(serve: Callable[..., str]) -> None:
    url = serve(token=TOKEN)
    assert request(url, "GET", "/health")[0] == 200
    assert request(url, "GET", "/metrics")[0] == 401
    with pytest.raises(PlanetError, match="the token is missing or another"):
        RemoteAgent(url, token="another")
    with RemoteAgent(url, token=TOKEN) as remote:
        assert remote.planner.horizon == 4


def test_a_full_queue_refuses_and_what_is_too_late_is_not_planned(
    serve: Callable[..., str], held: tuple[threading.Event, threading.Event]
) -> None:
    url = serve(queue=1, sessions=3, gather_ms=0.0)
    under_way, go_on = held
    # the second's alone may pass: on a busy machine the first would be too late as well
    robots = [RemoteAgent(url, deadline_ms=ms) for ms in (20_000.0, 1.0, 20_000.0)]
    carries = [observe(robot, robot.initial(), 0) for robot in robots]
    with pytest.raises(PlanetError, match="3 sessions: no other is taken; try later"):
        robots[0].initial()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(robots[0].decide, carries[0])
        assert under_way.wait(10)
        late = pool.submit(robots[1].decide, carries[1])
        while serve.service.measured()["queue"] < 1:
            pass
        with pytest.raises(PlanetError, match="1 requests wait, no other is taken; ask later"):
            robots[2].decide(carries[2])
        go_on.set()
        first.result(10)
        with pytest.raises(PlanetError, match="deadline_ms 1: passed, it has waited"):
            late.result(10)
    for robot in robots:
        robot.close()


def test_an_error_in_a_decision_is_its_own_and_the_service_goes_on(
    serve: Callable[..., str], agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RemoteAgent(serve()) as remote, monkeypatch.context() as patch:
        observed = observe(remote, remote.initial(), 0)
        patch.setattr(agent, "decide", lambda *_, **__: 1 / 0)
        with pytest.raises(PlanetError, match="no decision: ZeroDivisionError: division by zero"):
            remote.decide(observed)
        patch.undo()
        remote.decide(observed)


def test_a_client_comes_back_after_its_connection_or_its_session_is_gone(
    serve: Callable[..., str],
) -> None:
    now = At()
    url = serve(now=now, sessions=1, gather_ms=0.0, patience_s=0.2)
    with RemoteAgent(url) as remote:
        carry = remote.initial()
        plan, carry = remote.decide(observe(remote, carry, 0))
        time.sleep(0.5)  # its connection was idle
        plan, carry = remote.decide(observe(remote, carry, 1))
        now.now += IDLE + 1
        fresh = remote.initial()
        with pytest.raises(PlanetError, match="no such session, or it was idle"):
            remote.decide(observe(remote, carry, 2))
        remote.decide(observe(remote, fresh, 0))


def test_numbers_of_numpy_are_numbers_and_an_address_may_be_of_ipv6(
    serve: Callable[..., str],
) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    url = serve(host="::1")
    with RemoteAgent(url, seed=np.int64(3), deadline_ms=np.float32(9000)) as remote:
        remote.decide(observe(remote, remote.initial(), 0))
    for wrong in ({"seed": 3.5}, {"deadline_ms": "soon"}):
        with pytest.raises(PlanetError, match="must be a whole number, and a number of milli"):
            RemoteAgent(url, **wrong)


def test_the_command_serves_a_run() -> None:
    pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'planet-rssm[serve]'")
    process = subprocess.Popen(
        [sys.executable, "-m", "planet_rssm", "serve", "pretrained:cartpole-swingup", "--port", "0",
         "--planner", "cem", "-s", "planner.candidates=20", "--json"],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )  # fmt: skip
    try:
        url = json.loads(process.stdout.readline())["url"]
        with RemoteAgent(url, timeout_s=30.0) as remote:
            frame = {"image": np.zeros((1, 32, 32, 3), np.uint8)}
            still = np.zeros((1, 1), np.float32)
            carry = remote.observe(remote.initial(), frame, still, np.array([True]))
            plan, _ = remote.decide(carry)
        assert plan.sequence.shape == (1, 12, 1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()
    assert process.returncode == 143


def test_other_machines_need_a_token(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLANET_TOKEN", raising=False)
    short = tmp_path / "token"
    short.write_text("short\n")
    for words, line in (
        (["--host", "0.0.0.0"], "--host 0.0.0.0: other machines can reach that, and there is no"),
        (["--token-file", str(short)], "a token has at least 16 letters"),
        (["--token-file", str(tmp_path / "none")], "not readable (No such file or directory)"),
    ):
        with pytest.raises(SystemExit):
            main(["serve", "pretrained:cartpole-swingup", *words])
        assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"url": "http://127.0.0.1:99999"}, "must be http://HOST:PORT .Port out of range"),
        ({"url": "http://127.0.0.1:port"}, "must be http://HOST:PORT"),
        ({"url": "http://[::1"}, "must be http://HOST:PORT"),
        ({"url": "http://127.0.0.1:1/planner"}, "nothing may stand before its host or after"),
        ({"url": "http://me:secret@127.0.0.1:1"}, "^url http://127.0.0.1:1: nothing may stand"),
        ({"url": "127.0.0.1:7070"}, "must be http://HOST:PORT"),
        ({"url": "http://127.0.0.1:1", "token": "two\nlines"}, "token: must be letters"),
        ({"url": "http://127.0.0.1:1", "token": "clé"}, "token: must be letters"),
        ({"url": "http://127.0.0.1:1", "timeout_s": -1.0}, "timeout_s -1: must be more than 0"),
        ({"url": "http://127.0.0.1:1", "timeout_s": float("nan")}, "timeout_s nan: must be"),
    ],
)
def test_a_client_that_is_given_nonsense_says_so(words: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanetError, match=said):
        RemoteAgent(**words)
