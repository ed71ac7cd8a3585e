"""`planet bench plan`."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.bench_options import machine_line, narrow_table, timing_options
from planet_rssm.cli.tables import print_result, print_text


@click.command("plan", short_help="Decisions by CEM, iCEM and an actor.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    shell_complete=complete.run,
    help="A trained model, on which the value of plans is compared; repeatable.",
)
@options.settings(complete.any_setting, "Change the model that is timed; repeatable.")
@timing_options(30, "Decisions timed of each.")
def plan(
    precisions: tuple[str, ...],
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Time decisions for one environment and for 16.

    They are by PlaNet's CEM over both latents, by iCEM and by an actor. The reference is a plain
    float32 loop over the same weights, in the same process and in turns; the value gap is the share
    of a plan's value that the precision costs, on the trained model of the same latent. The GEMM
    share is the part of the time that the decision's arithmetic alone would take at the rate of
    large matrix products.

    \b
    For example
      planet bench plan
      planet bench plan --run runs/quickstart-cartpole-swingup-seed0 --json
      planet bench plan --repeats 5 --precision bfloat16
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.bench.plan import bench_plan  # torch: not for `planet bench --help`

    with Console(stderr=True).status("getting ready") as status:
        result = bench_plan(precisions=precisions, say=status.update, **options)
    print_result(result.to_json(), as_json, print_plan)


def print_plan(result: Json, console: Console) -> None:
    """Print the result of `bench_plan` as a table."""
    heads = ("planner", "latent", "B", "precision", "ms", "plans/s", "ratio", "GEMM", "gap")
    rows = [
        (
            case["planner"],
            case["latent"],
            str(case["batch"]),
            case["precision"],
            f"{case['ours_ms']:.1f}",
            f"{case['plans_per_s']:.1f}",
            f"{case['ratio_to_fastest']:.2f}",
            f"{case['gemm_share']:.2f}",
            "–" if case["value_gap"] is None else f"{case['value_gap']:.4f}",
        )
        for case in result["cases"]
    ]
    console.print(narrow_table(heads, rows))
    for case in {
        (case["planner"], case["latent"], case["batch"]): case for case in result["cases"]
    }.values():
        peers = ", ".join(f"{name} {ms:.1f} ms" for name, ms in case["peers_ms"].items())
        why = f"; no gap: {case['no_value_gap']}" if case["no_value_gap"] else ""
        print_text(
            console, f"{case['planner']}, {case['latent']}, batch {case['batch']}: {peers}{why}"
        )
    print_text(console, machine_line(result["machine"]))
    print_text(
        console,
        "ratio: to the fastest of those beside it, all float32; GEMM: share of the time that its "
        "matrix products alone would take; gap: value lost on a trained model, see --help",
    )
