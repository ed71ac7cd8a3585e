"""`planet report`."""

from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import print_result, print_text

ENDINGS = (".html", ".htm")


@click.command("report")
@click.argument("runs", shell_complete=complete.run, nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file [RUN/report.html; of several runs report.html].",
)
@click.option(
    "--group-by",
    metavar="KEY",
    help="A setting: runs with the same value of it form one group [all settings but seeds].",
)
@click.option(
    "--strips/--no-strips",
    default=True,
    help="Let each run's model imagine its newest episode: seconds a run.",
)
@options.allow_code
@options.as_json()
def verb(
    *, runs: tuple[str, ...], out: Path | None, group_by: str | None, strips: bool, as_json: bool
) -> None:
    """Write one HTML file about RUNs: curves, scores, losses, films, settings, how to repeat it.

    It opens offline, and nothing in it asks another machine for anything. Runs that differ in their
    seed alone are counted together, as in planet eval. It shows what is there: what planet eval,
    plan --video --xray and diagnose --out RUN/diagnosis have left in a run's folder, and says what
    is missing. A run may be under way.

    \b
    For example
      planet report runs/quickstart-cartpole-swingup-seed0
      planet report runs/quickstart-*-seed* --out quickstart.html
      planet report runs/* --group-by rssm.latent --no-strips --out sweep.html
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.report.page.build import write_report  # torch: not for `planet report --help`
    from planet_rssm.runs.location import outputs, source

    if out is None:
        out = outputs(Path(runs[0])) / "report.html" if len(runs) == 1 else Path("report.html")
        if len(runs) == 1 and source(Path(runs[0])).is_dir():
            out.parent.mkdir(parents=True, exist_ok=True)  # of a model of the package
    elif out.suffix.lower() not in ENDINGS:
        raise PlanetError(
            f"--out {out}: must end in {' or '.join(ENDINGS)}, so that nothing else is replaced"
        )
    if len(runs) > 1 or out.parent.is_dir() or source(Path(runs[0])).is_dir():  # else: no such run
        options.check_output("--out", out)
    with StageProgress("report", len(runs), "runs") as progress:
        result = write_report(runs, out, group_by=group_by, strips=strips, on_run=progress.stage)
    print_result(result, as_json, _print)


def _print(result: Json, console: Console) -> None:
    for name, lines in result["missing"].items():
        for line in lines:
            print_text(console, f"{name}: {line}")
    print_text(console, f"written: {result['file']}")
