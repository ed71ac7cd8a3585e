"""`planet diagnose`."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from planet_rssm.cli import complete
from planet_rssm.cli.options import allow_code
from planet_rssm.cli.progress import Shown
from planet_rssm.cli.tables import results, say, show

NAMES = {
    "as is": "nothing",
    "planner": "planner: {budget} times the sequences",
    "filter": "filter: best of many beliefs",
    "model": "model: the simulator itself",
}


@click.command("diagnose")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.option(
    "--episodes",
    default=8,
    show_default=True,
    type=click.IntRange(min=2),
    help="Of each part exchanged.",
)
@click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    help="last, best or a number of env_steps (offline: updates).",
)
@complete.setting_option(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@click.option("--every", default=10, show_default=True, type=click.IntRange(min=1),
              help="Score the candidates of one decision in so many.")  # fmt: skip
@click.option("--budget", default=10, show_default=True, type=click.IntRange(min=2),
              help="Times as many sequences for the larger planner.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for diagnosis.json and diagnosis.png."
)
@allow_code
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def verb(
    run: Path,
    episodes: int,
    checkpoint: str,
    overrides: tuple[str, ...],
    every: int,
    budget: int,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say where RUN's return is lost: in the model, the planner or the filter.

    The same candidates are scored by the model and by dm_control's own physics, and the run's
    episodes are played again with one part exchanged for a better one: a larger planner, a better
    belief, the simulator for the model.

    \b
    For example
      planet diagnose runs/quickstart-cartpole-swingup-seed0 --out diagnosis
      planet diagnose pretrained:cartpole-swingup --episodes 20 --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.diagnosis.diagnose import (
        diagnose_run,
    )  # torch: not for `planet diagnose --help`
    from planet_rssm.report.curves import require_matplotlib

    if out is not None:
        require_matplotlib(
            f"--out {out}: diagnosis.png"
        )  # minutes later is too late to hear that it cannot be
        out.mkdir(parents=True, exist_ok=True)
    with Shown("load", 4 * episodes) as shown:
        result = diagnose_run(
            run,
            episodes,
            checkpoint=checkpoint,
            overrides=overrides,
            every=every,
            budget=budget,
            device=device,
            on_stage=lambda name: shown.stage(f"play: {name}"),
            on_episode=shown.advance,
        )
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, results())
    if out is not None:
        keep(result, out)
        if not as_json:
            say(results(), f"written: {out}")


def keep(result: dict[str, Any], out: Path) -> None:
    """Write diagnosis.json and diagnosis.png into the folder `out`."""
    from planet_rssm.base.files import write_atomic
    from planet_rssm.report.diagnosis_figure import plot_diagnosis

    write_atomic(out / "diagnosis.json", [json.dumps(result, indent=1).encode()])
    plot_diagnosis(result, out / "diagnosis.png")


def _print(result: dict[str, Any], console: Console) -> None:
    title = f"{result['task']}, {result['planner']}, {len(result['seeds'])} episodes on the same reset seeds"
    if result["checkpoint"] == "best":
        title += ", best checkpoint (selected on test episodes)"
    body: list[tuple[str, ...]] = []
    for name, label in NAMES.items():
        label = label.format(budget=result["budget"])
        if name in result["left_out"]:
            body.append((label, "left out"))
            continue
        held, gain = result["returns"][name], result["gain"].get(name)
        told = [f"{gain['mean']:+.1f}", _range(gain["episode_ci95"], 1)] if gain else []
        body.append((label, f"{held['mean']:.1f}", _range(held["episode_ci95"], 1), *told))
    show(console, title, ("exchanged", "mean return", "95 %", "gain", "95 %"), body)
    if result["horizons"]:
        _print_foresight(result, console)
    lines = [f"{part} left out: {reason}" for part, reason in result["left_out"].items()]
    if "model" in result["gain"]:
        lines.append(
            "the simulator is searched from the true state: its gain includes the filter's"
        )
    say(console, "\n".join([*lines, result["limit"]]))


def _print_foresight(result: dict[str, Any], console: Console) -> None:
    title = f"the same candidates by the model and by the simulator, {result['moments']} decisions, by agent steps"
    body: list[tuple[str, ...]] = []
    for kind in ("random", "planned"):
        for name, label in (("one", "one future"), ("mean", "mean future")):
            row = result["rank_correlation"][kind][name]
            body.append(
                (f"rank correlation, {kind}", label, *(_mean(cell, "+.2f") for cell in row))
            )
    optimism = [_mean(cell, "+.2f") for cell in result["optimism"]]
    body.append(("optimism of the chosen plan", "mean future", *optimism))
    blank = [""] * (len(result["horizons"]) - 1)
    body.append(("", "the planner's own value", *blank, _mean(result["claimed"], "+.2f")))
    show(console, title, ("of", "of each", *map(str, result["horizons"])), body)
    for name in ("reward", "continue"):
        if bins := result[f"{name}_calibration"]:
            rows = [
                (f"{part['predicted']:.2f}", f"{part['real']:.2f}", f"{part['count']}")
                for part in bins
            ]
            show(
                console,
                f"{name} by the model and by the simulator",
                ("predicted", "real", "steps"),
                rows,
            )


def _mean(cell: dict[str, Any] | None, form: str) -> str:
    return "–" if cell is None else format(cell["mean"], form)


def _range(bounds: list[float], digits: int) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"
