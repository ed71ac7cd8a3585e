"""Sessions, a queue, and the thread that plans for all that is in it at once."""

import asyncio
import contextlib
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from planet_rssm.agent import Agent
from planet_rssm.agent.inputs import check_inputs
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.control.wire import Reply, Request
from planet_rssm.serve.batch import Belief, Joined, Row, answer, check_rows

LATELY = 1.0  # seconds: sessions that asked since then are waited for
IDLE = 600.0  # seconds without a request after which a session is forgotten
KEPT = 10_000  # latencies


class RefusedError(PlanetError):
    """A request that is not answered; `status` is HTTP's."""

    def __init__(self, status: int, reason: str, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.reason = reason  # for the count of refusals


Outcome = Reply | RefusedError | None  # None: there was nothing to decide
_Finished = tuple[asyncio.Future[Reply | None], Outcome]


@dataclass
class _Session:
    seed: int
    belief: Belief
    asked: float  # when it last did
    step: int = 0  # observations taken in
    busy: bool = False


@dataclass
class _Job:
    session: _Session
    request: Request
    arrived: float
    done: asyncio.Future[Reply | None]


class Service:
    """One agent for many robots. Every method may be called by any thread."""

    def __init__(
        self,
        agent: Agent[Any],
        *,
        batch: int = 64,
        gather_ms: float = 5.0,
        queue: int = 128,
        sessions: int = 256,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread that plans.

        Args:
            agent: nothing else may use it meanwhile.
            batch: rows that are planned for at once, at most.
            gather_ms: how long the first request of a batch waits for those of other sessions that
                have asked within the last second.
            queue: requests that wait, at most; another one is refused.
            sessions: robots at once, at most.
            now: the time in seconds.

        Raises:
            PlanetError: the agent's planner has no rows that can be put together.
        """
        check_rows(agent)
        self.agent = agent
        self.counts: Counter[str] = Counter()
        self.latency_ms: deque[float] = deque(maxlen=KEPT)  # from arrival to reply
        self._most = batch
        self._gather = gather_ms / 1000
        self._queue_size = queue
        self._session_count = sessions
        self._now = now
        self._sessions: dict[str, _Session] = {}
        self._queue: deque[_Job] = deque()
        self._finished: defaultdict[asyncio.AbstractEventLoop, list[_Finished]] = defaultdict(list)
        self._changed = threading.Condition()
        self._wanted = 1  # requests for which the thread that plans is woken
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="planet-serve", daemon=True)
        self._thread.start()

    def begin(self, seed: int) -> str:
        """Begin a session and return its key.

        Raises:
            RefusedError: there are as many as are taken.
        """
        belief = Belief(Joined(self.agent.initial(1)), 0)
        with self._changed:
            now = self._now()
            for key, session in list(self._sessions.items()):
                if now - session.asked > IDLE and not session.busy:
                    del self._sessions[key]
                    self.counts["forgotten"] += 1
            if len(self._sessions) >= self._session_count:
                raise self._refuse(
                    503, "sessions", f"{self._session_count} sessions: no other is taken; try later"
                )
            key = secrets.token_hex(16)
            self._sessions[key] = _Session(seed, belief, now)
            self.counts["sessions"] += 1
            return key

    def end(self, key: str) -> None:
        """Forget a session."""
        with self._changed:
            self._sessions.pop(key, None)
            self._changed.notify_all()  # nobody waits for it any more

    def decide(self, key: str, request: Request) -> Reply | None:
        """Take in the frames of a session and wait for the decision; see `ask`."""
        return asyncio.run(self.ask(key, request))

    async def ask(self, key: str, request: Request) -> Reply | None:
        """Take in the frames of a session and decide, if it is to; in any event loop.

        Raises:
            RefusedError: no such session, another past than the request's, frames that the model
                does not take, a full queue, a deadline that has passed, an agent that fails, or
                the service ends.
        """
        arrived = self._now()
        with self._changed:
            session = self._sessions.get(key)
            if session is None:
                raise self._refuse(404, "unknown", "no such session, or it was idle; begin another")
            session.asked = arrived
        self._check(request)
        with self._changed:
            if session.busy:
                raise self._refuse(409, "busy", "this session has a request under way; wait for it")
            begins = bool(request.frames) and request.frames[0].is_first
            if session.step != request.step and not begins:
                raise self._refuse(
                    409,
                    "step",
                    f"the session has taken in {session.step} observations, not "
                    f"{request.step}; begin an episode",
                )
            if len(self._queue) >= self._queue_size or self._closed:
                raise self._refuse(
                    503, "full", f"{len(self._queue)} requests wait, no other is taken; ask later"
                )
            session.busy = True
            job = _Job(session, request, arrived, asyncio.get_running_loop().create_future())
            self._queue.append(job)
            if len(self._queue) >= self._wanted:
                self._changed.notify_all()
        return await job.done

    def about(self) -> Json:
        """Return what a client has to know of the agent."""
        planner = self.agent.planner
        return {
            "spec": self.agent.spec.to_json(),
            "horizon": planner.horizon,
            "rounds": planner.rounds,
        }

    @property
    def healthy(self) -> bool:
        """Whether the thread that plans is there."""
        return self._thread.is_alive() and not self._closed

    def measured(self) -> dict[str, float]:
        """Return counts since the beginning, what is there now, and latencies in milliseconds."""
        with self._changed:
            values: dict[str, float] = {f"{name}_total": n for name, n in self.counts.items()}
            values |= {"sessions": len(self._sessions), "queue": len(self._queue)}
            latencies = sorted(self.latency_ms)
        for share in (50, 95, 99) if latencies else ():
            values[f"latency_ms_p{share}"] = latencies[(len(latencies) - 1) * share // 100]
        return values

    def close(self) -> None:
        """Refuse what waits, and end the thread after the batch under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self, request: Request) -> None:
        agent = self.agent
        horizon = agent.planner.horizon
        try:
            for frame in request.frames:
                first = np.array([frame.is_first])
                check_inputs(agent.spec, 1, frame.observation, frame.executed, first)
            if request.committed is not None:
                for action in request.committed[0]:
                    check_inputs(agent.spec, 1, None, action[None], np.array([False]))
            if request.rounds is not None and request.rounds > agent.planner.rounds:
                raise PlanetError(f"rounds {request.rounds}: at most {agent.planner.rounds}")
            if request.executed > horizon and not any(f.is_first for f in request.frames):
                raise PlanetError(f"executed {request.executed}: at most {horizon}, a plan's steps")
        except PlanetError as error:
            with self._changed:
                raise self._refuse(400, "wrong", str(error)) from None

    def _refuse(self, status: int, reason: str, line: str) -> RefusedError:
        self.counts[f"refused_{reason}"] += 1
        return RefusedError(status, reason, line)

    def _run(self) -> None:
        try:
            while jobs := self._next():
                self._answer(jobs)
                self._tell()
        finally:
            with self._changed:
                self._closed = True
                for job in self._queue:
                    self._finish(job, self._refuse(503, "closed", "the service ends"))
                self._queue.clear()
            self._tell()

    def _next(self) -> list[_Job]:
        """Return the requests of the next batch, in the order that they came; none at the end."""
        with self._changed:
            while True:
                self._wanted = 1
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return []
                end = self._queue[0].arrived + self._gather
                while (left := end - self._now()) > 0:
                    self._wanted = self._expected()
                    if len(self._queue) >= self._wanted:
                        break
                    self._changed.wait(left)
                taken = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
                if jobs := [job for job in taken if not self._too_late(job)]:
                    return jobs

    def _expected(self) -> int:
        """Return how many requests a batch waits for."""
        since = self._now() - LATELY
        active = sum(session.asked >= since for session in self._sessions.values())
        return min(self._most, active)

    def _too_late(self, job: _Job) -> bool:
        deadline = job.request.deadline_ms
        waited = 1000 * (self._now() - job.arrived)
        if deadline is None or waited <= deadline:
            return False
        line = f"deadline_ms {deadline:g}: passed, it has waited {waited:.0f} ms in the queue"
        self._finish(job, self._refuse(504, "late", line))
        self._tell()
        return True

    def _answer(self, jobs: list[_Job]) -> None:
        jobs.sort(key=lambda job: job.session.belief.place)  # as they were together the last time
        rows = [Row(job.request, job.session.belief, job.session.seed) for job in jobs]
        error: Exception | None = None
        try:
            answer(self.agent, rows)
        except Exception as raised:  # code of the user's, or memory: the service goes on
            error = raised
        with self._changed:
            self.counts["batches"] += 1
            for job, row in zip(jobs, rows, strict=True):
                if error is not None:
                    line = one_line(f"{type(error).__name__}: {error}")
                    self._finish(job, self._refuse(500, "failed", f"no decision: {line}"))
                    continue
                job.session.belief = row.belief
                job.session.step = job.request.step + len(job.request.frames)
                self.counts["decisions"] += row.reply is not None
                self.counts["frames"] += len(job.request.frames)
                self.latency_ms.append(1000 * (self._now() - job.arrived))
                self._finish(job, row.reply)

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        job.session.busy = False
        self._finished[job.done.get_loop()].append((job.done, outcome))

    def _tell(self) -> None:
        """Wake each event loop once: those who waited in it go on."""
        for loop, outcomes in self._finished.items():
            with contextlib.suppress(RuntimeError):  # it was closed
                loop.call_soon_threadsafe(_settle, outcomes)
        self._finished.clear()


def _settle(outcomes: list[_Finished]) -> None:
    for done, outcome in outcomes:
        if done.done():  # nobody waits any more
            continue
        if isinstance(outcome, RefusedError):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)
