"""`planet bench`: one verb a part of the system."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli.bench_loop import loop
from planet_rssm.cli.bench_options import (
    against_option,
    machine_line,
    measure,
    narrow_table,
    preset_options,
)
from planet_rssm.cli.bench_plan import plan
from planet_rssm.cli.tables import print_text


@click.group("bench", invoke_without_command=True)
@click.pass_context
def verb(ctx: click.Context) -> None:
    """Measure this machine's speed beside a plain reference and the machine's own limit."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


verb.add_command(plan)
verb.add_command(loop)


@verb.command("train", short_help="Updates of the world model.")
@preset_options(3, "Updates timed of each.")
@against_option
def train(as_json: bool, against: str | None, **options: Any) -> None:  # noqa: ANN401
    """Time updates of PRESETs (planet and dreamer-v3 of 12m if none is given) on a batch of noise.

    The reference is the same model and loss in eager float32 with contiguous images and PyTorch's
    own Adam. The GEMM share is the part of the time that the update's arithmetic alone would take
    at the rate of large matrix products.

    \b
    For example
      planet bench train
      planet bench train quickstart --repeats 20
      planet bench train planet -s train.batch_size=10 --precision bfloat16 --json
      planet bench train quickstart --against HEAD~1
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.bench.train import PRESETS, bench_train  # torch: not for `planet bench --help`

    if against is not None:
        _against(against, "train", PRESETS, as_json, options)
        return
    measure(bench_train, PRESETS, options, _print_train, as_json)


@verb.command("behavior", short_help="Updates of actor and critic.")
@preset_options(5, "Updates timed of each.")
@against_option
def behavior(as_json: bool, against: str | None, **options: Any) -> None:  # noqa: ANN401
    """Time what actor and critic learn from a batch's states.

    PRESETs are quickstart and dreamer-v3 of 12m if none is given. The reference does the
    same in eager float32, written as the public PyTorch ports are: see the head of
    planet_rssm/bench/behavior.py.

    \b
    For example
      planet bench behavior
      planet bench behavior quickstart --repeats 20 --json
    """  # noqa: D301 (click wants the character itself)
    # torch: not for `planet bench --help`
    from planet_rssm.bench.behavior import PRESETS, bench_behavior

    if against is not None:
        _against(against, "behavior", PRESETS, as_json, options)
        return
    measure(bench_behavior, PRESETS, options, _print_behavior, as_json)


@verb.command("collect", short_help="Steps of a round of collection: physics, drawing, planning.")
@preset_options(30, "Agent steps timed of each.")
def collect(as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Time what collecting takes for PRESETs (quickstart if none is given), and of what.

    One agent step of all environments: their physics, drawing what they show, filtering and
    planning. The agent has not learned.

    \b
    For example
      planet bench collect
      planet bench collect planet -s env.id=dmc/walker-walk -s train.envs=4 --json
    """  # noqa: D301 (click wants the character itself)
    # torch: not for `planet bench --help`
    from planet_rssm.bench.collect import PRESETS, bench_collect

    measure(bench_collect, PRESETS, options, _print_collect, as_json)


def _against(against: str, verb: str, presets: Sequence[str], as_json: bool, options: Json) -> None:
    from planet_rssm.bench.against import bench_against  # torch: not for `planet bench --help`

    measure(partial(bench_against, against, verb), presets, options, _print_against, as_json)


def _print_against(result: Json, console: Console) -> None:
    other = f"ms of {result['machine']['against']}"
    heads = ("preset", "precision", "ms", other, "ratio", "of each turn")
    rows = [
        (
            case["preset"],
            case["precision"],
            f"{case['ms']:.1f}",
            f"{case['against_ms']:.1f}",
            f"{case['ratio']:.2f}",
            ", ".join(f"{ours / theirs:.2f}" for ours, theirs in case["turns"]),
        )
        for case in result["cases"]
    ]
    console.print(narrow_table(heads, rows))
    print_text(console, machine_line(result["machine"]))
    print_text(console, "ratio: less than 1 where this checkout is faster")


def _print_train(result: Json, console: Console) -> None:
    heads = ("preset", "batch", "precision", "ms", "ref. ms", "speedup", "frames/s", "GEMM", "MiB")
    rows = [
        (
            case["preset"],
            "x".join(map(str, case["batch"])),
            *_times(case),
            f"{case['images_per_s']:.0f}",
            f"{case['gemm_share']:.2f}",
            "?" if case["peak_mib"] is None else f"{case['peak_mib']:.0f}",
        )
        for case in result["cases"]
    ]
    console.print(narrow_table(heads, rows))
    print_text(console, machine_line(result["machine"]))
    print_text(
        console,
        "ref.: the same update in eager float32, see --help; GEMM: share of the time that its "
        "matrix products alone would take; MiB: most memory that an update took",
    )


def _print_behavior(result: Json, console: Console) -> None:
    heads = ("preset", "states x steps", "precision", "ms", "ref. ms", "speedup")
    rows = [
        (case["preset"], f"{case['states']} x {case['horizon']}", *_times(case))
        for case in result["cases"]
    ]
    console.print(narrow_table(heads, rows))
    print_text(console, machine_line(result["machine"]))


def _times(case: Json) -> tuple[str, ...]:
    """Return the precision of a case, its time and the reference's."""
    times = (f"{case['ms']:.1f}", f"{case['reference_ms']:.1f}", f"{case['speedup']:.2f}")
    return (case["precision"], *times)


def _print_collect(result: Json, console: Console) -> None:
    heads = ("preset", "planner", "precision", "ms", "physics", "draw", "filter", "plan", "steps/s")
    shares = ("physics", "draw", "filter", "plan")
    rows = [
        (
            case["preset"],
            case["planner"],
            case["precision"],
            f"{case['ms']:.1f}",
            *(f"{case[f'{part}_ms'] / case['ms']:.0%}" for part in shares),
            f"{case['env_steps_per_s']:.0f}",
        )
        for case in result["cases"]
    ]
    console.print(narrow_table(heads, rows))
    for case in result["cases"]:
        print_text(
            console, f"{case['preset']}: {case['envs']} x {case['task']}, {case['renderer']}"
        )
    print_text(console, machine_line(result["machine"]))
    print_text(console, "ms: an agent step of all environments; steps/s: env_steps")
