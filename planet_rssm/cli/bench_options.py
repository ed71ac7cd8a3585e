"""What the verbs of `planet bench` that time something have in common."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.tables import print_result

if TYPE_CHECKING:
    from planet_rssm.bench.turns import Asked, BenchResult

F = Callable[..., Any]
_precisions = click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="A case each; repeatable.  [default: float32, and bfloat16 unless it is slow here]",
)
against_option = click.option(
    "--against",
    metavar="COMMIT|FOLDER",
    help="Run another checkout of this project too, in turns with this one, and compare.",
)


def timing_options(repeats: int, what: str) -> Callable[[F], F]:
    """Return a decorator that gives a verb --precision, --repeats, --device and --json.

    Args:
        repeats: the default of --repeats.
        what: its help.
    """
    count = click.option(
        "--repeats", default=repeats, show_default=True, type=options.count(), help=what
    )

    return _together(_precisions, count, options.device(), options.allow_code, options.as_json())


def preset_options(repeats: int, what: str) -> Callable[[F], F]:
    """Return a decorator that gives a verb PRESETs, -s and what `timing_options` gives."""
    return _together(
        click.argument("presets", shell_complete=complete.preset, nargs=-1, metavar="[PRESET]..."),
        options.settings(complete.any_setting, "Change a setting of each; repeatable."),
        timing_options(repeats, what),
    )


def _together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for all of `decorators`, in the order of the help."""

    def decorate(verb: F) -> F:
        for decorator in reversed(decorators):
            verb = decorator(verb)
        return verb

    return decorate


def measure(
    bench: "Callable[[Asked], BenchResult[Any]]",
    presets: Sequence[str],
    options: Json,
    show: Callable[[Json, Console], None],
    as_json: bool,
) -> None:
    """Call `bench` with what `preset_options` gave, and print its result.

    `presets` are measured if none is named. Meanwhile a line says what is being measured.
    """
    from planet_rssm.bench.turns import Asked  # torch: not for `planet bench --help`

    with Console(stderr=True).status("getting ready") as status:
        chosen = options["presets"] or presets
        result = bench(Asked(**{**options, "presets": chosen, "say": status.update}))
    print_result(result.to_json(), as_json, show)


def narrow_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table that spends little on its columns: nine of them fit in 80 characters."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(escape(head))
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def machine_line(machine: Json) -> str:
    """Return the machine of a bench's JSON in a line."""
    rates = ", ".join(f"{rate:g} in {name}" for name, rate in machine["gemm_gflops"].items())
    auto = f"precision auto is {machine['auto_precision']}"
    where = f"{machine['device']}, {machine['threads']} threads"
    return f"{where}; matrix products, GFLOP/s: {rates}; {auto}"
