"""Task ids, their action repeats, and the one place where `auto` becomes something concrete. Imports no simulator."""

import logging
import os
import sys

from planet_rssm.config import EnvSettings, nearest
from planet_rssm.envs import gl
from planet_rssm.errors import PlanetError

# dm_control.suite.ALL_TASKS as of 1.0.50 (a test compares), so that naming a task costs no simulator import.
_TASKS_OF = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
TASKS = tuple((domain, task) for domain, tasks in _TASKS_OF.items() for task in tasks)
ACTION_REPEAT = {"cartpole": 8, "reacher": 4, "cheetah": 4, "finger": 2, "ball_in_cup": 4, "walker": 2}
DEFAULT_ACTION_REPEAT = 2
_ALIASES = {"cup_catch": ("ball_in_cup", "catch")}

_log = logging.getLogger("planet_rssm")


def task_ids() -> list[str]:
    """Return every canonical task id, sorted."""
    return sorted(f"dmc/{domain}-{task}" for domain, task in TASKS)


def parse(task_id: str) -> tuple[str, str]:
    """Return (domain, task) of `dmc/walker-walk`, `walker-walk` or `dmc_walker_walk`.

    Raises:
        PlanetError: no such task; the line names the nearest one.
    """
    bare = task_id.removeprefix("dmc/").removeprefix("dmc_").removeprefix("dmc-")
    known = {_spelling(f"{domain}_{task}"): (domain, task) for domain, task in TASKS} | _ALIASES
    if _spelling(bare) in known:
        return known[_spelling(bare)]
    raise PlanetError(f"env.id = {task_id!r}: there is no such task{nearest(f'dmc/{bare}', task_ids())}")


def canonical_id(task_id: str) -> str:
    """Return the canonical spelling, `dmc/walker-walk`; raises as `parse` does."""
    return "dmc/{}-{}".format(*parse(task_id))


def action_repeat(task_id: str) -> int:
    """Return the control steps an agent step takes unless it is set: PlaNet's table, 2 for other domains."""
    return ACTION_REPEAT.get(parse(task_id)[0], DEFAULT_ACTION_REPEAT)


def resolve(settings: EnvSettings) -> EnvSettings:
    """Return the settings with a canonical id, an action repeat and a renderer that works on this machine.

    Raises:
        PlanetError: an unknown task, or a GL backend was asked for that does not render here.
    """
    return settings.model_copy(
        update={
            "id": canonical_id(settings.id),
            "action_repeat": settings.action_repeat or action_repeat(settings.id),
            "renderer": _resolve_renderer(settings.renderer),
        }
    )


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")


def _resolve_renderer(renderer: str) -> str:
    if renderer in ("raycast", "none"):
        return renderer
    if renderer == "auto":
        return _auto_renderer()
    probe = gl.probe(renderer)
    if not probe.ok:
        raise PlanetError(
            f"env.renderer = {renderer!r}: does not render on this machine ({probe.error}); "
            "install its library, or use env.renderer=raycast, which needs none"
        )
    return renderer


def _auto_renderer() -> str:
    """Return a backend that draws with a GPU, else "raycast": software GL takes ten times as long."""
    has_display = sys.platform != "linux" or bool(os.environ.get("DISPLAY"))
    backends = (("egl", "osmesa") if sys.platform == "linux" else ()) + (("glfw",) if has_display else ())
    probes = []
    for backend in backends:
        probes.append(gl.probe(backend))
        if probes[-1].hardware:
            return backend
    found = "; ".join(f"{probe.backend}: {probe.renderer or probe.error}" for probe in probes)
    slow = next((f"env.renderer={probe.backend}" for probe in probes if probe.ok), "planet doctor --install-gl")
    _log.warning(
        "env.renderer = auto: no hardware GL here (%s), so frames are ray cast; dm_control's own, slowly: %s",
        found,
        slow,
    )
    return "raycast"
