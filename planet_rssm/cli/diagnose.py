"""`planet diagnose`."""

import json
from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import output, print_result, print_table, print_text

PARTS = ("planner", "filter", "model")


@click.command("diagnose")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.option(
    "--episodes",
    default=8,
    show_default=True,
    type=options.count(2),
    help="Of each part exchanged.",
)
@options.checkpoint()
@options.settings(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@click.option(
    "--every",
    default=10,
    show_default=True,
    type=options.count(),
    help="Score the candidates of every N-th decision.",
)
@click.option(
    "--budget",
    default=10,
    show_default=True,
    type=options.count(2),
    help="Times as many sequences for the larger planner.",
)
@options.device()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for diagnosis.json and diagnosis.png."
)
@options.allow_code
@options.as_json()
def verb(
    *,
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
    belief, the simulator for the model. An actor is exchanged for a search in the same model.

    \b
    For example
      planet diagnose runs/quickstart-cartpole-swingup-seed0 --out diagnosis
      planet diagnose pretrained:cartpole-swingup --episodes 20 --json
    """  # noqa: D301 (click wants the character itself)
    # torch: not for `planet diagnose --help`
    from planet_rssm.diagnosis.diagnose_run import diagnose_run
    from planet_rssm.report.curves import require_matplotlib

    if out is not None:
        require_matplotlib(f"--out {out}: diagnosis.png")  # now, not after minutes of measuring
        options.check_outputs(out, "diagnosis.json", "diagnosis.png")
    with StageProgress("load", 4 * episodes) as progress:
        result = diagnose_run(
            run,
            episodes,
            checkpoint=checkpoint,
            overrides=overrides,
            every=every,
            budget=budget,
            device=device,
            on_stage=lambda name: progress.stage(f"play: {name}"),
            on_episode=progress.advance,
        ).to_json()
    print_result(result, as_json, _print)
    if out is not None:
        keep(result, out)
        if not as_json:
            print_text(output(), f"written: {out}")


def keep(result: Json, out: Path) -> None:
    """Write diagnosis.json and diagnosis.png into the folder `out`."""
    from planet_rssm.base.files import write_atomic
    from planet_rssm.report.diagnosis_figure import plot_diagnosis

    write_atomic(out / "diagnosis.json", [json.dumps(result, indent=1).encode()])
    plot_diagnosis(result, out / "diagnosis.png")


def _print(result: Json, console: Console) -> None:
    count = len(result["seeds"])
    title = f"{result['task']}, {result['planner']}, {count} episodes on the same reset seeds"
    if result["checkpoint"] == "best":
        title += ", best checkpoint (selected on test episodes)"
    body: list[tuple[str, ...]] = []
    labels = {"as is": "nothing"}
    labels |= {part: f"{part}: {result['exchanged_for'][part]}" for part in PARTS}
    for name, label in labels.items():
        if name in result["left_out"]:
            body.append((label, "left out"))
            continue
        returns = result["returns"][name]
        gain = result["gain"].get(name)
        gained = [f"{gain['mean']:+.1f}", _range(gain["episode_ci95"], 1)] if gain else []
        spread = _range(returns["episode_ci95"], 1)
        body.append((label, f"{returns['mean']:.1f}", spread, *gained))
    print_table(console, title, ("exchanged", "mean return", "95 %", "gain", "95 %"), body)
    if result["horizons"]:
        _print_foresight(result, console)
    lines = [f"{part} left out: {reason}" for part, reason in result["left_out"].items()]
    if "model" in result["gain"]:
        lines.append(
            "the simulator is searched from the true state: its gain includes the filter's"
        )
        if any(part in result["planner"] for part in ("actor", "critic")):
            lines.append(
                "it has neither actor nor critic: a gain below 0 is that search's own limit, and "
                "says nothing of the model"
            )
    print_text(console, "\n".join([*lines, result["limit"]]))


def _print_foresight(result: Json, console: Console) -> None:
    title = (
        "the same candidates by the model and by the simulator, "
        f"{result['moments']} decisions, by agent steps"
    )
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
    print_table(console, title, ("of", "of each", *map(str, result["horizons"])), body)
    for name in ("reward", "continue"):
        if bins := result[f"{name}_calibration"]:
            rows = [
                (f"{part['predicted']:.2f}", f"{part['real']:.2f}", f"{part['count']}")
                for part in bins
            ]
            print_table(
                console,
                f"{name} by the model and by the simulator",
                ("predicted", "real", "steps"),
                rows,
            )


def _mean(cell: Json | None, form: str) -> str:
    return "–" if cell is None else format(cell["mean"], form)


def _range(bounds: list[float], digits: int) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"
