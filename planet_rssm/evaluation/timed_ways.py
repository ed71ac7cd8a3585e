"""How long the ways to decide take with a run's model, measured once and kept beside the run."""

import io
import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy, RoundTimes, parts_of
from planet_rssm.base.device import processor, within_memory
from planet_rssm.base.files import UNSEALED, is_sealed, read_regular, seal, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.config import FORMAT
from planet_rssm.evaluation.episode_cache import FOLDER
from planet_rssm.evaluation.equal_time import (
    ACTOR,
    Search,
    Timing,
    choose,
    climb,
    settings_for,
    unit_of,
    ways_of,
)
from planet_rssm.evaluation.opened_run import Pools
from planet_rssm.evaluation.protocol import TimedPolicy, play
from planet_rssm.runs.checkpoint import Checkpoint, OpenedRun
from planet_rssm.runs.run import RESUMABLE
from planet_rssm.runs.surroundings import versions

REPEATS = 7  # of each number of rounds: the fastest counts, whatever else the machine does

_log = logging.getLogger("planet_rssm")


def made_of(opened: OpenedRun, budgets: Sequence[float], overrides: Sequence[str]) -> Json:
    """Return all that the times of a run's decisions depend on, as JSON; its weights do not count.

    Seeds of one run are equal in it.
    """
    flat = config.flatten(opened.checkpoint.settings)
    kept = {key: value for key, value in flat.items() if key not in RESUMABLE | {"seed"}}
    facts = {
        "ms": list(budgets),
        "overrides": list(overrides),
        "settings": kept,
        "env": opened.checkpoint.spec.to_json(),
        "device": str(opened.device),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    return json.loads(json.dumps(facts, default=str))  # as the file gives it back


class TimedWays:
    """The ways of one run, each with what fits into the times asked for."""

    def __init__(
        self,
        name: str,
        opened: OpenedRun,
        facts: Json,
        folder: Path,
        *,
        overrides: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        """Read what was measured before, unless all is to be measured anew.

        Args:
            name: of the run.
            opened: the same, read.
            facts: see `made_of`.
            folder: of what is kept of it.
            overrides: `key=value` texts; those count for a way that it reads.
            fresh: measure again.
        """
        self._name = name
        self._checkpoint, self._device, _ = opened
        self._facts = facts
        self._overrides = overrides
        crc = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
        self._path = folder / FOLDER / f"times-{crc:08x}.json"
        kept = {} if fresh or not self._path.exists() else self._read()
        possible, self.left_out = ways_of(self._checkpoint.settings)
        # all are made now: an override that is refused is so before anything is measured
        settings = self._checkpoint.settings
        smallest = unit_of(settings)
        for way in possible:
            settings_for(settings, way, smallest, overrides=overrides)
        self.timings: dict[str, Timing | None] = {way: kept.get(way) for way in possible}

    def settings(self, way: str, search: Search) -> Checkpoint:
        """Return the checkpoint as it decides in a way, with a search that was chosen."""
        settings = settings_for(
            self._checkpoint.settings,
            way,
            search.candidates,
            search.rounds,
            [*self._overrides, f"planner.precision={search.precision}"],
        )
        return replace(self._checkpoint, settings=settings)

    def measure(
        self,
        budgets: Sequence[float],
        seed: int,
        pools: Pools,
        on_stage: Callable[[str], object] = lambda name: None,
    ) -> None:
        """Measure the ways that have not been measured, and keep what was.

        An episode is played alone with each search that was chosen, and its decisions are timed.

        Args:
            budgets: milliseconds of one decision.
            seed: of the episode's reset.
            pools: where it is played.
            on_stage: given what is measured next.
        """
        missing = [way for way, timing in self.timings.items() if timing is None]
        if not missing:
            return
        model, behavior = parts_of(self._checkpoint, self._device)

        def agent(way: str, candidates: int, rounds: int) -> Agent:
            own = self._checkpoint.settings
            settings = settings_for(own, way, candidates, rounds, self._overrides)
            return Agent.build(
                settings, self._checkpoint.spec, model, behavior, device=self._device
            )

        unit = unit_of(self._checkpoint.settings)
        for way in missing:
            on_stage(f"times: {self._name}, {way}")

            def times(candidates: int, rounds: int, way: str = way) -> RoundTimes:
                return agent(way, candidates, rounds).warmup(repeats=REPEATS, pick=min)

            with within_memory(self._device, "a decision", "free some, or give a smaller --ms"):
                if way == ACTOR:
                    timing = choose({0: times(0, 1)}, unit, budgets)
                else:
                    timing = choose(climb(times, unit, max(budgets)), unit, budgets)
                self.timings[way] = self._in_an_episode(way, timing, agent, seed, pools)
            self._keep()

    def _in_an_episode(
        self,
        way: str,
        timing: Timing,
        agent: Callable[[str, int, int], Agent],
        seed: int,
        pools: Pools,
    ) -> Timing:
        """Return what was chosen with the latencies of an episode."""
        timed: dict[Search, Search] = {}
        for search in filter(None, timing.searches.values()):
            if search in timed:
                continue
            acting = agent(way, search.candidates, search.rounds)
            policy = TimedPolicy(AgentPolicy.of_episodes(acting, [seed], 1))
            play(pools.of(self._checkpoint.settings.env, 1), policy, [seed])
            latency = {key: ms for key, ms in policy.latency_ms().items() if key != "p99"}
            timed[search] = replace(search, precision=acting.precision, latency_ms=latency)
        searches = {ms: search and timed[search] for ms, search in timing.searches.items()}
        return Timing(searches, timing.least)

    def _read(self) -> dict[str, Timing]:
        """Return the timings by way that a file has; none if it is damaged."""
        try:
            data = read_regular(self._path)
            record = json.loads(data)
            if not is_sealed(io.BytesIO(data)) or record["format"] != FORMAT:
                raise ValueError
            if record["made_of"] != self._facts:
                return {}
            return {way: Timing.from_json(timing) for way, timing in record["timings"].items()}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            _log.warning("%s: damaged or of another version; it is measured again", self._path)
            return {}

    def _keep(self) -> None:
        """Keep what was measured, durably. A folder that cannot be written costs a warning."""
        record = {
            "format": FORMAT,
            "crc32": UNSEALED,
            "made_of": self._facts,
            "timings": {way: timing.to_json() for way, timing in self.timings.items() if timing},
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, [seal(json.dumps(record).encode())])
        except OSError as error:
            _log.warning(
                "times not kept in %s (%s); the next compare measures them again",
                self._path,
                error.strerror,
            )
