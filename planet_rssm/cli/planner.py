"""The option --planner, which several verbs take."""

import click
from click.shell_completion import CompletionItem

from planet_rssm.config import PLANNERS


def _complete(ctx: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in PLANNERS if name.startswith(begun)]


planner = click.option(
    "--planner", metavar="NAME", shell_complete=_complete,
    help=f"{', '.join(PLANNERS)}, or module:Class; short for -s planner.name=…",
)  # fmt: skip
