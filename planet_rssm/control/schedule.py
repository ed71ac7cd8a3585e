"""What is to be done at each tick of an episode, as the plans that have come in have it."""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
FALLBACKS = ("hold", "zero")


class Command(NamedTuple):
    """What to do in a tick: `action` float32 [A], and its `source`, see ControlLoop.counts."""

    action: Array
    source: str


class Schedule:
    """The plans of an episode, each from the tick that it begins at; ticks count from 0."""

    def __init__(self, nothing: Array, delay: int, execute: int, fallback: str) -> None:
        """Begin an episode.

        Args:
            nothing: [A], what is done before there is any plan.
            delay: ticks before the first plan begins.
            execute: ticks that each plan is meant for.
            fallback: what is done once a plan has no more actions, see ControlLoop.
        """
        self._nothing = nothing
        self.last = nothing  # what was done in the tick before
        self._delay = delay
        self._execute = execute
        self._fallback = fallback
        self._plans: list[tuple[int, Array]] = []  # by the tick of the first action: actions [H, A]

    def add(self, start: int, actions: Array) -> None:
        """Take in a plan whose first action, of `actions` [H, A], is meant for tick `start`."""
        # of the older ones, one is being done and at most `delay` are still to begin
        self._plans = [*self._plans[-self._delay - 1 :], (start, actions)]

    def take(self, tick: int) -> Command:
        """Return what to do in this tick; from now on it is done."""
        command = self._at(tick, self.last)
        self.last = command.action
        return Command(command.action.copy(), command.source)

    def committed(self, tick: int) -> Array:
        """Return the actions [delay, A] of the ticks before the plan that is asked for now."""
        actions = [self.last]
        for ahead in range(tick, tick + self._delay):
            actions.append(self._at(ahead, actions[-1]).action)
        return np.stack(actions)[1:]

    def _at(self, tick: int, before: Array) -> Command:
        """Return what to do in a tick as things stand; `before` [A] is done in the tick before."""
        newest = next((plan for plan in reversed(self._plans) if plan[0] <= tick), None)
        if newest is None and tick < self._delay:
            return Command(self._nothing, "start")
        if newest is not None and tick - newest[0] < len(newest[1]):
            offset = tick - newest[0]
            return Command(newest[1][offset], "plan" if offset < self._execute else "tail")
        return Command(before if self._fallback == "hold" else self._nothing, "fallback")
