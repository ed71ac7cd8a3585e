"""What a control loop is asked for, checked before it begins."""

import logging
import math

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import is_dm_control
from planet_rssm.control.schedule import FALLBACKS
from planet_rssm.envs.spec import EnvSpec

_log = logging.getLogger("planet_rssm")


def trained_rate(spec: EnvSpec) -> float:
    """Return the rate of the agent steps that a model was trained with, in ticks a second.

    It warns of a rate that earlier versions read from an environment's frame rate.
    """
    rate = 1 / spec.control_interval
    if not spec.interval_from and not is_dm_control(spec.id):
        line = (
            "hz: %g is what render_fps said when this model was trained; give hz if the "
            "environment steps otherwise"
        )
        _log.warning(line, rate)
    return rate


def warn_of_other_rate(spec: EnvSpec, hz: float) -> None:
    """Warn if a loop's rate differs by more than 1 % from that of the training."""
    trained = 1 / spec.control_interval
    if abs(hz / trained - 1) > 0.01:
        line = "hz %g: the model was trained at %g Hz, steps of %g ms"
        _log.warning(line, hz, trained, 1000 / trained)


def check_options(
    horizon: int,
    *,
    hz: float,
    budget_ms: float | None,
    delay: int,
    execute: int,
    fallback: str,
) -> None:
    """Refuse options of a loop that are out of their range, with plans of `horizon` steps.

    Raises:
        PlanetError: one is.
    """
    if not 0 < hz < math.inf:
        raise PlanetError(f"hz {hz:g}: must be more than 0, in ticks a second; 20 for example")
    if delay < 0:
        raise PlanetError(f"delay {delay}: must be at least 0 ticks")
    if not 1 <= execute <= horizon:
        raise PlanetError(f"execute {execute}: must be 1 to planner.horizon = {horizon} ticks")
    if fallback not in FALLBACKS:
        raise PlanetError(f"fallback {fallback!r}: must be {' or '.join(FALLBACKS)}")
    longest = 1000 / hz * min(max(delay, 1), execute)
    if budget_ms is not None and not 0 < budget_ms <= longest:
        raise PlanetError(
            f"budget_ms {budget_ms:g}: must be more than 0 and at most {longest:g}, what a plan "
            f"has at {hz:g} Hz with delay {delay} and execute {execute}"
        )
