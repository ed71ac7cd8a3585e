"""What the verbs of `planet bench` that time something have in common."""

import json
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from planet_rssm.cli import complete
from planet_rssm.cli.options import allow_code
from planet_rssm.cli.tables import results

F = Callable[..., Any]
_OPTIONS = (
    click.option("--precision", "precisions", multiple=True,
                 type=click.Choice(("float32", "bfloat16", "float16")),
                 help="A case each; repeatable.  [default: float32, and bfloat16 unless it is slow here]"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    allow_code,
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output."),
)  # fmt: skip


def timing_options(repeats: int, what: str) -> Callable[[F], F]:
    """Return a decorator that gives a verb --precision, --device, --json and --repeats, so many `what` unless asked."""
    count = click.option(
        "--repeats", default=repeats, show_default=True, type=click.IntRange(min=1), help=what
    )

    def decorate(verb: F) -> F:
        for option in reversed((_OPTIONS[0], count, *_OPTIONS[1:])):
            verb = option(verb)
        return verb

    return decorate


def preset_options(repeats: int, what: str) -> Callable[[F], F]:
    """Return a decorator that gives a verb PRESETs, -s and what `timing_options` gives."""
    decorators = (
        click.argument("presets", shell_complete=complete.preset, nargs=-1, metavar="[PRESET]..."),
        complete.setting_option(complete.any_setting, "Change a setting of each; repeatable."),
        timing_options(repeats, what),
    )

    def decorate(verb: F) -> F:
        for decorator in reversed(decorators):
            verb = decorator(verb)
        return verb

    return decorate


def measure(bench: F, show: Callable[[dict[str, Any], Console], None], as_json: bool) -> None:
    """Call `bench` with a `say` that shows what is measured, and print what it found: one JSON object, or by `show`."""
    with Console(stderr=True).status("getting ready") as status:
        result = bench(say=status.update)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show(result, results())


def machine_line(machine: dict[str, Any]) -> str:
    """Return the machine of a bench's JSON in a line."""
    rates = ", ".join(f"{rate:g} in {name}" for name, rate in machine["gemm_gflops"].items())
    auto = f"precision auto is {machine['auto_precision']}"
    return f"{machine['device']}, {machine['threads']} threads; matrix products, GFLOP/s: {rates}; {auto}"
