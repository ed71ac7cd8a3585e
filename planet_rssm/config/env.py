"""Settings of the environment and of the recorded episodes."""

from typing import Annotated, Literal

from pydantic import Field

from planet_rssm.config.values import Arguments, Count, Integer, Names, Positive, Section

SMALLEST, LARGEST = 16, 512  # pixels a side of an image
FirstAction = Literal["zeros", "kept"]


class EnvSettings(Section):
    """The environment, and what is observed of it."""

    id: str = "dmc/cheetah-run"
    observe: Literal["pixels", "vectors", "both"] = "pixels"
    size: Annotated[Integer, Field(ge=SMALLEST, le=LARGEST)] = 64  # pixels a side
    renderer: Literal["auto", "egl", "osmesa", "glfw", "raycast", "own", "none"] = "auto"
    # control steps until an episode is truncated; None: the environment's own limit
    time_limit: Count | None = None
    action_repeat: Count | None = None  # None: the domain's own, see envs.registry
    # seconds before a silent worker is replaced; to start it has twice that, at least 30
    step_timeout: Positive = 60.0
    drop: Names = ()  # observations that are left out, by name: a,b or [a, b]
    keys: Names = ()  # all that are observed, by name; (): every one
    kwargs: Arguments = {}  # of what makes the environment, each written as env.kwargs.NAME


class DataSettings(Section):
    """The replay."""

    capacity: Count = 1_000_000  # frames; the oldest episodes leave first
    # the action before a chunk's first frame: forgotten, or kept (PlaNet's code)
    first_action: FirstAction = "zeros"
    # offline: learn from the episodes in this folder alone; None: collect
    folder: Annotated[str, Field(min_length=1)] | None = None


def same_task(one: str, other: str) -> bool:
    """Return whether two `env.id`s are one of dm_control's tasks, in any of its spellings."""
    return one == other or (
        is_dm_control(one) and is_dm_control(other) and spelling(one) == spelling(other)
    )


def spelling(task_id: str) -> str:
    """Return what all spellings of a task of dm_control have in common, `walker_walk`."""
    bare = task_id.removeprefix("dmc/").removeprefix("dmc_").removeprefix("dmc-")
    bare = bare.lower().replace("-", "_")
    return "ball_in_cup_catch" if bare == "cup_catch" else bare


def is_dm_control(task_id: str) -> bool:
    """Return whether an `env.id` has the form of dm_control's, not `gym/…` or `module:Class`."""
    return not task_id.startswith("gym/") and ":" not in task_id
