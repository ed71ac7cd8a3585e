"""Searches that are too large for the memory are refused before anything is made."""

from typing import TYPE_CHECKING

import torch

from planet_rssm.base.device import require_memory, require_triton
from planet_rssm.base.errors import PlanetError

if TYPE_CHECKING:  # pydantic: not for those who import planners alone
    from planet_rssm.config import PlannerSettings

MOST_ENTRIES = 2**28  # of the candidates of a round over choices, for each environment: 1 GiB


def require_choices(settings: "PlannerSettings", action_size: int) -> None:
    """Refuse one-hot candidates that take more than `MOST_ENTRIES`, before any is made."""
    each = settings.particles * settings.horizon * action_size
    if settings.candidates * each > MOST_ENTRIES:
        size = f"horizon {settings.horizon} and {action_size} choices"
        raise PlanetError(
            f"planner.candidates = {settings.candidates}: with {size} a round takes "
            f"{settings.candidates * each / 2**28:.1f} GiB for each environment, at most 1; set "
            f"planner.candidates={MOST_ENTRIES // each} or less, or a shorter planner.horizon"
        )


def require_search(planner: "PlannerSettings", device: torch.device) -> None:
    """Refuse a search that `device` cannot do: its sequences do not fit, or it lacks a kernel.

    Raises:
        PlanetError: the sequences of one decision take more memory, or there is no Triton here.
    """
    if "candidates" not in planner.read:  # an actor searches for nothing
        return
    # the noise of all rounds is drawn at once
    numbers = planner.iterations * planner.candidates * planner.particles * planner.horizon
    what = (
        f"planner.candidates = {planner.candidates} of planner.horizon = {planner.horizon}, "
        f"planner.iterations = {planner.iterations}"
    )
    if planner.particles > 1:
        what += f", planner.particles = {planner.particles}"
    require_memory(device, 4 * numbers, what, "lower one of them")
    if planner.rollout == "triton":
        require_triton(device)
