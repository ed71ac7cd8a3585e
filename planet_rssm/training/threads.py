"""How many threads of a CPU learn and how many plan, by a short measurement as a run begins.

Small tensors lose by being shared, large ones gain, and a processor may have fewer cores for this
program than it counts. Sums of other numbers of threads differ in their last digits, so a run keeps
what was chosen.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from planet_rssm.base.device import within_memory
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import Settings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.collector import Threads
from planet_rssm.training.learner import Learner
from planet_rssm.training.part_times import decision_of
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.world_model import untrained_model

BY_USER = "OMP_NUM_THREADS"  # of the environment: then nothing is measured
GAIN = 0.9  # what is chosen instead takes at most this share of the time: a nearer race is noise
CALLS = 4  # of each number of threads; the first warms up
LONG = 1.0  # seconds of a call that is of large tensors, which share well: not measured further


class Chosen(NamedTuple):
    """What a run that begins here takes."""

    threads: Threads
    why: str | None  # a line for the user; None: there was no choice


def choose_threads(settings: Settings, spec: EnvSpec, device: torch.device) -> Chosen:
    """Return how many threads learn and plan on a CPU: what the settings say, else by measurement.

    Updates and decisions are made with random numbers, a few for each number of threads. What the
    user's OMP_NUM_THREADS says is not measured.

    Raises:
        PlanetError: too little memory for one of either.
    """
    there, train = torch.get_num_threads(), settings.train
    unmeasured = Chosen(Threads.asked(train), None)
    auto = "auto" in (train.threads, train.collect_threads)
    pairs = _pairs(there, beside=bool(train.staleness))
    if device.type != "cpu" or not auto or len(pairs) == 1 or os.environ.get(BY_USER):
        return unmeasured
    fix = "lower train.batch_size, train.batch_length or planner.candidates"
    try:
        with within_memory(device, "one update and one decision", fix):
            updates, decisions = _times(settings, spec, device, pairs)
    finally:
        torch.set_num_threads(there)
    if train.staleness:
        rounds = train.updates, spec.episode_steps / spec.action_repeat
        pair = _fastest_beside(pairs, updates, decisions, rounds)
    else:
        pair = Threads(_fastest(updates), _fastest(decisions or updates))
    pair = Threads(
        pair.learn if train.threads == "auto" else train.threads,
        pair.collect if train.collect_threads == "auto" else train.collect_threads,
    )
    times = f"an update takes {_table(updates)}"
    times += f", a decision {_table(decisions)}" if decisions else ""
    return Chosen(pair, f"threads: {pair.learn} to learn, {pair.collect} to plan ({times})")


def _pairs(there: int, *, beside: bool) -> list[Threads]:
    """Return what may be chosen: numbers that halve, or with `beside` the ways to share them."""
    halves = [there >> shift for shift in range(there.bit_length())]
    if not beside:
        return [Threads(count, count) for count in halves]
    learn = {Threads.of(there).learn, *halves, *(there - count for count in halves)}
    pairs = [Threads(count, there - count) for count in sorted(learn) if 0 < count < there]
    return pairs or [Threads.of(there)]


def _times(
    settings: Settings, spec: EnvSpec, device: torch.device, pairs: Sequence[Threads]
) -> tuple[dict[int, float], dict[int, float]]:
    """Return the seconds of an update and of a decision by threads; a run offline decides not."""
    train = settings.train
    model = untrained_model(settings, spec).to(device)
    learner = Learner(model, settings, device, untrained_behavior(settings, model))
    batch = learner.stage(random_chunks(spec, train.batch_size, train.batch_length), 0)
    updates = _by_threads(lambda: learner.update(batch, 0), {pair.learn for pair in pairs})
    if settings.data.folder is not None:
        return updates, {}
    decide = decision_of(settings, spec, learner, device)
    return updates, _by_threads(decide, {pair.collect for pair in pairs})


def _by_threads(call: Callable[[], object], counts: set[int]) -> dict[int, float]:
    """Return the least seconds of a call by threads, from the most on; all of a long one's."""
    seconds: dict[int, float] = {}
    for count in sorted(counts, reverse=True):
        torch.set_num_threads(count)
        taken: list[float] = []
        while len(taken) < CALLS and sum(taken) < LONG:
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
        seconds[count] = min(taken)
        if seconds[count] >= LONG:
            break
    return seconds


def _fastest(seconds: dict[int, float]) -> int:
    """Return the number of threads that takes the least time, the most if none is clearly so."""
    most, best = max(seconds), min(seconds, key=lambda count: seconds[count])
    return best if seconds[best] <= GAIN * seconds[most] else most


def _fastest_beside(
    pairs: Sequence[Threads],
    updates: dict[int, float],
    decisions: dict[int, float],
    rounds: tuple[int, float],
) -> Threads:
    """Return how to share the threads so that a round is over first, half and half unless clear.

    `rounds` are the updates and the decisions of one. The environments' own time is left out: no
    thread makes them faster.
    """

    def seconds(pair: Threads) -> float:
        return max(rounds[0] * updates[pair.learn], rounds[1] * decisions[pair.collect])

    known = [pair for pair in pairs if pair.learn in updates and pair.collect in decisions]
    half = Threads.of(sum(pairs[0]))
    if half not in known:  # long ones are not measured with fewer threads
        return half
    best = min(known, key=seconds)
    return best if seconds(best) <= GAIN * seconds(half) else half


def _table(seconds: dict[int, float]) -> str:
    return ", ".join(f"{1000 * seconds[count]:.3g} ms with {count}" for count in sorted(seconds))
