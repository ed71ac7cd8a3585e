"""Tables on standard output, of which nothing is cut."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

WIDE = 1000  # columns where no terminal limits them: a file, a pipe, a log


def results() -> Console:
    """Return standard output: as wide as the terminal, or as wide as it takes where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def show(
    console: Console, title: str, header: Sequence[str], body: Sequence[Sequence[str]]
) -> None:
    """Print a title and a table; where the terminal is too narrow, cells take more lines."""
    say(console, title)
    table = Table(*(Column(name, overflow="fold") for name in header))
    for row in body:
        table.add_row(*row)
    console.print(table, markup=False)


def say(console: Console, text: str) -> None:
    """Print text as it is, in lines as long as they are."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)
