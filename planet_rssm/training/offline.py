"""Learning from recorded episodes: the loop without environment, and the settings they decide."""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from planet_rssm import config
from planet_rssm.base.device import resolve_device
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted, InterruptGuard
from planet_rssm.base.stopwatch import Stages
from planet_rssm.behavior import check_objective
from planet_rssm.config import LARGEST, SMALLEST, Settings
from planet_rssm.data import episode_set
from planet_rssm.data.replay import Replay
from planet_rssm.envs.registry import canonical_id
from planet_rssm.envs.spec import EnvSpec, chosen
from planet_rssm.runs.run import Run
from planet_rssm.training.collector import Threads
from planet_rssm.training.display import Display
from planet_rssm.training.learning_run import LearningRun
from planet_rssm.training.progress import Progress
from planet_rssm.training.restore import locked, restore


class OfflineTrainer:
    """Rounds of optimiser steps on the episodes of `settings.data.folder`.

    No environment is ever started. `env_steps`, `agent_steps` and `episodes` count the data and
    stay as they are, so checkpoints are named by their updates.
    """

    def __init__(self, learning: LearningRun, guard: InterruptGuard, replay: Replay) -> None:
        """Take what `open` opens: the run, its signals and the episodes."""
        self.learning = learning
        self.settings = learning.settings
        self.display = learning.display
        self.guard = guard
        self.replay = replay

    @classmethod
    @contextlib.contextmanager
    def open(cls, run: Run, display: Display) -> Iterator[Self]:
        """Lock the run folder, open the episodes, and continue from the last commit.

        Raises:
            PlanetError: no episodes that it could learn from, or see `locked` and `restore`.
        """
        device = resolve_device(run.settings.device)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(locked(run))
            guard = stack.enter_context(InterruptGuard())
            replay, spec = open_episodes(run.settings)
            spec = _selected(spec, run.settings)
            learner, progress, _ = restore(run, spec, device, display)
            if device.type == "cpu":
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(Threads.asked(run.settings.train).learn)
            _count_episodes(replay, progress, display)
            learning = LearningRun(
                run, display, learner, progress, place=place, stages=Stages(), axis="updates"
            )
            stack.callback(learning.close)
            yield cls(learning, guard, replay)

    @property
    def progress(self) -> Progress:
        """What was counted so far."""
        return self.learning.progress

    def run(self) -> None:
        """Learn until the budget of updates is spent.

        Raises:
            Interrupted: a signal asked to stop; what was learned is committed.
            PlanetError: the episodes, the disk or the loss make going on impossible.
        """
        budget, progress = self.settings.train.offline_updates, self.progress
        self.display.start(budget, progress.updates, "updates")
        self.display.stage("learn", max(budget - progress.updates, 0))
        try:
            while progress.updates < budget or progress.meter:
                last = min((progress.rounds + 1) * self.settings.train.updates, budget)
                self.learning.learn(self.replay, last, self._stop_if_asked)
                progress.rounds += 1
                self.learning.commit()
            self._stop_if_asked()
        finally:
            self.display.stop()

    def _stop_if_asked(self) -> None:
        if self.guard.asked:
            self.learning.commit()
            raise Interrupted


def _count_episodes(replay: Replay, progress: Progress, display: Display) -> None:
    """Count the episodes, and report it if they changed since the checkpoint learned from them."""
    entries = replay.episodes
    crc = zlib.crc32(repr(entries).encode())
    if progress.updates and progress.data_crc != crc:
        display.say(
            f"{replay.folder}: not the episodes that the checkpoint had learned from "
            f"({len(entries)} now, {progress.episodes} then); going on with these"
        )
    progress.data_crc = crc
    progress.episodes = len(entries)
    progress.env_steps = sum(entry.env_steps for entry in entries)
    progress.agent_steps = sum(entry.frames - 1 for entry in entries)


def open_episodes(settings: Settings) -> tuple[Replay, EnvSpec]:
    """Open the episodes of `settings.data.folder`, the newest that fit `settings.data.capacity`.

    Raises:
        PlanetError: there are none, or they show what no model here takes in.
    """
    folder = Path(settings.data.folder or "")
    if not folder.is_dir():
        raise PlanetError(f"--data {folder}: {episode_set.no_folder(folder)}")
    replay = Replay(folder, settings.data.capacity)
    if replay.env is None:
        raise PlanetError(f"--data {folder}: {episode_set.no_episode(folder)}")
    spec = EnvSpec.from_json(replay.env)
    shapes = [shape for shape, _ in spec.observation.values()]
    if not shapes or not all(len(shape) == 1 or _is_image(shape) for shape in shapes):
        observed = ", ".join(f"{key} {list(shape)}" for key, (shape, _) in spec.observation.items())
        raise PlanetError(
            f"--data {folder}: observes {observed or 'nothing'}; needs images [size, size, 3] of "
            f"size {SMALLEST} to {LARGEST}, or vectors [n]: collect it with such"
        )
    return replay, spec


def spec_of_episodes(settings: Settings) -> EnvSpec:
    """Return the environment of the episodes, with what is observed of it; see `open_episodes`."""
    return _selected(open_episodes(settings)[1], settings)


def _selected(spec: EnvSpec, settings: Settings) -> EnvSpec:
    env = settings.env
    return spec.select_observations(env.observe, env.drop, env.keys)


def _is_image(shape: tuple[int, ...]) -> bool:
    return (
        len(shape) == 3
        and shape[0] == shape[1]
        and SMALLEST <= shape[0] <= LARGEST
        and shape[2] == 3
    )


def adopt_environment(settings: Settings, overrides: Sequence[str]) -> tuple[Settings, str]:
    """Return the settings with the environment of the episodes in `settings.data.folder`.

    It replaces the preset's, and the line returned says so. What the user asked for by `key=value`
    `overrides` must agree.

    Raises:
        PlanetError: an override disagrees, no actor could learn from these, or see `open_episodes`.
    """
    replay, spec = open_episodes(settings)
    asked = config.flatten(settings)
    wanted = config.parse_overrides(overrides)
    if "env.drop" in wanted:  # refuses a name that was never there
        chosen(spec.id, [*spec.observation, *spec.drop], asked["env.drop"], ())
    drop = tuple(dict.fromkeys((*spec.drop, *asked["env.drop"])))
    keys = asked["env.keys"] or spec.keys
    # of images and vectors either may be left out, and any by name
    observe = asked["env.observe"] if "env.observe" in wanted else "both"
    spec = spec.select_observations(observe, drop, keys)
    sizes = [shape[0] for shape, _ in spec.observation.values() if len(shape) == 3]
    size = sizes[0] if sizes else settings.env.size
    vectors = len(spec.observation) > len(sizes)
    taken: dict[str, Any] = {
        "env.id": spec.id,
        "env.observe": "both" if sizes and vectors else "pixels" if sizes else "vectors",
        "env.size": size,
        "env.renderer": spec.renderer,
        "env.action_repeat": spec.action_repeat,
        "env.time_limit": spec.episode_steps,
        "env.kwargs": spec.kwargs,
    }
    for key in wanted.keys() & taken.keys():
        value = canonical_id(asked[key]) if key == "env.id" else asked[key]
        if value not in (taken[key], None, "auto"):
            raise PlanetError(
                f"{key} = {value}: the episodes in {replay.folder} have {taken[key]}; leave {key} "
                "out, or collect others"
            )
    observed = [f"{spec.renderer} {size}x{size} pixels"] * bool(sizes) + ["vectors"] * vectors
    line = (
        f"learning from {len(replay)} episodes, {replay.frames} frames, in {replay.folder}; the "
        f"environment is theirs: {spec.id}, {', '.join(observed)}, action repeat "
        f"{spec.action_repeat}"
    )
    if shortfall := episode_set.shortfall(replay):
        line += f"\n{shortfall}"
    settings = config.resolve(asked | taken | {"env.drop": drop, "env.keys": keys})
    check_objective(settings, spec)
    return settings, line
