"""Environments side by side, each in a worker process that may die or hang: the run goes on."""

import logging
import select
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, Self

import gymnasium
import numpy as np

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import EnvSettings
from planet_rssm.envs.history import EpisodeHistory
from planet_rssm.envs.pictures import MAX_FRAME
from planet_rssm.envs.process import SILENT, Ending, WorkerProcess
from planet_rssm.envs.registry import is_resolved, resolve
from planet_rssm.envs.spec import EnvSpec

STARTS = 2.0  # step timeouts that a worker has to load its task
SHORTEST_START = 30.0  # seconds that it has at least
_MAX_FAILURES = 3  # of one row without an episode that ends: no accident any more
_PATIENCE = 1.0  # seconds that a dying worker has to end by itself
_CLOSING = 5.0  # seconds that all have together to close their environments
_CHECK_EVERY = 0.25  # seconds between two checks whether a worker is dead though its pipe is open

_log = logging.getLogger("planet_rssm")


class Step(NamedTuple):
    """What came of one action in one environment."""

    observation: dict[str, np.ndarray]  # the caller's own; zeros if lost
    reward: float  # summed over the action repeat
    terminated: bool
    truncated: bool
    env_steps: int  # control steps executed
    lost: bool  # the worker died or hung and the episode is gone: drop it, reset the row
    words: str = ""  # the last line of a lost worker


class Pool(Protocol):
    """Environments side by side, the rows 0 to count - 1: see `EnvPool`, `local.LocalPool`."""

    spec: EnvSpec

    @property
    def count(self) -> int:
        """How many rows there are."""
        ...

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        """Start an episode in each row given, from its seed; return the first observations."""
        ...

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """Apply one action, float32 [A] in [-1, 1], in each row given."""
        ...

    def render(self, row: int, size: int) -> np.ndarray:
        """Return the present frame of a row, uint8 [size, size, 3]."""
        ...


class EnvPool:
    """`count` environments of the same settings, the rows 0 to count - 1.

    A worker that dies, raises or is silent for longer than `settings.step_timeout` is killed and
    replaced; `lost` counts them. If it was killed from outside or silent, the new one plays the
    episode again from its seed by the same actions. Where replies and observations are the same,
    which is compared at each step, the episode continues as if nothing had happened. Else the row's
    step is reported as lost. A reset is simply repeated on the new worker. A worker raises too
    where a reward or an observation is not finite: such a number never leaves it. It has twice
    `settings.step_timeout` to load a task, at least 30 s. When a method raises anything but
    ResetNeeded and ValueError, the pool is closed.

    Raises:
        PlanetError: settings that no worker can load, or a row whose worker failed three times and
            no episode ended in between; the line ends with the last line of the last worker.
    """

    def __init__(self, settings: EnvSettings, count: int) -> None:
        """Start the workers and wait for them; settings that leave something open are resolved."""
        if not is_resolved(settings):
            settings = resolve(settings)
        self.lost = 0
        self.count = count
        self._settings = settings
        self._failures = [0] * count  # since an episode last ended
        self._steps = [0] * count  # of the episode, the one under way included
        self._playing: set[int] = set()  # rows with an episode under way
        self._histories: dict[int, EpisodeHistory] = {}  # of the episodes under way
        # last lines of lost workers, by row, until the row's next step reports the loss
        self._broken: dict[int, str] = {}
        self._workers = [WorkerProcess(settings, row) for row in range(count)]
        self._exchange({})
        self.spec = self._workers[0].spec

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def reset(self, seeds: Mapping[int, int]) -> dict[int, dict[str, np.ndarray]]:
        """Start an episode in each row given, from its seed; return the first observations."""
        pending = {row: {"do": "reset", "seed": int(seed)} for row, seed in seeds.items()}
        while pending:
            answers = self._exchange(pending)
            pending = {row: command for row, command in pending.items() if row not in answers}
        self._steps = [0 if row in seeds else count for row, count in enumerate(self._steps)]
        self._playing |= set(seeds)
        for row, seed in seeds.items():
            self._broken.pop(row, None)
            self._histories[row] = EpisodeHistory(int(seed))
            self._histories[row].add(None, {}, self._workers[row].shared.observation)
        return {row: self._observation(row) for row in seeds}

    def step(self, actions: Mapping[int, np.ndarray]) -> dict[int, Step]:
        """Apply one action, float32 [A] in [-1, 1], in each row given, at the same time.

        Raises:
            gymnasium.error.ResetNeeded: a row has no episode under way.
            ValueError: an action of another shape, or with NaN or infinity in it.
        """
        checked = {
            row: self._checked(row, action)
            for row, action in actions.items()
            if row not in self._broken
        }
        for row, action in checked.items():
            self._workers[row].shared.action[:] = action
            self._steps[row] += 1
        answers = self._exchange({row: {"do": "step"} for row in checked})
        for row, answer in answers.items():
            self._histories[row].add(checked[row], answer, self._workers[row].shared.observation)
        return {row: self._step(row, answers.get(row)) for row in actions}

    def render(self, row: int, size: int) -> np.ndarray:
        """Return a row's present frame for videos, uint8 [size, size, 3]; black if it is lost."""
        if not 1 <= size <= MAX_FRAME:
            raise ValueError(f"frame size {size}: 1 to {MAX_FRAME} pixels a side")
        if row not in self._broken and self._exchange({row: {"do": "render", "size": size}}):
            return self._workers[row].shared.frame_of(size).copy()
        return np.zeros((size, size, 3), np.uint8)

    def close(self) -> None:
        """End the workers; a second call does nothing."""
        for worker in self._workers:
            worker.dismiss()
        deadline = time.monotonic() + _CLOSING
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers = []

    def _checked(self, row: int, action: np.ndarray) -> np.ndarray:
        if row not in self._playing:
            raise gymnasium.error.ResetNeeded(f"row {row} has no episode under way: reset it")
        action = np.asarray(action, np.float32)
        if action.shape != (self.spec.action_size,) or not np.isfinite(action).all():
            size = self.spec.action_size
            raise ValueError(f"action {action.tolist()} of row {row}: needs {size} finite values")
        return action

    def _step(self, row: int, answer: Json | None) -> Step:
        if answer is None:
            nothing = {
                key: np.zeros(shape, dtype) for key, (shape, dtype) in self.spec.observation.items()
            }
            return Step(nothing, 0.0, False, False, 0, lost=True, words=self._broken.pop(row))
        if answer["terminated"] or answer["truncated"]:
            self._playing.discard(row)
            self._failures[row] = 0
        return Step(self._observation(row), **answer, lost=False)

    def _observation(self, row: int) -> dict[str, np.ndarray]:
        return {key: value.copy() for key, value in self._workers[row].shared.observation.items()}

    def _exchange(self, commands: Mapping[int, Json]) -> dict[int, Json]:
        """Send each row its command, all at once, and return the answers by row.

        Workers that give none are replaced.
        """
        try:
            self._await_start()
            answers = self._ask(commands)
            for row in [row for row in commands if row not in answers]:
                again = self._replace(row, commands[row])
                if again is not None:
                    answers[row] = again
        except BaseException:  # Ctrl-C too: an unread answer would be taken for the next one
            self.close()
            raise
        return answers

    def _await_start(self) -> None:
        """Wait until every worker has loaded its task; replace those that do not."""
        limit = max(SHORTEST_START, STARTS * self._settings.step_timeout)
        while starting := [row for row, worker in enumerate(self._workers) if not worker.ready]:
            answers = self._collect(starting, limit)
            for row in starting:
                if row in answers:
                    self._workers[row].begin(answers[row])
                else:
                    late = (
                        f"not ready within {limit:g} s; if it needs longer, raise env.step_timeout"
                    )
                    self._restart(row, late)

    def _ask(self, commands: Mapping[int, Json]) -> dict[int, Json]:
        for row, command in commands.items():
            self._workers[row].send(command)
        return self._collect(commands, self._settings.step_timeout)

    def _collect(self, rows: Iterable[int], timeout: float) -> dict[int, Json]:
        """Read an answer of each row's worker, until all have answered or died, or time is up."""
        answers = {}
        waiting = {self._workers[row].descriptor: row for row in rows}
        printing = {self._workers[row].prints: row for row in waiting.values()}
        poll = select.poll()
        for descriptor in [*waiting, *printing]:
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + timeout
        while waiting and (left := deadline - time.monotonic()) > 0:
            dead = {descriptor for descriptor, row in waiting.items() if self._workers[row].dead}
            ready = {descriptor for descriptor, _ in poll.poll(1000 * min(left, _CHECK_EVERY))}
            for descriptor in ready & printing.keys():
                if not self._workers[printing[descriptor]].listen():
                    poll.unregister(descriptor)
            over = dead - ready  # they have nothing left to send
            for descriptor in ready & waiting.keys():
                row = waiting[descriptor]
                try:
                    answer = self._workers[row].receive()
                except EOFError:
                    over.add(descriptor)
                else:
                    if answer is not None:  # else half a line
                        answers[row] = answer
                        over.add(descriptor)
            for descriptor in over:
                poll.unregister(descriptor)
                del waiting[descriptor]
        return answers

    def _replace(self, row: int, command: Json) -> Json | None:
        """Replace a row's worker; return the new one's answer if it can continue the episode."""
        action = self._workers[row].shared.action.copy()
        ending = self._restart(row)
        if row not in self._playing:
            return None
        if ending.accident and command["do"] != "reset":
            answer = self._play_again(row, command, action)
            if answer is not None:
                return answer
        self._playing.discard(row)
        self._broken[row] = ending.words
        return None

    def _play_again(self, row: int, command: Json, action: np.ndarray) -> Json | None:
        """Have a new worker play a row's episode up to now, then obey the command.

        Return its answer; None if it fails, or the episode is another one.
        """
        history = self._histories[row]
        self._await_start()
        played: list[tuple[Json, np.ndarray]] = [({"do": "reset", "seed": history.seed}, action)]
        played += [({"do": "step"}, done) for done in history.actions]
        for step, (asked, done) in enumerate([*played, (command, action)]):
            self._workers[row].shared.action[:] = done
            answer = self._ask({row: asked}).get(row)
            if answer is None:
                self._restart(row)
                return None
            observation = self._workers[row].shared.observation
            if step < len(played) and not history.agrees(step, answer, observation):
                _log.warning(
                    "environment %d does not play the same again: "
                    "its episode ends at step %d of %d",
                    row,
                    step,
                    len(history.actions),
                )
                return None
        _log.info(
            "environment %d: its episode goes on from step %d, played again up to there",
            row,
            len(history.actions),
        )
        return answer

    def _restart(self, row: int, words: str | None = None) -> Ending:
        """End a row's worker, log it, and start another; `words` describe it if it is silent."""
        ending = self._workers[row].end(_PATIENCE)
        words = words if words and ending.words == SILENT else ending.words
        self.lost += 1
        self._failures[row] += 1
        when = (
            f"in step {self._steps[row]} of an episode"
            if row in self._playing
            else "before an episode"
        )
        self._workers[row] = WorkerProcess(self._settings, row)
        if self._failures[row] >= _MAX_FAILURES:
            raise PlanetError(
                f"env.id = {self._settings.id!r}: its worker failed {self._failures[row]} times "
                f"in a row, at last {when}: {words}"
            )
        _log.warning("environment %d was lost %s and is replaced: %s", row, when, words)
        return ending
