"""What a run would take: each of its parts done once, in a folder that is removed, and the whole foretold from that."""

import errno
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from planet_rssm.agent import Agent
from planet_rssm.base.device import synchronize, within_memory
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import scratch_folder, write_atomic
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior import untrained_behavior
from planet_rssm.collect import RandomPolicy
from planet_rssm.config import Settings
from planet_rssm.data.replay import Chunks
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.baselines import BLIND_ROWS, constant_actions
from planet_rssm.evaluation.protocol import PARALLEL
from planet_rssm.evaluation.results import ObservationInfo
from planet_rssm.precision import collecting_precision, training_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.training.learner import Learner
from planet_rssm.training.progress import Progress
from planet_rssm.world_model import untrained_model

MIB = 2**20
PREFIX = ".planet-dry-run-"  # of the folder that is removed
BLOCK = 16 * MIB  # written once for the disk's rate
CALLS, PATIENCE = 20, 5.0  # each part is timed this often, or until so many seconds are over
LONG = 1000  # steps that are taken at most to see an episode end


class Costs(NamedTuple):
    """What one of each costs, in seconds, the last two in bytes."""

    env_start: float  # all workers
    env_reset: float  # of all rows, one after the other or side by side as the pool does it
    env_step: float  # an agent step of all rows
    decision: float  # for all rows
    update: float
    checkpoint: float  # written; reading it back is not in it
    fsync: float  # a small file, written durably
    disk: float  # a byte
    checkpoint_bytes: int
    frame_bytes: int  # of an episode's file
    blind_step: float = 0.0  # an agent step of the two rows that the simple baselines are played in


def dry_run(
    settings: Settings,
    device: torch.device,
    run: Path,
    say: Callable[[str], object],
    plan_episodes: int = 0,
) -> dict[str, Any]:
    """Do each part of a run once, and return what it measured and what the whole run would take.

    Args:
        settings: resolved, see `envs.registry.resolve`.
        device: where the model runs.
        run: the run folder to be; what is written goes beside it, onto the same disk, and is
            removed.
        say: told each part as it begins.
        plan_episodes: played with the trained model at the end, and by each baseline.

    Raises:
        PlanetError: a part does not work: environment, disk, device memory, checkpoint.
    """
    beside = place_of(run)
    mend = "lower train.batch_size, train.batch_length or planner.candidates"
    try:
        with (
            scratch_folder(beside, PREFIX) as folder,
            within_memory(device, "one update and one decision", mend),
        ):
            spec, costs, short = _measure(settings, device, folder, say)
            if plan_episodes:
                say("baselines: 2 environments that draw nothing")
                costs = costs._replace(blind_step=_blind_step(settings))
        free_disk = _free_disk(beside)
    except OSError as error:
        raise PlanetError(
            f"{beside}: {error.strerror or error}; mend that, or give another --run-dir"
        ) from None
    return {
        "task": spec.id,
        "observation": ObservationInfo.of(settings.env, spec).to_json(),
        "device": str(device),
        "batch_length": settings.train.batch_length,
        "precision": training_precision(settings, device),
        **forecast(settings, spec, costs, plan_episodes=plan_episodes),
        "short_episodes": None
        if short is None
        else {"steps": short, **forecast(settings, spec, costs, short, plan_episodes)},
        "measured": costs._asdict(),
        "free": {"disk": free_disk, "memory": _free_memory(), "device_memory": _free_on(device)},
        "peak_memory": _peak_memory(),
    }


def place_of(run: Path) -> Path:
    """Return the folder that exists and on whose disk a run folder would lie.

    Raises:
        PlanetError: what exists there is no folder.
    """
    beside = next(parent for parent in run.absolute().parents if parent.exists())
    if not beside.is_dir():
        raise PlanetError(
            f"{beside}: {os.strerror(errno.ENOTDIR)}; mend that, or give another --run-dir"
        )
    return beside


def forecast(
    settings: Settings,
    spec: EnvSpec,
    costs: Costs,
    length: float | None = None,
    plan_episodes: int = 0,
) -> dict[str, Any]:
    """Return counts, padding, seconds and bytes of a run whose episodes all end by time, or after `length` env_steps.

    `bytes` is what lies on the disk at the end, but for metrics and videos.
    """
    length = length or spec.episode_steps
    train, steps = settings.train, math.ceil(length / spec.action_repeat)
    planned_rounds = max(
        math.ceil((train.env_steps / length - train.seed_episodes) / train.envs), 0
    )
    rounds, episodes = 1 + planned_rounds, train.seed_episodes + planned_rounds * train.envs
    tests = math.ceil(rounds / train.test_every)
    episode_bytes = (steps + 1) * costs.frame_bytes
    kept = min(episodes, settings.data.capacity // (steps + 1) + train.envs)
    blind = costs.env_reset + steps * costs.env_step  # seconds of one episode in every row
    seeing = blind + steps * costs.decision
    seconds = {
        "collect": math.ceil(train.seed_episodes / train.envs) * blind
        + planned_rounds * seeing
        + episodes * (costs.fsync + episode_bytes * costs.disk),
        "learn": rounds * train.updates * costs.update,
        "test": tests * math.ceil(train.test_episodes / train.envs) * seeing,
        "commit": (rounds + tests) * costs.checkpoint,
        "plan": _planning(costs, spec, train.envs, steps, plan_episodes),
    }
    size = {
        "episodes": kept * episode_bytes,
        "checkpoints": (train.keep + 1) * costs.checkpoint_bytes,
    }
    return {
        "run": {
            "env_steps": round(episodes * length),
            "episodes": episodes,
            "frames": episodes * (steps + 1),
            "updates": rounds * train.updates,
            "test_episodes": tests * train.test_episodes,
            "plan_episodes": plan_episodes,
        },
        "padding": max(1 - (steps + 1) / train.batch_length, 0.0),  # share of each batch
        "seconds": {**seconds, "total": costs.env_start + sum(seconds.values())},
        "bytes": {**size, "total": sum(size.values())},
    }


def _planning(costs: Costs, spec: EnvSpec, envs: int, steps: int, episodes: int) -> float:
    """Return the seconds of planning and of all baselines, so many `episodes` of `steps` agent steps each."""
    if not episodes:
        return 0.0
    rows = min(episodes, PARALLEL)
    wider = max(rows / envs, 1.0)  # what was measured is for `envs` rows
    seeing = costs.env_reset + steps * wider * (costs.env_step + costs.decision)
    nothing, constants = constant_actions(spec)
    blind = (2 + len(constants)) * math.ceil(episodes / BLIND_ROWS) * steps * costs.blind_step
    return (
        2 * math.ceil(episodes / rows) * seeing + blind
    )  # twice: by the trained model and by an untrained one


def _measure(
    settings: Settings, device: torch.device, folder: Path, say: Callable[[str], object]
) -> tuple[EnvSpec, Costs, float | None]:
    """Return the environment, the costs, and how many env_steps its episodes last if they end before their time."""
    say(f"disk: {BLOCK // MIB} MiB and small files, in {folder.parent}")
    disk, fsync = _disk(folder)
    say(f"environment: {settings.train.envs} x {settings.env.id}, random actions")
    spec, env_start, env_reset, env_step, short = _environment(settings)
    train = settings.train
    say(f"update: {train.batch_size} x {train.batch_length} frames on {device}")
    model = untrained_model(settings, spec).to(device)
    learner = Learner(model, settings, device, untrained_behavior(settings, model))
    chunks = random_chunks(spec, train.batch_size, train.batch_length)
    update = _typical(lambda: learner.update(chunks, 0), device)
    say(f"decision: {settings.planner.name} for {train.envs} environments")
    decision = _decision(settings, spec, learner, device)
    say("checkpoint: written and read back")
    checkpoint, checkpoint_bytes = _checkpoint(settings, spec, learner, folder)
    arrays = [
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in spec.observation.values()
    ]
    frame = sum(arrays) + 4 * (spec.action_size + 1) + 3  # action and reward, three flags
    costs = Costs(
        env_start,
        env_reset,
        env_step,
        decision,
        update,
        checkpoint,
        fsync,
        disk,
        checkpoint_bytes,
        frame,
    )
    return spec, costs, short


def _disk(folder: Path) -> tuple[float, float]:
    """Return the seconds that a byte and that a small file take, both durable."""
    path, nothing = folder / "block", torch.device("cpu")
    fsync = _typical(lambda: write_atomic(path, [b"small"]), nothing)
    data, begin = os.urandom(BLOCK), time.perf_counter()
    write_atomic(path, [data])
    whole = time.perf_counter() - begin
    path.unlink()
    return max(whole - fsync, 0.0) / BLOCK, fsync


def _environment(settings: Settings) -> tuple[EnvSpec, float, float, float, float | None]:
    """Start the run's own environments and one episode in each.

    Return the seconds of start, reset and agent step, and the env_steps that passed for each that
    ended an episode before its time, None where none did.
    """
    rows = range(settings.train.envs)
    begin = time.perf_counter()
    with EnvPool(settings.env, len(rows)) as pool:
        start = time.perf_counter() - begin
        seeds = {row: stream_seed(settings.seed, Stream.RESET, row) for row in rows}
        begin = time.perf_counter()
        pool.reset(seeds)
        reset = time.perf_counter() - begin
        seconds: list[float] = []
        passed = ended = 0
        policy = RandomPolicy(pool.spec.action_size, settings.seed, pool.spec.groups)
        nothing, first = (
            np.zeros((len(rows), pool.spec.action_size), np.float32),
            np.ones(len(rows), bool),
        )
        waits = LONG if pool.spec.terminates else CALLS
        while len(seconds) < (CALLS if ended else waits) and sum(seconds) < PATIENCE:
            actions = dict(enumerate(policy({}, nothing, first)))
            begin = time.perf_counter()
            steps = pool.step(actions)
            seconds.append(time.perf_counter() - begin)
            passed += sum(step.env_steps for step in steps.values())
            ended += sum(step.terminated for step in steps.values())
            if over := [
                row for row, step in steps.items() if step.lost or step.terminated or step.truncated
            ]:
                pool.reset({row: seeds[row] for row in over})
        short = passed / ended if ended else None
        return pool.spec, start, reset, statistics.fmean(seconds[1:] or seconds), short


def _blind_step(settings: Settings) -> float:
    """Return the seconds of an agent step of the environments that the simple baselines are played in."""
    with EnvPool(settings.env.model_copy(update={"renderer": "none"}), BLIND_ROWS) as pool:
        action, _ = constant_actions(pool.spec)
        seconds: list[float] = []
        pool.reset(dict.fromkeys(range(BLIND_ROWS), 0))
        while len(seconds) < CALLS and sum(seconds) < PATIENCE:
            begin = time.perf_counter()
            steps = pool.step(dict.fromkeys(range(BLIND_ROWS), action))
            seconds.append(time.perf_counter() - begin)
            if over := [
                row for row, step in steps.items() if step.lost or step.terminated or step.truncated
            ]:
                pool.reset(dict.fromkeys(over, 0))
    return statistics.fmean(seconds[1:] or seconds)


def random_chunks(spec: EnvSpec, batch: int, length: int) -> Chunks:
    """Return chunks [batch, length] of the shapes and types that the environment's have, with noise in them."""
    rng, shape = np.random.default_rng(0), (batch, length)
    observation = {
        key: rng.integers(0, 256, (*shape, *size), np.uint8)
        if dtype == "uint8"
        else rng.standard_normal((*shape, *size), np.float32)
        for key, (size, dtype) in spec.observation.items()
    }
    is_first, nothing = np.zeros(shape, bool), np.zeros(shape, bool)
    is_first[:, 0] = True
    action = rng.uniform(-1, 1, (*shape, spec.action_size)).astype(np.float32)
    reward = rng.uniform(0, 1, shape).astype(np.float32)
    return Chunks(observation, action, reward, is_first, nothing, ~nothing)


def _decision(settings: Settings, spec: EnvSpec, learner: Learner, device: torch.device) -> float:
    rows = settings.train.envs
    precision = collecting_precision(settings, device)
    agent = Agent.build(
        settings, spec, learner.model, learner.behavior, device=device, precision=precision
    )
    frames = {key: value[:, 0] for key, value in random_chunks(spec, rows, 1).observation.items()}
    carry, action, first = (
        agent.initial(rows),
        np.zeros((rows, spec.action_size), np.float32),
        np.zeros(rows, bool),
    )
    return _typical(lambda: agent.act(carry, frames, action, first), device)


def _checkpoint(
    settings: Settings, spec: EnvSpec, learner: Learner, folder: Path
) -> tuple[float, int]:
    """Write a checkpoint, read it back, and return the seconds that writing took and its bytes."""
    path = folder / "checkpoint.safetensors"
    begin = time.perf_counter()
    written = learner.checkpoint(spec, asdict(Progress()))
    checkpoints.save(written, path)
    seconds = time.perf_counter() - begin
    held = checkpoints.load(path, trusted=True)
    if any(not torch.equal(held.model[key], tensor) for key, tensor in written.model.items()):
        raise PlanetError(
            f"{folder.parent}: a checkpoint read back differs from what was written; use another disk"
        )
    return seconds, path.stat().st_size


def _typical(call: Callable[[], object], device: torch.device) -> float:
    """Return the mean seconds of a call: what a run pays, beside whatever else the machine does.

    The first call, which warms up, counts only if there is time for no other.
    """
    seconds: list[float] = []
    while len(seconds) < CALLS and (len(seconds) < 2 or sum(seconds) < PATIENCE):
        begin = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
        if seconds[0] > 4 * PATIENCE:
            break
    return statistics.fmean(seconds[1:] or seconds)


def _free_disk(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _free_memory() -> int | None:
    """Return the bytes that programs can still have, or None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None
    )


def _free_on(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _peak_memory() -> int:
    """Return the most bytes that this process has held; its workers are not in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else
