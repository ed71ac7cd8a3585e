"""The way into training, for runs that collect and for those that learn from given episodes."""

import contextlib
from collections.abc import Iterator

from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.offline import OfflineTrainer
from planet_rssm.training.team import Team
from planet_rssm.training.trainer import Trainer


@contextlib.contextmanager
def open_trainer(
    run: Run, display: Display, team: Team | None = None, collect_on: str | None = None
) -> Iterator[Trainer | OfflineTrainer]:
    """Open the trainer that a run's settings ask for; see `Trainer.open`, `OfflineTrainer.open`.

    Its updates are made together with the processes of a `team`, if there is one. Episodes are
    collected on the cluster that `collect_on` names, `ray` or `ray:ADDRESS`; None: here.

    Raises:
        PlanetError: as those do, or see `LearningRun.learn_with`.
    """
    opened: contextlib.AbstractContextManager[Trainer | OfflineTrainer]
    if run.settings.data.folder is None:
        opened = Trainer.open(run, display, collect_on)
    else:
        opened = OfflineTrainer.open(run, display)
    with opened as trainer:
        trainer.learning.learn_with(team)
        yield trainer


def train(
    run: Run, display: Display, team: Team | None = None, collect_on: str | None = None
) -> None:
    """Train a run to the end of its budget; the arguments are those of `open_trainer`.

    Raises:
        Interrupted: a signal asked to stop; what was learned is committed.
        PlanetError: see `open_trainer`, and `run` of both trainers.
    """
    with open_trainer(run, display, team, collect_on) as trainer:
        trainer.run()
