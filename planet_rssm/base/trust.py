"""Whose word it is that code is run: settings can name any class, and a run may be somebody else's.

What a user names in a command of his own, or passes to the library, is imported. What a run, a
checkpoint or a set of episodes names is imported only if the same user has named it before, on this
machine and from the same file, or if he says so now: `--allow-code`, `Agent.load(...,
allow_code=True)`.
"""

import contextlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.base.plugins import FORM, importing_from_here

# in the folder where the user's programs keep their state; a line of JSON each
FILE = "planet_rssm/code"
_GYM = re.compile(
    r"gym/([A-Za-z_][\w.]*):.+"
)  # importing the module is what registers the environment
_log = logging.getLogger("planet_rssm")
_allowed: ContextVar[bool] = ContextVar("allowed", default=False)
_here: set[tuple[str, str]] = set()  # what was named in this process: the file may be read-only


def code_in(values: Mapping[str, object]) -> dict[str, str]:
    """Return the code outside the package that settings name, by dotted key.

    It is `module:Class` or `gym/module:ID`. A setting that lists several has a key for each,
    `model.terms[0]`.
    """
    named: dict[str, str] = {}
    for key, value in values.items():
        listed = {key: value}
        if isinstance(value, list | tuple):
            listed = {f"{key}[{place}]": name for place, name in enumerate(value)}
        named |= {
            place: name
            for place, name in listed.items()
            if isinstance(name, str) and (FORM.fullmatch(name) or _GYM.fullmatch(name))
        }
    return named


def own(values: Mapping[str, object]) -> None:
    """Remember the code in these settings, which the user has named.

    Where the file cannot be written a line says so.
    """
    new = _pairs(values) - _here - _kept()
    _here.update(new)
    if not new:
        return
    lines = "".join(json.dumps(pair) + "\n" for pair in sorted(new))
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(path, how, 0o600), "wb") as file:
            file.write(lines.encode())
    except (OSError, RuntimeError) as error:
        _log.info(
            "code of your own is not remembered (%s): later commands on this run need --allow-code",
            error,
        )


def require(values: Mapping[str, object], whose: str) -> None:
    """Let settings that `whose` brought import what they name, or refuse.

    Raises:
        PlanetError: they name code that the user has neither named himself nor allowed.
    """
    unknown = {
        key: name
        for key, name in code_in(values).items()
        if (name, _origin(name)) not in _here | _kept()
    }
    if not unknown:
        return
    code = ", ".join(
        f"{key} = {name!r} ({_origin(name) or f'not here: bring {_file_of(name)}'})"
        for key, name in unknown.items()
    )
    if not _allowed.get():
        raise PlanetError(
            f"{whose}: would import and run code that you have not named yourself, {code}; look at "
            "it, then add --allow-code (in Python allow_code=True), or leave the run alone"
        )
    _log.warning("%s: runs code that it names, as allowed: %s", whose, code)


@contextlib.contextmanager
def allowed(code: bool = True) -> Iterator[None]:
    """Allow all code that is named inside, if `code`."""
    token = _allowed.set(code or _allowed.get())
    try:
        yield
    finally:
        _allowed.reset(token)


def _pairs(values: Mapping[str, object]) -> set[tuple[str, str]]:
    return {(name, _origin(name)) for name in code_in(values).values()}


def _origin(name: str) -> str:
    """Return the file or folder of a name's package, not imported; "" if there is none."""
    package = name.removeprefix("gym/").partition(":")[0].partition(".")[0]
    try:
        with importing_from_here():
            spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return ""
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    return next((os.path.realpath(place) for place in places if place), "")


def _file_of(name: str) -> str:
    """Return in which file or folder code of this name would be."""
    package, *inside = name.removeprefix("gym/").partition(":")[0].split(".")
    return f"the package {package}" if inside else f"{package}.py"


def _kept() -> set[tuple[str, str]]:
    """Return what was remembered; where the file is missing or damaged, we ask again."""
    known = set()
    with contextlib.suppress(OSError, RuntimeError):
        for line in read_regular(_path()).splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, origin = json.loads(line)
                known.add((str(name), str(origin)))
    return known


def _path() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / FILE
