"""Task ids, their action repeats, and the renderers that `auto` stands for.

This imports no simulator. An id is dm_control's, `dmc/walker-walk`; Gymnasium's, `gym/ID` or
`gym/module:ID`; or a user's class, `module:Class`.
"""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings, is_dm_control, nearest, spelling
from planet_rssm.envs import gl

# dm_control.suite.ALL_TASKS as of 1.0.50 (a test compares), so that naming a task costs no
# simulator import.
_TASKS_OF = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": (
        "balance",
        "balance_sparse",
        "swingup",
        "swingup_sparse",
        "two_poles",
        "three_poles",
    ),
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
ACTION_REPEAT = {
    "cartpole": 8,
    "reacher": 4,
    "cheetah": 4,
    "finger": 2,
    "ball_in_cup": 4,
    "walker": 2,
}
DEFAULT_ACTION_REPEAT = 2
GL_BACKENDS = gl.BACKENDS
# they begin the name of a dataset's environment that is not known
MINARI = "minari/"
IMPORTED = "imported/"

_log = logging.getLogger("planet_rssm")


def task_ids() -> list[str]:
    """Return every canonical task id, sorted."""
    return sorted(f"dmc/{domain}-{task}" for domain, task in TASKS)


def parse(task_id: str) -> tuple[str, str]:
    """Return (domain, task) of `dmc/walker-walk`, `walker-walk` or `dmc_walker_walk`.

    Raises:
        PlanetError: no such task; the line names the nearest one.
    """
    known = {spelling(f"{domain}_{task}"): (domain, task) for domain, task in TASKS}
    if spelling(task_id) in known:
        return known[spelling(task_id)]
    if re.fullmatch(r"[\w./-]+-v\d+", task_id):
        raise PlanetError(
            f"env.id = {task_id!r}: there is no such task; did you mean 'gym/{task_id}'?"
        )
    raise PlanetError(
        f"env.id = {task_id!r}: there is no such task"
        f"{nearest('dmc/' + task_id.removeprefix('dmc/'), task_ids())}"
    )


def gym_name(task_id: str) -> tuple[str, str]:
    """Return (module to import or "", registered id) of `gym/ID` or `gym/module:ID`."""
    module, _, name = task_id.removeprefix("gym/").rpartition(":")
    return module, name


def require_registered(task_id: str) -> None:
    """Check that gymnasium knows `gym/ID`, whose module has been imported if it names one.

    Raises:
        PlanetError: it does not; the line names the nearest id, or the package that brings it.
    """
    from gymnasium.envs.registration import registry

    module, name = gym_name(task_id)
    if name in registry:
        return
    if name.startswith((MINARI, IMPORTED)) and not module:
        kind = "a Minari dataset" if name.startswith(MINARI) else "imported episodes"
        raise PlanetError(
            f"env.id = {task_id!r}: stands for the environment of {kind}, which is not "
            "known, so no episode can be played in it; act from a loop of your own, with Agent.load"
        )
    start = "gym/" + (f"{module}:" if module else "")
    close = difflib.get_close_matches(name, registry, n=1, cutoff=0.6)
    space, slash, _ = name.partition("/")
    if close:
        advice = f"did you mean {start + close[0]!r}?"
    elif slash and not module:
        known = "; pip install ale-py, then gym/ale_py:" + name if space == "ALE" else ""
        advice = f"import the package that registers {space} with it, gym/MODULE:{name}{known}"
    else:
        advice = (
            "`planet envs` lists what there is; "
            "import the module that registers it with gym/MODULE:ID"
        )
    raise PlanetError(f"env.id = {task_id!r}: gymnasium has no environment of that id; {advice}")


def canonical_id(task_id: str) -> str:
    """Return the canonical spelling, `dmc/walker-walk`; Gymnasium's and classes stay as they are.

    Raises:
        PlanetError: no such task of dm_control, or an id of no known form. Whether there is another
            environment is not checked here.
    """
    return _scheme(task_id).canonical(task_id)


def action_repeat(task_id: str) -> int:
    """Return the control steps an agent step takes unless it is set.

    PlaNet's table and 2 for other domains of dm_control, 1 for all else.
    """
    return _scheme(task_id).action_repeat(task_id)


def worker_environment(settings: EnvSettings) -> dict[str, str | None]:
    """Return the variables of a worker for the environment of resolved settings; None: unset."""
    return _scheme(settings.id).variables(settings.renderer)


def is_resolved(settings: EnvSettings) -> bool:
    """Return whether these are settings as `resolve` returns them."""
    canonical = canonical_id(settings.id) == settings.id
    return canonical and settings.action_repeat is not None and settings.renderer != "auto"


def resolve(settings: EnvSettings) -> EnvSettings:
    """Return the settings with a canonical id, an action repeat and a renderer that works here.

    Raises:
        PlanetError: an unknown task, or a renderer was asked for that does not draw it or does not
            work here.
    """
    if settings.kwargs and is_dm_control(settings.id):
        name = next(iter(settings.kwargs))
        raise PlanetError(
            f"env.kwargs.{name}: {settings.id} is dm_control's, whose tasks take none here; "
            "leave it out, or make the task in a function of your own, env.id=module:function"
        )
    return settings.model_copy(
        update={
            "id": canonical_id(settings.id),
            "action_repeat": settings.action_repeat or action_repeat(settings.id),
            "renderer": _scheme(settings.id).renderer(settings),
        }
    )


def _dmc_id(task_id: str) -> str:
    return "dmc/{}-{}".format(*parse(task_id))


def _dmc_repeat(task_id: str) -> int:
    return ACTION_REPEAT.get(parse(task_id)[0], DEFAULT_ACTION_REPEAT)


def _dmc_renderer(settings: EnvSettings) -> str:
    if settings.renderer == "own":
        raise PlanetError(
            "env.renderer = 'own': dm_control has none of its own; "
            "use auto, raycast, egl, osmesa or glfw"
        )
    if settings.renderer == "auto":
        return "none" if settings.observe == "vectors" else _auto_renderer()
    if settings.renderer in ("raycast", "none"):
        return settings.renderer
    return _working_gl(settings.renderer, "env.renderer=raycast, which needs none")


def _dmc_variables(renderer: str) -> dict[str, str | None]:
    return {**gl.variables("disable" if renderer in ("raycast", "none") else renderer)}


def _gym_id(task_id: str) -> str:
    """Return the id if it has the form of one; whether it exists, only its module knows."""
    if re.fullmatch(r"gym/([A-Za-z_][\w.]*:)?[\w./-]+|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", task_id):
        return task_id
    raise PlanetError(
        f"env.id = {task_id!r}: must be dmc/DOMAIN-TASK, gym/ID, gym/module:ID or module:Class"
    )


def _gym_renderer(settings: EnvSettings) -> str:
    names_module = bool(gym_name(settings.id)[0])  # known only once the module is imported
    if settings.id.startswith("gym/") and not names_module:
        require_registered(settings.id)
    if settings.renderer == "raycast":
        raise PlanetError(
            "env.renderer = 'raycast': only dm_control's tasks are ray cast; use env.renderer=auto"
        )
    if settings.renderer == "auto":
        return "none" if settings.observe == "vectors" else "own"
    if settings.renderer in ("own", "none"):
        return settings.renderer
    return _working_gl(settings.renderer, "env.observe=vectors")


def _gym_variables(renderer: str) -> dict[str, str | None]:
    """Keep the user's MUJOCO_GL if it draws, unless the settings name another; open no window."""
    wanted = (renderer, os.environ.get("MUJOCO_GL"))
    backend = next((name for name in wanted if name in GL_BACKENDS), None)
    variables: dict[str, str | None] = {
        **gl.variables(backend or GL_BACKENDS[0]),  # where the libraries are, if it draws with GL
        "MUJOCO_GL": backend,
        "SDL_VIDEODRIVER": "dummy",
        "SDL_AUDIODRIVER": "dummy",
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    }
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):  # miniworld then draws by EGL
        variables["PYGLET_HEADLESS"] = os.environ.get("PYGLET_HEADLESS", "true")
    return variables


def _working_gl(backend: str, instead: str) -> str:
    probe = gl.probe(backend)
    if not probe.ok:
        raise PlanetError(
            f"env.renderer = {backend!r}: does not render on this machine ({probe.error}); "
            f"`planet doctor` says how to fix that; or use {instead}"
        )
    return backend


def _auto_renderer() -> str:
    """Return a backend that draws with a GPU, else "raycast", ten times as fast as software GL."""
    has_display = sys.platform != "linux" or bool(os.environ.get("DISPLAY"))
    backends = ["egl", "osmesa"] if sys.platform == "linux" else []
    backends += ["glfw"] if has_display else []
    probes = []
    for backend in backends:
        probes.append(gl.probe(backend))
        if probes[-1].hardware:
            return backend
    tried = "; ".join(f"{probe.backend}: {probe.renderer or probe.error}" for probe in probes)
    slow = next(
        (f"env.renderer={probe.backend}" for probe in probes if probe.ok),
        "planet doctor --install-gl",
    )
    _log.warning(
        "env.renderer = auto: no hardware GL here (%s), so frames are ray cast; "
        "dm_control's own, slowly: %s",
        tried,
        slow,
    )
    return "raycast"


@dataclass(frozen=True)
class _Scheme:
    """What an id decides; all of it without importing what it names."""

    canonical: Callable[[str], str]
    action_repeat: Callable[[str], int]
    renderer: Callable[[EnvSettings], str]
    variables: Callable[[str], dict[str, str | None]]  # of a worker, by renderer


_DMC = _Scheme(_dmc_id, _dmc_repeat, _dmc_renderer, _dmc_variables)
_GYM = _Scheme(_gym_id, lambda task_id: 1, _gym_renderer, _gym_variables)


def _scheme(task_id: str) -> _Scheme:
    return _DMC if is_dm_control(task_id) else _GYM
