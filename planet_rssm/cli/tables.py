"""What a verb prints on standard output: its result as JSON, or as text and uncut tables.

Names in it may come from somebody else's files: none of them steers the terminal.
"""

import json
from collections.abc import Callable, Sequence

import click
from rich.console import Console
from rich.table import Column, Table

from planet_rssm.base.json_types import Json
from planet_rssm.base.text import escape_controls

WIDE = 1000  # columns where no terminal limits them: a file, a pipe, a log


def print_result(
    result: Json,
    as_json: bool,
    show: Callable[[Json, Console], None],
) -> None:
    """Print a verb's result as one JSON object, or call `show` with it and standard output."""
    if as_json:
        click.echo(json.dumps(result))
    else:
        show(result, output())


def output() -> Console:
    """Return standard output: as wide as the terminal, or as wide as its tables without one."""
    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=WIDE, emoji=False)


def print_table(
    console: Console, title: str, header: Sequence[str], body: Sequence[Sequence[str]]
) -> None:
    """Print a title and a table; where the terminal is too narrow, cells take more lines."""
    print_text(console, title)
    table = Table(*(Column(escape_controls(name), overflow="fold") for name in header))
    for row in body:
        table.add_row(*map(escape_controls, row))
    console.print(table, markup=False)


def print_text(console: Console, text: str) -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(escape_controls(text), soft_wrap=True, markup=False, highlight=False)


def echo(line: str, *, err: bool = False) -> None:
    """Print a line with names that a file gave, on standard error if `err`."""
    click.echo(escape_controls(line), err=err)
