"""An agent behind a planning service, which a `ControlLoop` takes in place of a local one.

with RemoteAgent("http://127.0.0.1:7070") as agent, ControlLoop(agent, hz=20, delay=1) as loop:
    ...
"""

import contextlib
import http.client
import json
import math
import operator
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch

import planet_rssm.control.wire as wire
from planet_rssm.agent.inputs import check_inputs
from planet_rssm.agent.timing import RoundTimes, time_rounds
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.types import Plan

Array = np.ndarray
OCTETS = "application/octet-stream"
MOST_REPLY = 1 << 26  # bytes that are read of one


class RemoteCarry(NamedTuple):
    """Where a robot stands: the belief itself is in the service, under the session's key."""

    session: str
    step: int  # observations that the service has taken in
    frames: tuple[wire.Frame, ...] = ()  # that it has not been sent yet


class _RemotePlanner(NamedTuple):
    """What is known of the service's planner."""

    horizon: int
    rounds: int


class RemoteAgent:
    """A planning service's agent for one robot; one thread uses it at a time.

    Frames are sent with the decision that follows them. Decisions are those of a local agent with
    this seed, up to the rounding of other robots' rows in the same batch.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        seed: int = 0,
        timeout_s: float = 10.0,
        deadline_ms: float | None = None,
    ) -> None:
        """Ask the service what it plans for.

        Args:
            url: `http://HOST:PORT`, or https where a proxy stands before it.
            token: what the service was given as its token.
            seed: of all draws for this robot.
            timeout_s: how long an answer is waited for.
            deadline_ms: a decision whose search has not begun after so many milliseconds in the
                service is refused there; None: it is made however late.

        Raises:
            PlanetError: there is no service, or it refuses.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:  # a port that is none, half a bracket
            raise PlanetError(f"url {url!r}: must be http://HOST:PORT ({error})") from None
        if parts.scheme not in ("http", "https") or not host:
            raise PlanetError(f"url {url!r}: must be http://HOST:PORT")
        if parts.path.strip("/") or parts.query or parts.username is not None:
            raise PlanetError(
                f"url http://{parts.netloc.rpartition('@')[2]}: nothing may stand before its host "
                "or after its port, for it would not be used; a token is given as token=…"
            )
        if token is not None and not (token.isascii() and token.isprintable()):
            raise PlanetError("token: must be letters, digits and signs in one line")
        if not 0 < timeout_s < math.inf:
            raise PlanetError(f"timeout_s {timeout_s:g}: must be more than 0, in seconds")
        try:
            self._seed = operator.index(seed)
            self._deadline_ms = None if deadline_ms is None else float(deadline_ms)
        except (TypeError, ValueError):
            raise PlanetError(
                f"seed {seed!r}, deadline_ms {deadline_ms!r}: must be a whole number, and a number "
                "of milliseconds or None"
            ) from None
        self.url = url
        self.device = torch.device("cpu")  # where its plans are
        self._token = token
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(host, port, timeout=timeout_s)
        self._sessions: list[str] = []
        about = self._json("GET", "/agent")
        try:
            self.spec = EnvSpec.from_json(about["spec"])
            self.planner = _RemotePlanner(int(about["horizon"]), int(about["rounds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PlanetError(f"planning service {url}: of another version ({error})") from None

    def initial(self, batch: int = 1) -> RemoteCarry:
        """Begin a session, of one robot.

        Raises:
            PlanetError: the service has as many as it takes.
        """
        if batch != 1:
            raise PlanetError(f"batch {batch}: a session is of one robot; make an agent for each")
        key = str(self._json("POST", "/sessions", {"seed": self._seed})["session"])
        self._sessions.append(key)
        return RemoteCarry(key, 0)

    def observe(
        self,
        carry: RemoteCarry,
        observation: Mapping[str, Any] | None,
        executed_action: Any,  # noqa: ANN401
        is_first: Any,  # noqa: ANN401
    ) -> RemoteCarry:
        """Take in an observation, for one row; see Agent.observe."""
        check_inputs(self.spec, 1, observation, executed_action, is_first)
        observed = None
        if observation is not None:
            observed = {key: np.asarray(observation[key]) for key in self.spec.observation}
        frame = wire.Frame(observed, np.asarray(executed_action, np.float32), bool(is_first[0]))
        frames = (*carry.frames, frame)
        if len(frames) == wire.MOST_FRAMES:
            self._ask(carry, wire.Request(carry.step, frames, plan=False))
            return RemoteCarry(carry.session, carry.step + len(frames))
        return carry._replace(frames=frames)

    def decide(
        self,
        carry: RemoteCarry,
        *,
        committed: Array | None = None,
        executed: int = 1,
        rounds: int | None = None,
    ) -> tuple[Plan, RemoteCarry]:
        """Choose an action; see Agent.decide. The plan is on the CPU.

        Raises:
            PlanetError: the service cannot be reached, refuses, or does not know the session's
                past: begin an episode then.
        """
        request = wire.Request(
            carry.step,
            carry.frames,
            committed=committed,
            executed=executed,
            rounds=rounds,
            deadline_ms=self._deadline_ms,
        )
        reply = self._ask(carry, request)
        if reply is None:
            raise PlanetError(f"planning service {self.url}: returned no decision")
        plan = Plan(
            torch.from_numpy(reply.action),
            torch.from_numpy(reply.sequence),
            torch.from_numpy(reply.value),
            {"rounds_done": torch.tensor([reply.rounds_done])},
        )
        return plan, RemoteCarry(carry.session, carry.step + len(carry.frames))

    def warmup(
        self,
        batch: int = 1,
        *,
        delay: int = 0,
        repeats: int = 3,
        pick: Callable[[Sequence[float]], float] = max,
    ) -> RoundTimes:
        """Measure decisions by number of rounds, the way there and back included; see Agent."""
        blank = {
            key: np.zeros((1, *shape), dtype)
            for key, (shape, dtype) in self.spec.observation.items()
        }
        still = np.zeros((1, self.spec.action_size), np.float32)
        committed = still[:, None].repeat(delay, 1) if delay else None
        carry = self.initial(batch)

        def act(rounds: int) -> Plan:
            observed = self.observe(carry, blank, still, np.ones(1, bool))
            return self.decide(observed, committed=committed, rounds=rounds)[0]

        times = time_rounds(act, self.planner.rounds, repeats, pick)
        self._end(carry.session)
        return times

    def close(self) -> None:
        """End the sessions and the connection."""
        for session in list(self._sessions):
            with contextlib.suppress(PlanetError):
                self._end(session)
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, session: str) -> None:
        self._sessions.remove(session)
        self._call("DELETE", f"/sessions/{session}")

    def _ask(self, carry: RemoteCarry, request: wire.Request) -> wire.Reply | None:
        body = wire.pack_request(request, self.spec)
        answer = self._call("POST", f"/sessions/{carry.session}/decide", body, OCTETS)
        return wire.unpack_reply(answer, self.spec)

    def _json(self, method: str, path: str, value: object = None) -> Json:
        body = b"" if value is None else json.dumps(value).encode()
        try:
            answer = json.loads(self._call(method, path, body, "application/json"))
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise PlanetError(f"planning service {self.url}: {path} is no JSON object")
        return answer

    def _call(self, method: str, path: str, body: bytes = b"", kind: str = OCTETS) -> bytes:
        headers = {"Content-Type": kind}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            try:
                status, answer = self._exchange(method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionError):
                # it closes connections that were idle; a decision asked for again is the same one,
                # or refused: see wire.Request.step
                self._connection.close()
                status, answer = self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = one_line(str(error)) or type(error).__name__
            raise PlanetError(f"planning service {self.url}: not reached ({reason})") from None
        if status != 200:
            line = one_line(answer[:1000].decode(errors="replace"))
            if not line or line.startswith("<"):  # a page, or nothing
                line = f"status {status}; no planning service answers there"
            raise PlanetError(f"planning service {self.url}: {line}")
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        self._connection.request(method, path, body, dict(headers))
        response = self._connection.getresponse()
        return response.status, response.read(MOST_REPLY)
