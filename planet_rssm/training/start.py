"""The way into training, for runs that collect and for those that learn from given episodes."""

from contextlib import AbstractContextManager

from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.offline import OfflineTrainer
from planet_rssm.training.trainer import Trainer


def open_trainer(run: Run, display: Display) -> AbstractContextManager[Trainer | OfflineTrainer]:
    """Open the trainer that a run's settings ask for; see `Trainer.open`, `OfflineTrainer.open`.

    Raises:
        PlanetError: as those do.
    """
    if run.settings.data.folder is None:
        return Trainer.open(run, display)
    return OfflineTrainer.open(run, display)


def train(run: Run, display: Display) -> None:
    """Train a run to the end of its budget.

    Raises:
        Interrupted: a signal asked to stop; what was learned is committed.
        PlanetError: see `open_trainer`, and `run` of both trainers.
    """
    with open_trainer(run, display) as trainer:
        trainer.run()
