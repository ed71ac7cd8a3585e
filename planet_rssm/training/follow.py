"""A process that learns together with the run: `planet train` where torchrun says it is not first.

It has no run folder and says nothing. What it needs comes from the leader; see team.py.
"""

import logging
import signal

from planet_rssm import config
from planet_rssm.agent import parts_of
from planet_rssm.base.device import resolve_device
from planet_rssm.base.trust import own
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.training.captured import Staged
from planet_rssm.training.learner import Learner
from planet_rssm.training.team import Team


def follow() -> None:
    """Take the leader's steps until it ends.

    Raises:
        PlanetError: it ended without a word, or another process did.
    """
    logging.disable(logging.WARNING)  # the leader says the same
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with Team.joined() as team:
        # torchrun signals every process: the leader commits first, and needs this one for that
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        take_steps(team)


def take_steps(team: Team) -> None:
    """Take the steps of the leader's learner, until it announces their end."""
    learner = _like_the_leaders(team)
    while (index := team.next()) is not None:
        learner.update(Staged(()), index)


def _like_the_leaders(team: Team) -> Learner:
    checkpoint = checkpoints.from_bytes(team.share(), "the checkpoint of the first process")
    settings = checkpoint.settings
    own(config.imported(settings))  # by the same command the user has named it here too
    # of several GPUs this process has its own, which is the current one, see Team.joined
    cuda = settings.device.startswith("cuda")
    device = resolve_device("cuda" if cuda else settings.device)
    model, behavior = parts_of(checkpoint, device)
    learner = Learner(model, settings, device, behavior)
    learner.load_optimizer_tensors(checkpoint.optimizer)
    learner.join(team)
    return learner
