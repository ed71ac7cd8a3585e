"""`planet watch`."""

import json
import time

import click
from rich.console import Console, RenderableType
from rich.live import Live

from planet_rssm.cli import complete, options


@click.command("watch")
@click.argument("run", shell_complete=complete.run)
@click.option(
    "--every",
    default=2.0,
    show_default=True,
    type=options.Number(0.2, 3600),
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once; so it does too without a terminal.")
@options.as_json("Print one JSON object of what is there now, and end.")
def verb(*, run: str, every: float, once: bool, as_json: bool) -> None:
    """Watch RUN train: curves, stage, rates, time left, the last frame. Ctrl-C ends watching.

    It reads the run's files and writes nothing, so it may train in another process or, over ssh, on
    another machine.

    \b
    For example
      planet watch runs/quickstart-cartpole-swingup-seed0
      ssh -t there planet watch runs/walker
      planet watch runs/walker --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.report.watching import Watched, screen  # safetensors: not for --help

    watched = Watched.open(run)
    watched.read()
    if as_json:
        click.echo(json.dumps(watched.to_json()))
        return
    console = Console(emoji=False)
    if once or not console.is_terminal:
        console.print(screen(watched, console.width, None, colours=bool(console.color_system)))
        return

    def picture() -> RenderableType:
        width, height = console.size
        return screen(watched, width, height, colours=bool(console.color_system))

    try:
        with Live(picture(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                watched.read()
                live.update(picture(), refresh=True)
    except KeyboardInterrupt:
        console.print(picture())
