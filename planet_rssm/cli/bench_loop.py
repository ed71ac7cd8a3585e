"""`planet bench loop`."""

import json
import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete
from planet_rssm.cli import options as shared
from planet_rssm.cli.tables import echo


class _Size(click.ParamType):
    """WIDTHxHEIGHT in pixels."""

    name = "WxH"

    def convert(
        self,
        value: str | tuple[int, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        if not (sides := re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", value)):
            self.fail(
                f"{value!r}: give width and height in pixels, 640x480 for example", param, ctx
            )
        return int(sides[1]), int(sides[2])


@click.command("loop", short_help="A robot's control loop: frame to action, at a fixed rate.")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.option("--hz", type=float, help="Ticks a second.  [default: the rate of the training]")
@click.option("--seconds", default=60.0, show_default=True, help="How long.")
@click.option("--budget-ms", type=float, help="As many rounds of search as fit.  [default: all]")
@click.option(
    "--delay", default=0, show_default=True, help="Ticks from a frame to what was planned from it."
)
@click.option("--execute", default=1, show_default=True, help="Ticks acted out of each plan.")
@click.option(
    "--camera",
    default="640x480",
    show_default=True,
    type=_Size(),
    help="Size of the frames that come in.",
)
@shared.planner
@shared.settings(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@shared.checkpoint()
@shared.device()
@shared.allow_code
@shared.as_json()
def loop(
    run: Path,
    planner: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Act with RUN in real time and count the ticks that it missed; see docs/control.md.

    Frames of noise come in at the robot's rate and are resized; a thread beside the loop brings
    them to the device, filters them and plans. A tick is missed if its plan is not there by its end
    or, with --delay, by its beginning.

    \b
    For example
      planet bench loop runs/quickstart-cartpole-swingup-seed0 --hz 20 --budget-ms 40
      planet bench loop pretrained:cartpole-swingup --planner cem --hz 50 --delay 2 --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.bench.loop import bench_loop  # torch: not for `planet bench --help`

    wanted = shared.with_planner(overrides, planner)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loop", total=None)
        timing = bench_loop(run, overrides=wanted, on_tick=lambda: bar.advance(task), **options)
    result = timing.to_json()
    if as_json:
        click.echo(json.dumps(result))
    else:
        echo("\n".join(_lines(result)))


def _lines(result: Json) -> list[str]:
    planner = result["planner"]
    spread = ", ".join(f"{name} {value:.1f}" for name, value in result["latency_ms"].items())
    late = ", ".join(
        f"{count} {name}"
        for name, count in result["counts"].items()
        if name in ("tail", "fallback", "skipped")
    )
    candidates = planner["candidates"]
    mean = result["mean_rounds"]
    fewer = "" if mean == result["rounds"] else f" at first, {mean:g} on average"
    return [
        f"{result['task']}, {planner['name']} of {candidates[0]} candidates, "
        f"horizon {planner['horizon']}, {result['rounds']} of {len(candidates)} rounds{fewer}; "
        f"{result['device']}, {result['threads']} threads, {result['precision']}",
        f"{result['hz']:g} Hz, delay {result['delay']}, execute {result['execute']}: "
        f"{result['misses']} of {result['ticks']} ticks missed ({late}), "
        f"{result['dropped']} frames not taken in",
        f"from frame ({'x'.join(map(str, result['camera']))}) to plan, ms: {spread}",
    ]
