"""A user's own class by its name, `module:Class`: how settings reach code outside this package."""

import contextlib
import functools
import importlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

from planet_rssm.base.errors import PlanetError

T = TypeVar("T")
FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def build(
    key: str,
    name: str,
    base: type[T],
    *args: Any,  # noqa: ANN401 (what the class takes)
    **options: Any,  # noqa: ANN401
) -> T:
    """Import `module:Class` and return Class(*args, **options).

    Modules in the folder that the command runs in can be imported too.

    Args:
        key: the setting that names it, for error lines.
        name: of the form `module:Class`.
        base: what it must be a subclass of.
        args: for the class.
        options: for the class too.

    Raises:
        PlanetError: there is no such module or class, it is no `base`, or importing or making it
            fails.
    """
    kind = find(key, name)
    with naming_errors(key, name):
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise TypeError(f"must be a subclass of {base.__module__}.{base.__qualname__}")
        if missing := getattr(kind, "__abstractmethods__", None):
            raise TypeError(f"lacks {', '.join(sorted(missing))}()")
        return kind(*args, **options)


def find(key: str, name: str) -> Any:  # noqa: ANN401 (whatever is there)
    """Import and return `module:NAME`; see `build` for where it may be and what is raised."""
    module, _, inside = name.partition(":")
    with naming_errors(key, name), importing_from_here():
        return functools.reduce(getattr, inside.split("."), importlib.import_module(module))


@contextlib.contextmanager
def naming_errors(key: str, name: str) -> Iterator[None]:
    """Turn any error in a user's class into a line that names the class; --debug has the cause."""
    try:
        yield
    except PlanetError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        fix = without_suffix(name) or "fix it"
        raise PlanetError(
            f"{key} = {name!r}: does not work ({type(error).__name__}: {reason}); {fix}"
        ) from error


def without_suffix(name: str) -> str:
    """Return what to write where `name` is that of a file, `mine.py:Class`; "" where it is not."""
    module, _, inside = name.partition(":")
    bare = module.removesuffix(".py")
    return "" if bare == module else f"write {bare}:{inside}, the module without .py"


@contextlib.contextmanager
def importing_from_here() -> Iterator[None]:
    """Let `import` look in the working folder too, as `python -m` does."""
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)
