"""The control loop of one robot: an action at every tick, whatever the planner is doing.

    with ControlLoop(agent, hz=20, budget_ms=40, delay=1) as loop:
        command = loop.tick({"image": camera()}, is_first=True)
        while running:
            motors(command.action)
            loop.sleep()  # until the next tick
            command = loop.tick({"image": camera()})

    delay 0    frame n  >-- plan --> action n          the tick waits for its plan, a period at most
    delay 1    frame n  >--- plan ------> action n+1   the tick returns at once, by frame n-1

Decisions run in a thread of their own, one at a time. If a plan is late the one before it goes on;
when it comes it is used from where it then stands. See docs/control.md.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from planet_rssm.agent import Agent, RoundTimes
from planet_rssm.base.device import to_host
from planet_rssm.base.errors import PlanetError
from planet_rssm.control.budget import RoundBudget
from planet_rssm.control.checks import check_options, trained_rate, warn_of_other_rate
from planet_rssm.control.clock import Clock, RealTime
from planet_rssm.control.inputs import fit_action, fit_observation
from planet_rssm.control.remote import RemoteAgent
from planet_rssm.control.schedule import Command, Schedule
from planet_rssm.types import Plan

Array = np.ndarray
Deciding = Agent[Any] | RemoteAgent
Carry = Any  # of the agent
# Where an action came from: the plan that was due, an older one because that was late, no plan at
# all, or none was due yet; `skipped` ticks had no action because the caller itself came a period
# late.
SOURCES = ("plan", "tail", "fallback", "start", "skipped")
BACKLOG = 32  # frames that a decision takes in at most, the newest
KEPT = 100_000  # latencies remembered: more than an hour at 20 Hz


class _Frame(NamedTuple):
    observation: dict[str, Array] | None  # [1, ...]
    executed: Array  # [1, A]
    is_first: bool


class _Job(NamedTuple):
    handle: Any  # the clock's
    start: int | None  # tick of its plan's first action; None if it only filters
    begin: float  # seconds, when its newest frame came in


class ControlLoop:
    """An agent that acts at a fixed rate. All its memory is here, none on the agent."""

    def __init__(
        self,
        agent: Deciding,
        *,
        hz: float | None = None,
        budget_ms: float | None = None,
        delay: int = 0,
        execute: int = 1,
        fallback: str = "hold",
        clock: Clock | None = None,
    ) -> None:
        """Warm up, which takes a few decisions.

        Args:
            agent: its model and planner, or a planning service's; no other loop or thread may use
                it meanwhile.
            hz: ticks a second; None: the rate of the agent steps that the model was trained with.
            budget_ms: from frame to plan; the search makes as many rounds as fit, by the times
                measured here and then by those of its plans, see RoundBudget. None: all rounds,
                however long they take.
            delay: ticks between a frame and the first action planned from it, at least 0. The plan
                begins at the belief after the actions of these ticks, which are committed already.
            execute: ticks that each plan is meant for, 1 to the planner's horizon: it is replanned
                as often.
            fallback: what is done where the last plan has no more actions: `hold` the last one, or
                `zero` (of choices the first).
            clock: RealTime if not given.

        Raises:
            PlanetError: one of these is out of its range.
        """
        self.hz = trained_rate(agent.spec) if hz is None else hz
        check_options(
            agent.planner.horizon,
            hz=self.hz,
            budget_ms=budget_ms,
            delay=delay,
            execute=execute,
            fallback=fallback,
        )
        warn_of_other_rate(agent.spec, self.hz)
        self.agent = agent
        self.period = 1 / self.hz
        self.delay = delay
        self.execute = execute
        self.fallback = fallback
        self.counts = dict.fromkeys(SOURCES, 0)
        self.plan: Plan | None = None  # the last that came in, on the CPU
        self.latency_ms: deque[float] = deque(maxlen=KEPT)  # from frame to plan, of each decision
        self._clock = RealTime() if clock is None else clock
        self._stream = _own_stream(agent.device)
        self.times, self._carry = self._warm()
        self._rounds = RoundBudget(self.times, budget_ms)
        self._job: _Job | None = None
        # frames that the belief skipped: there were more than BACKLOG to take in at once
        self.dropped = 0
        self._frames: list[_Frame] = []  # frames that the belief has not taken in yet
        self._schedule: Schedule | None = None  # of the episode; None before the first
        self._tick = 0  # of the episode
        self._begin = 0.0  # when the last tick began
        self._due: float | None = None  # when it was due, of those that `sleep` paces
        self._asked: int | None = None  # tick that the last plan asked for begins at
        # the last tick raised a decision's error, whose frames are lost: the next begins anew
        self._failed = False

    def tick(
        self,
        observation: Mapping[str, Array] | None,
        executed_action: Array | None = None,
        *,
        is_first: bool = False,
    ) -> Command:
        """Take in an observation and return what to do now.

        Args:
            observation: what the model was trained on: images uint8 [H, W, 3], brought to its size
                here, and vectors float32 [n]. None: the frame was dropped, the belief advances by
                the prior.
            executed_action: [A], what the actuators really did since the last tick; None: what was
                returned there.
            is_first: an episode begins. A decision still under way is waited for and dropped.

        Raises:
            PlanetError: something else is observed than what the model was trained with; the tick
                may be tried again.
            Exception: whatever a decision raised, once; the next tick begins an episode, as if by
                `is_first`.
        """
        anew = is_first or self._failed
        schedule = self._new_episode() if anew or self._schedule is None else self._schedule
        self._begin = self._clock.now()
        spec = self.agent.spec
        done = schedule.last if executed_action is None else fit_action(executed_action, spec)
        frame = _Frame(fit_observation(observation, spec), done[None], self._tick == 0)
        self._remember(frame)
        self._failed = True  # unless this tick comes to its end
        self._take(schedule, self._begin)
        if self._job is None:
            self._job = self._ask(schedule)
        if self.delay == 0 and self._job.start is not None:
            self._take(schedule, (self._begin if self._due is None else self._due) + self.period)
        command = schedule.take(self._tick)
        self.counts[command.source] += 1
        self._tick += 1
        self._failed = False
        return command

    def sleep(self) -> None:
        """Sleep until the next tick.

        Ticks that are over already are skipped and counted; the belief passes them as dropped
        frames, during which the actuators went on with the last action. Of a long pause it passes
        the last BACKLOG ticks only; after one in which the robot was moved otherwise, begin an
        episode.
        """
        if self._schedule is None:
            raise PlanetError("sleep: no tick to follow; call tick first")
        self._due = (self._begin if self._due is None else self._due) + self.period
        over = max(0, math.floor((self._clock.now() - self._due) / self.period))
        self._remember(_Frame(None, self._schedule.last[None], False), over)
        self.counts["skipped"] += over
        self._tick += over
        self._due += over * self.period
        self._clock.sleep_until(self._due)

    @property
    def missed(self) -> int:
        """Ticks whose action was not the one that should have been planned for them."""
        return self.counts["tail"] + self.counts["fallback"] + self.counts["skipped"]

    @property
    def rounds(self) -> int | None:
        """Rounds of search of the next decision; None: all."""
        return self._rounds.rounds

    def close(self) -> None:
        """Let the decision under way end, and its thread with it; an error in it is raised."""
        self._clock.close()
        job, self._job = self._job, None
        if job is not None:
            self._clock.result(job.handle, math.inf)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._job = None  # an error is on its way already
        self.close()

    def _remember(self, frame: _Frame, times: int = 1) -> None:
        """Keep a frame for the belief, `times` over.

        What it cannot keep up with is dropped, the oldest first. The first frame of an episode is
        never among those: a decision that is asked for at once has taken it in.
        """
        waiting = len(self._frames) + times
        self._frames = [*self._frames, *[frame] * min(times, BACKLOG)][-BACKLOG:]
        self.dropped += waiting - len(self._frames)

    def _new_episode(self) -> Schedule:
        """Forget the last episode, once its last decision has ended."""
        if self._schedule is not None:
            self._failed = True  # unless the last decision ended well
            self._take(self._schedule, math.inf)
            self._failed = False
        nothing = self.agent.spec.nothing()
        self._schedule = Schedule(nothing, self.delay, self.execute, self.fallback)
        self._frames = []
        self._tick = 0
        self._due = None
        self._asked = None
        return self._schedule

    def _ask(self, schedule: Schedule) -> _Job:
        """Have the frames filtered, and planned from when the time has come."""
        start = self._tick + self.delay
        due = self._asked is None or start >= self._asked + self.execute
        executed = 1 if self._asked is None else start - self._asked
        committed = schedule.committed(self._tick)[None] if due and self.delay else None
        carry = self._carry
        frames = self._frames
        rounds = self.rounds

        def job() -> tuple[Plan | None, Carry]:
            with self._stream():
                filtered = _observe(self.agent, carry, frames)
                if not due:
                    return None, filtered
                return _decide(self.agent, filtered, committed, executed, rounds)

        self._frames = []
        if due:
            self._asked = start
        return _Job(self._clock.start(job, decides=due), start if due else None, self._begin)

    def _take(self, schedule: Schedule, until: float) -> None:
        """Take the result of the job under way, if it ends before `until`."""
        job, self._job = self._job, None  # an error in it is raised once
        if job is None:
            return
        ended = self._clock.result(job.handle, until)
        if ended is None:
            self._job = job
            return
        (plan, self._carry), finished = ended
        if plan is not None and job.start is not None:
            self.plan = plan
            schedule.add(job.start, plan.sequence[0].numpy())
            latency_ms = 1000 * (finished - job.begin)
            self.latency_ms.append(latency_ms)
            self._rounds.note(latency_ms)

    def _warm(self) -> tuple[RoundTimes, Carry]:
        """Measure in the thread, and on the stream, that decisions will run in."""

        def job() -> tuple[RoundTimes, Carry]:
            with self._stream():
                return self.agent.warmup(1, delay=self.delay), self.agent.initial(1)

        ended = self._clock.result(self._clock.start(job, decides=False), math.inf)
        assert ended is not None  # it was waited for
        return ended[0]


def _observe(agent: Deciding, carry: Carry, frames: list[_Frame]) -> Carry:
    for frame in frames:
        carry = agent.observe(carry, frame.observation, frame.executed, np.array([frame.is_first]))
    return carry


def _decide(
    agent: Deciding, carry: Carry, committed: Array | None, executed: int, rounds: int | None
) -> tuple[Plan, Carry]:
    """Decide, and wait for the device."""
    plan, carry = agent.decide(carry, committed=committed, executed=executed, rounds=rounds)
    # the action may have exploration noise
    sequence = torch.cat([plan.action[:, None], plan.sequence[:, 1:]], 1)
    return to_host(plan._replace(sequence=sequence.float())), carry


def _own_stream(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the context that jobs run in: on CUDA a stream of their own."""
    if device.type != "cuda":
        return contextlib.nullcontext
    stream = torch.cuda.Stream(device)
    # the weights may still be on their way in
    stream.wait_stream(torch.cuda.current_stream(device))
    return lambda: torch.cuda.stream(stream)
