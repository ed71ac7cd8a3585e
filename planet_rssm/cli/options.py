"""Options that several verbs share, each written once."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_writable
from planet_rssm.base.trust import allowed
from planet_rssm.cli import complete
from planet_rssm.config import LARGEST, PLANNERS, SMALLEST


class Number(click.FloatRange):
    """A finite number within a range; click takes NaN for one within any."""

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it is none, not finite, or out of the range.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


MANY = 1_000_000  # of anything: lists of that many still fit into memory


class _Count(click.IntRange):
    """A number of things; help and lines name its least, which is what users meet."""

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        number = int(super().convert(value, param, ctx))
        if number > MANY:
            self.fail(f"{number} is not in the range x<={MANY}.", param, ctx)
        return number


F = TypeVar("F", bound=Callable[..., Any])


def count(least: int = 1) -> click.IntRange:
    """Return the type of a number of things, from `least` to `MANY`."""
    return _Count(min=least)


def _allow(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        ctx.with_resource(allowed())  # until the verb ends


def _complete_planner(
    ctx: click.Context, option: click.Parameter, begun: str
) -> list[CompletionItem]:
    return [CompletionItem(name) for name in PLANNERS if name.startswith(begun)]


observe_taken = click.option(
    "--observe",
    type=click.Choice(["pixels", "vectors", "both"]),
    help="What to take [all there is].",
)
size_taken = click.option(
    "--size",
    default=64,
    show_default=True,
    type=click.IntRange(SMALLEST, LARGEST),
    help="Pixels a side.",
)
allow_code = click.option(
    "--allow-code",
    is_flag=True,
    expose_value=False,
    callback=_allow,
    help="Import what somebody else's run or data names as module:Class; look at it first.",
)
planner = click.option(
    "--planner",
    metavar="NAME",
    shell_complete=_complete_planner,
    help=f"{', '.join(PLANNERS)}, or module:Class; short for -s planner.name=…",
)


on = click.option(
    "--on",
    metavar="ray[:ADDRESS]",
    help="Play by Ray, on a cluster or this machine's cores; the same numbers.",
)


def as_json(what: str = "Print one JSON object on standard output.") -> Callable[[F], F]:
    """Return the option --json, passed on as `as_json`; `what` is its help."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def device(whose: str = "") -> Callable[[F], F]:
    """Return the option --device; `whose` begins its help."""
    return click.option(
        "--device", default="auto", show_default=True, help=f"{whose}auto, cpu or cuda."
    )


def checkpoint(
    what: str = "last, best or a number of env_steps (offline: updates).",
) -> Callable[[F], F]:
    """Return the option --checkpoint; `what` is its help."""
    return click.option("--checkpoint", default="last", show_default=True, help=what)


def settings(offer: complete.Completer, what: str) -> Callable[[F], F]:
    """Return the option -s, passed on as `overrides`.

    Args:
        offer: names the settings that a shell completes.
        what: its help.
    """
    return click.option(
        "-s", "overrides", multiple=True, metavar="KEY=VALUE", shell_complete=offer, help=what
    )


def check_output(option: str, path: Path) -> None:
    """Refuse a file that cannot be written before the work for it begins.

    Args:
        option: that named it.
        path: the file; what it has already is left as it is.

    Raises:
        PlanetError: its folder is not there or cannot be written, or something that is no file has
            its name.
    """
    if not path.parent.is_dir():
        raise PlanetError(
            f"{option} {path}: there is no folder {path.parent}; make it, or give another path"
        )
    try:
        check_writable(path)
    except OSError as error:
        raise PlanetError(
            f"{option} {path}: cannot be written ({error.strerror}); give another path"
        ) from None


def check_outputs(folder: Path, *names: str) -> None:
    """Make the folder of --out, and refuse it if a file of these names cannot be written there.

    Raises:
        PlanetError: it cannot be made, or see `check_output`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanetError(
            f"--out {folder}: no folder can be made there ({error.strerror}); give another path"
        ) from None
    for name in names:
        check_output("--out", folder / name)


def with_planner(overrides: Sequence[str], planner: str | None) -> list[str]:
    """Return the overrides of -s and --planner together; the latter wins."""
    return [*overrides, *([] if planner is None else [f"planner.name={planner}"])]
