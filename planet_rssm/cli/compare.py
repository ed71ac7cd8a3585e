"""`planet compare`."""

import json
import math
import sys
from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.eval import EPISODES, seeds_of
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import output, print_table, print_text

NOTHING = "–"
HEADER = ("decides by", "ms", "searches", "measured p50", "p95", "mean return", "95 %", "by t")


@click.command("compare")
@click.argument("runs", shell_complete=complete.run, nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--ms",
    default="1,5,20,100",
    show_default=True,
    metavar="LIST",
    help="Milliseconds of one decision.",
)
@click.option(
    "--episodes",
    type=options.count(),
    help=f"Of each way and time, from fixed reset seeds [{EPISODES}].",
)
@click.option("--episode-seeds", metavar="LIST", help="Those reset seeds, as 1000-1009 or 3,5,8.")
@options.checkpoint()
@options.settings(
    complete.acting_setting, "Change planner.… of the ways that read it, or rssm.plan_by."
)
@options.device()
@options.on
@click.option("--fresh", is_flag=True, help="Measure and play again what was kept in RUN/eval.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for compare.json and compare.png."
)
@options.allow_code
@options.as_json()
def verb(
    *,
    runs: tuple[str, ...],
    ms: str,
    episodes: int | None,
    episode_seeds: str | None,
    checkpoint: str,
    overrides: tuple[str, ...],
    device: str,
    on: str | None,
    fresh: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say which way to decide returns the most in the same time, for each of RUNs.

    The learned actor, CEM, iCEM, MPPI and CEM with the actor's proposals and the critic's value:
    each searches as much as fits into the time of one decision on this machine. That is measured
    first, and wants the machine for itself; what was chosen is fixed before the episodes are
    played. Times and episodes are kept in RUN/eval.

    \b
    For example
      planet compare runs/quickstart-*-seed* --out compared
      planet compare pretrained:cartpole-swingup --ms 2,10,50 --episodes 5 --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.evaluation.compare import compare  # torch: not for `planet compare --help`
    from planet_rssm.report.curves import require_matplotlib

    budgets = budgets_of(ms)
    seeds = seeds_of(episodes, episode_seeds)
    if out is not None:
        require_matplotlib(f"--out {out}: compare.png")  # now, not after minutes of measuring
        options.check_outputs(out, "compare.json", "compare.png")
    with StageProgress("load", len(seeds) * len(runs)) as progress:
        result = compare(
            runs,
            budgets,
            seeds,
            checkpoint=checkpoint,
            overrides=overrides,
            device=device,
            fresh=fresh,
            on=on,
            on_stage=progress.stage,
            on_progress=progress.at,
        ).to_json()
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, output())
    if out is not None and result["groups"]:
        keep(result, out)
        if not as_json:
            print_text(output(), f"written: {out}")
    if result["errors"]:
        sys.exit(1)


def budgets_of(listed: str) -> list[float]:
    """Return the milliseconds of a list as 1,5,20, in rising order.

    Raises:
        PlanetError: one is no number above 0.
    """
    budgets = set()
    for part in listed.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise PlanetError(
                f"--ms {listed}: {part!r} is no number of milliseconds above 0; write 1,5,20,100"
            )
        budgets.add(value)
    return sorted(budgets)


def keep(result: Json, out: Path) -> None:
    """Write compare.json and compare.png into the folder `out`."""
    from planet_rssm.base.files import write_atomic
    from planet_rssm.report.compare_figure import plot_compared

    write_atomic(out / "compare.json", [json.dumps(result, indent=1).encode()])
    plot_compared(result, out / "compare.png")


def _print(result: Json, console: Console) -> None:
    from planet_rssm.base.stopwatch import shares

    for group in result["groups"]:
        title = ", ".join(filter(None, (group["task"], group["observation"], group["group"])))
        if result["checkpoint"] == "best":
            title += ", best checkpoint (selected on test episodes)"
        print_table(console, title, HEADER, [_row(cell) for cell in group["cells"]])
        for reason in dict.fromkeys(group["left_out"].values()):
            ways = [way for way, why in group["left_out"].items() if why == reason]
            print_text(console, f"{' and '.join(ways)} left out: {reason}")
    if not result["groups"]:
        return
    print_text(
        console,
        f"{len(result['seeds'])} episodes of each run; times of one decision on "
        f"{result['processor']}, {result['device']}, threads: {result['threads']}",
    )
    print_text(console, f"time: {shares(result['seconds'])}")


def _row(cell: Json) -> list[str]:
    from planet_rssm.report.tables import number, spread

    begin = [cell["way"], f"{cell['ms']:g}"]
    if cell["mean"] is None:
        return [*begin, f"at least {cell['least_ms']:.1f} ms", *[NOTHING] * 5]
    size = f"{cell['candidates']} × {cell['rounds']}" if cell["candidates"] else "nothing"
    latency = [f"{cell['latency_ms'][key]:.1f}" for key in ("p50", "p95")]
    return [*begin, size, *latency, number(cell["mean"]), spread(cell), spread(cell, "t95")]
