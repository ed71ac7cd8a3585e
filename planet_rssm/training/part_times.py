"""How long each part of a run takes here, done once or a few times: the costs of a forecast."""

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from planet_rssm.agent import Agent
from planet_rssm.base.device import synchronize
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.behavior import untrained_behavior
from planet_rssm.collect import RandomPolicy
from planet_rssm.config import Settings
from planet_rssm.envs.pool import EnvPool
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.blind_baselines import BLIND_ROWS, constant_actions
from planet_rssm.precision import collecting_precision
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.training.collector import Threads
from planet_rssm.training.forecast import Costs
from planet_rssm.training.learner import Learner
from planet_rssm.training.progress import Progress
from planet_rssm.training.random_chunks import random_chunks
from planet_rssm.world_model import untrained_model

MIB = 2**20
BLOCK = 16 * MIB  # written once for the disk's rate
# Each part is timed this many times, or for this many seconds.
CALLS = 20
PATIENCE = 5.0
LONG = 1000  # steps that are taken at most to see an episode end


def measure(
    settings: Settings, device: torch.device, folder: Path, say: Callable[[str], object]
) -> tuple[EnvSpec, Costs, float | None]:
    """Return the environment, the costs, and the env_steps of an episode if they end early."""
    say(f"disk: {BLOCK // MIB} MiB and small files, in {folder.parent}")
    disk, fsync = _disk(folder)
    say(f"environment: {settings.train.envs} x {settings.env.id}, random actions")
    spec, env_start, env_reset, env_step, short = _environment(settings)
    train = settings.train
    say(f"update: {train.batch_size} x {train.batch_length} frames on {device}")
    model = untrained_model(settings, spec).to(device)
    learner = Learner(model, settings, device, untrained_behavior(settings, model))
    chunks = random_chunks(spec, train.batch_size, train.batch_length)
    beside = Threads.asked(train)
    threads = beside.in_turns(train)
    with _threads(threads.learn):
        update = _typical(lambda: learner.update(chunks, 0), device)
    say(f"decision: {settings.planner.name} for {train.envs} environments")
    with _threads(threads.collect):
        decision = _decision(settings, spec, learner, device)
    update_beside = decision_beside = 0.0
    if train.staleness:
        say("update and decision once more, each with its share of the threads")
        with _threads(beside.learn):
            update_beside = _typical(lambda: learner.update(chunks, 0), device)
        with _threads(beside.collect):
            decision_beside = _decision(settings, spec, learner, device)
    say("checkpoint: written and read back")
    checkpoint, checkpoint_bytes = _checkpoint(settings, spec, learner, folder)
    arrays = [
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in spec.observation.values()
    ]
    frame = sum(arrays) + 4 * (spec.action_size + 1) + 3  # action and reward, three flags
    costs = Costs(
        env_start=env_start,
        env_reset=env_reset,
        env_step=env_step,
        decision=decision,
        update=update,
        checkpoint=checkpoint,
        fsync=fsync,
        disk=disk,
        checkpoint_bytes=checkpoint_bytes,
        frame_bytes=frame,
        update_beside=update_beside,
        decision_beside=decision_beside,
    )
    return spec, costs, short


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let a CPU compute with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _disk(folder: Path) -> tuple[float, float]:
    """Return the seconds that a byte and that a small file take, both durable."""
    path = folder / "block"
    fsync = _typical(lambda: write_atomic(path, [b"small"]), torch.device("cpu"))
    data = os.urandom(BLOCK)
    begin = time.perf_counter()
    write_atomic(path, [data])
    seconds = time.perf_counter() - begin
    path.unlink()
    return max(seconds - fsync, 0.0) / BLOCK, fsync


def _environment(settings: Settings) -> tuple[EnvSpec, float, float, float, float | None]:
    """Start the run's own environments and one episode in each.

    Return the seconds of start, reset and agent step, and the mean env_steps of episodes that ended
    early, None where none did.
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
        nothing = np.zeros((len(rows), pool.spec.action_size), np.float32)
        first = np.ones(len(rows), bool)
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


def blind_step(settings: Settings) -> float:
    """Return the seconds of an agent step where the simple baselines are played."""
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


def _decision(settings: Settings, spec: EnvSpec, learner: Learner, device: torch.device) -> float:
    return _typical(decision_of(settings, spec, learner, device), device)


def decision_of(
    settings: Settings, spec: EnvSpec, learner: Learner, device: torch.device
) -> Callable[[], object]:
    """Return a call that decides once for all environments of a run."""
    rows = settings.train.envs
    precision = collecting_precision(settings, device)
    agent = Agent.build(
        settings, spec, learner.model, learner.behavior, device=device, precision=precision
    )
    frames = {key: value[:, 0] for key, value in random_chunks(spec, rows, 1).observation.items()}
    carry = agent.initial(rows)
    action = np.zeros((rows, spec.action_size), np.float32)
    first = np.zeros(rows, bool)
    return lambda: agent.act(carry, frames, action, first)


def _checkpoint(
    settings: Settings, spec: EnvSpec, learner: Learner, folder: Path
) -> tuple[float, int]:
    """Write a checkpoint, read it back, and return the seconds that writing took and its bytes."""
    path = folder / "checkpoint.safetensors"
    begin = time.perf_counter()
    written = learner.checkpoint(spec, asdict(Progress()))
    checkpoints.save(written, path)
    seconds = time.perf_counter() - begin
    read = checkpoints.load(path, trusted=True)
    if any(not torch.equal(read.model[key], tensor) for key, tensor in written.model.items()):
        raise PlanetError(
            f"{folder.parent}: a checkpoint read back differs from what was written; use another "
            "disk"
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
