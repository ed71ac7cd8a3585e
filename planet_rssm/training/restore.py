"""How a run begins, or continues from its newest checkpoint."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import remove_stale
from planet_rssm.behavior import untrained_behavior
from planet_rssm.config import Settings
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint, DamagedCheckpointError
from planet_rssm.runs.run import CONFIG, Run, decided_otherwise
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner, check_state
from planet_rssm.training.progress import Progress, episodes_after, round_begun
from planet_rssm.world_model import untrained_model


class Place(NamedTuple):
    """What distinguishes a folder from all others, whatever its name: device and inode."""

    device: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> "Place | None":
        """Return the place of `folder`, None where there is none."""
        try:
            status = os.stat(folder)
        except OSError:
            return None
        return cls(status.st_dev, status.st_ino)


@contextlib.contextmanager
def locked(run: Run) -> Iterator[Place | None]:
    """Keep other processes out of the run folder, and turn a disk that fails into one clear line.

    Raises:
        PlanetError: another process trains or began a run in it, or the disk failed inside.
    """
    try:
        with run.lock():
            run.check_still_own()
            yield Place.of(run.folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlanetError(
            f"run folder {run.folder}: {reason}; fix that, then go on with --resume"
        ) from error


class Restored(NamedTuple):
    """A run as it was committed."""

    learner: Learner
    progress: Progress
    collecting: dict[str, Tensor]  # see LearningRun


def restore(run: Run, spec: EnvSpec, device: torch.device, display: Display) -> Restored:
    """Return a learner for `spec` and what the run has counted, from its newest checkpoint if any.

    Raises:
        PlanetError: checkpoints that cannot be read, or settings or an environment other than those
            learned with.
    """
    checkpoint = _newest(run, display)
    if checkpoint is None:
        _begin(run, display)
    else:
        _check_settings(run, checkpoint)
    for folder in (run.folder, run.folder / location.FOLDER):
        remove_stale(folder)
    model = untrained_model(run.settings, spec).to(device)
    behavior = untrained_behavior(run.settings, model)
    if checkpoint is None:
        return Restored(Learner(model, run.settings, device, behavior), Progress(), {})
    _check_environment(checkpoint.spec, spec)
    checkpoints.fill(model, checkpoint.model, f"{checkpoint.name}: model")
    if behavior is not None:
        checkpoints.fill(behavior, checkpoint.behavior, f"{checkpoint.name}: behavior")
    progress = Progress.read(checkpoint)
    learner = Learner(model, run.settings, device, behavior)
    check_state(learner.parameters(), checkpoint)
    learner.load_optimizer_tensors(checkpoint.optimizer)
    return Restored(learner, progress, checkpoint.collecting)


def open_replay(run: Run, progress: Progress, display: Display) -> Replay:
    """Open the run's episodes, without those that were not committed.

    Raises:
        PlanetError: see `_check_counts` and `_report_lost`.
    """
    _check_counts(run, progress)
    replay = Replay(run.folder / EPISODES, run.settings.data.capacity)
    _report_lost(run.settings, replay, progress, display)
    replay.truncate(progress.episodes)
    return replay


def _check_counts(run: Run, progress: Progress) -> None:
    """Refuse counts that this loop never comes to: from them it might go on for ever.

    Raises:
        PlanetError: the checkpoint has such.
    """
    updates = run.settings.train.updates
    ahead = (-1,) if run.settings.train.staleness else ()
    begun = [episodes_after(run.settings, progress.rounds - before) for before in (1, 0, *ahead)]
    of_round = progress.updates - progress.rounds * updates
    if progress.episodes in begun and 0 <= of_round <= updates:
        return
    raise PlanetError(
        f"run folder {run.folder}: its checkpoint counts {progress.episodes} episodes and "
        f"{progress.updates} updates in {progress.rounds} rounds, which these settings never come "
        "to; go on from another copy of it"
    )


def _report_lost(settings: Settings, replay: Replay, progress: Progress, display: Display) -> None:
    """Report episodes that the checkpoint had learned from and that are gone.

    Raises:
        PlanetError: there is none left in the middle of a round's updates.
    """
    there = {entry.index for entry in replay.episodes if entry.index < progress.episodes}
    frames = progress.agent_steps + progress.episodes
    all_fit = frames <= settings.data.capacity
    oldest = 0 if all_fit or not there else min(there)  # older ones were let go
    lost = progress.episodes - oldest - len(there) - progress.damaged
    if lost <= 0:
        return
    line = f"{replay.folder}: {lost} of the run's {progress.episodes} episodes are gone"
    if not there and round_begun(settings, progress):
        raise PlanetError(
            f"{line}, and a round's updates are still to be made from them; bring them back"
        )
    display.say(
        f"{line}; it goes on from its checkpoint and the {len(there)} that are left, and learns "
        "otherwise than it would have"
    )


def _newest(run: Run, display: Display) -> Checkpoint | None:
    """Load the newest checkpoint that is intact.

    A damaged one is reported and set aside, and the one before it is loaded.
    """
    for path in reversed(location.numbered(run.folder)):
        try:
            # trusted: its settings must be those that the run was opened with
            return checkpoints.load(path, trusted=True)
        except DamagedCheckpointError as error:
            if path == location.numbered(run.folder)[0]:
                raise PlanetError(
                    f"checkpoint {path}: damaged or not a checkpoint, and there is none before it "
                    "to go on from; bring it back from a copy, or learn from the run's episodes "
                    f"anew: --offline --data {run.folder / EPISODES} --run-dir ANOTHER"
                ) from error
            aside = path.with_name(f"{path.name}.damaged")
            display.say(
                f"checkpoint {path}: damaged; set aside as {aside.name}, going back to the one "
                "before"
            )
            path.rename(aside)
    return None


def _begin(run: Run, display: Display) -> None:
    """Let a run without a checkpoint begin, unless it had one: its episodes would be deleted."""
    folder, episodes = run.folder / location.FOLDER, run.folder / EPISODES
    if run.was_committed():
        raise PlanetError(
            f"{folder}: holds no checkpoint to go on from, though the run had written some; "
            "nothing was changed: bring them back, or learn from its episodes anew: "
            f"--offline --data {episodes} --run-dir ANOTHER"
        )
    if any(episodes.glob("*.safetensors")):
        display.say(
            f"run folder {run.folder}: it was stopped before its first commit; its first round is "
            "done again"
        )
    folder.mkdir(exist_ok=True)


def _check_settings(run: Run, checkpoint: Checkpoint) -> None:
    if key := decided_otherwise(checkpoint.settings, run.settings):
        before = config.flatten(checkpoint.settings)[key]
        now = config.flatten(run.settings)[key]
        raise PlanetError(
            f"{run.folder / CONFIG}: {key} is {now}, the run has learned with {before}; write that "
            "back into it"
        )


def _check_environment(learned: EnvSpec, now: EnvSpec) -> None:
    here = asdict(now)
    for key, value in asdict(learned).items():
        if here[key] != value:
            raise PlanetError(
                f"environment: {key} is {here[key]} here, the run has learned from {value}; go on "
                "where it is the same, or train another run"
            )
