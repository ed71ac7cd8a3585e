"""`planet eval`."""

import json
import re
import sys
from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import output, print_table, print_text

EPISODES = 10  # of the dm_control protocol
MOST = 100_000  # episodes that a range may name

_file = click.Path(path_type=Path, dir_okay=False)


@click.command("eval")
@click.argument("runs", shell_complete=complete.run, nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--episodes",
    type=options.count(),
    help=f"Of each run, from fixed reset seeds [{EPISODES}].",
)
@click.option("--episode-seeds", metavar="LIST", help="Those reset seeds, as 1000-1009 or 3,5,8.")
@options.checkpoint()
@options.planner
@options.settings(complete.acting_setting, "Change a planner.… setting; repeatable.")
@click.option(
    "--group-by",
    metavar="KEY",
    help="A setting: runs with the same value of it form one group [all settings but seeds].",
)
@click.option(
    "--normalise",
    metavar="max|METHOD",
    help="Also scores divided by the most that a task gives, or by a published score.",
)
@options.device()
@options.on
@click.option("--fresh", is_flag=True, help="Play again what was kept in RUN/eval.")
@click.option("--csv", "csv_file", type=_file, help="Write the table there.")
@click.option("--rows", "rows_file", type=_file, help="Write one CSV row an episode there.")
@click.option("--latex", "latex_file", type=_file, help="Write the tables for a paper there.")
@options.allow_code
@options.as_json()
def verb(
    *,
    runs: tuple[str, ...],
    episodes: int | None,
    episode_seeds: str | None,
    checkpoint: str,
    planner: str | None,
    overrides: tuple[str, ...],
    group_by: str | None,
    normalise: str | None,
    device: str,
    on: str | None,
    fresh: bool,
    csv_file: Path | None,
    rows_file: Path | None,
    latex_file: Path | None,
    as_json: bool,
) -> None:
    """Measure trained RUNs by one protocol: last checkpoint, fixed reset seeds, no noise.

    A RUN is a folder, simulator:TASK, or a policy of your own, module:Policy@TASK
    (docs/howto/own-policy.md). Runs that differ in their seed alone are counted together. What was
    played is kept in RUN/eval: the same command continues where it was interrupted.

    \b
    For example
      planet eval runs/quickstart-cartpole-swingup-seed*
      planet eval runs/quickstart-cartpole-swingup-seed* --on ray
      planet eval runs/quickstart-*-seed* --group-by rssm.latent --latex table.tex
      planet eval runs/walker simulator:walker-walk --episodes 5 --normalise max --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.evaluation.evaluate import evaluate  # torch: not for `planet eval --help`

    seeds = seeds_of(episodes, episode_seeds)
    wanted = options.with_planner(overrides, planner)
    files = {"--csv": csv_file, "--rows": rows_file, "--latex": latex_file}
    for option, path in files.items():
        if path is not None:
            options.check_output(option, path)
    with StageProgress("eval", len(seeds) * len(runs)) as progress:
        result = evaluate(
            runs,
            seeds,
            checkpoint=checkpoint,
            overrides=wanted,
            device=device,
            group_by=group_by,
            normalise=normalise,
            fresh=fresh,
            on=on,
            on_run=progress.stage,
            on_episode=progress.advance,
        ).to_json()
    _write(result, csv_file, rows_file, latex_file)
    if as_json:
        click.echo(json.dumps(result))
    elif result["results"]:
        _print(result, output())
    if result["errors"]:
        sys.exit(1)


def seeds_of(episodes: int | None, listed: str | None) -> list[int]:
    """Return the reset seeds: the first `episodes` of the protocol's, or those listed.

    Raises:
        PlanetError: both were given, or the list is none.
    """
    from planet_rssm.evaluation.protocol import episode_seeds

    if listed is None:
        return episode_seeds(EPISODES if episodes is None else episodes)
    if episodes is not None:
        raise PlanetError(
            f"--episodes {episodes}: --episode-seeds already says how many; leave one out"
        )
    seeds: list[int] = []
    for part in listed.split(","):
        ends = re.fullmatch(r"\s*(\d{1,15})(?:-(\d{1,15}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not 0 <= last - first < MOST:
            raise PlanetError(
                f"--episode-seeds {listed}: {part!r} is no seed and no range; "
                "write 1000-1009 or 3,5,8"
            )
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def _write(
    result: Json,
    csv_file: Path | None,
    rows_file: Path | None,
    latex_file: Path | None,
) -> None:
    from planet_rssm.report import tables

    for path, write in (
        (csv_file, tables.write_csv),
        (rows_file, tables.write_rows),
        (latex_file, tables.write_latex),
    ):
        if path is not None:
            write(path, result)


def _print(result: Json, console: Console) -> None:
    from planet_rssm.base.stopwatch import shares
    from planet_rssm.report import tables

    chosen = (
        ", best checkpoint (selected on test episodes)"
        if _any(result, "checkpoint", "best")
        else ""
    )
    places = dict.fromkeys((group["task"], group["observation"]) for group in result["groups"])
    for task, observation in places:  # a table each: its title names the observation
        members = [
            group
            for group in result["groups"]
            if (group["task"], group["observation"]) == (task, observation)
        ]
        title = f"{task}, {observation}{chosen}"
        header = [*tables.COLUMNS[2:], "published"]
        body = zip(tables.rows(members), members, strict=True)
        print_table(
            console,
            title,
            header,
            [[*row[2:], tables.published_beside(group)] for row, group in body],
        )
    for table in result["tables"]:
        _show_tasks(table, console)
    if result["groups"] and "normalised" in result["groups"][0]:
        _show_normalised(result, console)
    for pair in result["improvement"]:
        low, high = pair["ci95"]
        chance = f"with probability {pair['probability']:.2f} ({low:.2f} to {high:.2f})"
        print_text(
            console, f"{pair['group']} scores more than {pair['over']} {chance}, of {pair['of']}"
        )
    if result["published"]:
        print_text(
            console,
            "published scores are of other protocols; --json and --latex have each with its own",
        )
    if result["published"] and _any(result, "renderer", "raycast"):
        print_text(console, "ray-cast pixels are another observation than the published pixels")
    print_text(console, f"time: {shares(result['seconds'])}")


def _show_tasks(table: Json, console: Console) -> None:
    from planet_rssm.report import tables

    title = f"{table['group']}, {table['observation']}, beside the published scores"
    print_table(console, title, tables.BY_TASK, tables.task_rows(table))
    scores = [score for row in table["tasks"] for score in row["published"].values() if score]
    for line in dict.fromkeys(
        f"{score['method']}, {tables.steps(score['steps'])} steps: {score['protocol']}"
        for score in scores
    ):
        print_text(console, line)
    if table["missing"]:
        print_text(console, f"of PlaNet's six tasks without {', '.join(table['missing'])}")


def _show_normalised(result: Json, console: Console) -> None:
    from planet_rssm.report.tables import number, spread

    scores = [(group["group"], group["task"], group["normalised"]) for group in result["groups"]]
    scores += [
        (total["group"], f"all {len(total['tasks'])} tasks", total)
        for total in result["aggregates"]
    ]
    table = [
        [
            label,
            task,
            number(score["mean"]),
            spread(score),
            spread(score, "t95"),
            number(score["median"]),
            number(score["iqm"]),
        ]
        for label, task, score in scores
    ]
    by = result["groups"][0]["normalised_by"]
    header = ("runs", "task", "mean", "95 % interval", "by t", "median", "IQM")
    print_table(console, f"divided by {by}", header, table)


def _any(result: Json, key: str, value: str) -> bool:
    return any(value in (run.get(key), run["observation"].get(key)) for run in result["results"])
