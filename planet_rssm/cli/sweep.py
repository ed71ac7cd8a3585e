"""`planet sweep`."""

import os
from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import options
from planet_rssm.cli.tables import echo, print_result, print_table, print_text

_file = click.argument(
    "file", type=click.Path(path_type=Path, dir_okay=False), metavar="SWEEP.yaml"
)


class _Sweep(click.Group):
    """`planet sweep FILE` is short for `planet sweep run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("sweep", cls=_Sweep, context_settings={"help_option_names": ["-h", "--help"]})
def verb() -> None:
    """Train the runs of a sweep file: presets, tasks, seeds and settings; see docs/scale.md.

    The same command does only what is missing.

    \b
    For example
      planet sweep run sweep.yaml
      planet sweep run sweep.yaml --on ray:auto
      planet sweep status sweep.yaml
      planet sweep collect sweep.yaml --episodes 10
    """  # noqa: D301 (click reads the backspace)


@verb.command("run")
@_file
@click.option(
    "--on",
    "where",
    default="local",
    show_default=True,
    metavar="local|ray[:ADDRESS]|slurm",
    help="This machine; a cluster of Ray, whose nodes share the folder of the runs; or SLURM, to "
    "submit and leave.",
)
@click.option(
    "--at-once",
    type=options.count(),
    help="Runs at once, at most [here: its cores; by Ray: as many as have room].",
)
@options.as_json()
def run(file: Path, where: str, at_once: int | None, as_json: bool) -> None:
    """Begin the runs of SWEEP.yaml that are missing, and continue those that were stopped."""
    from planet_rssm.sweep import Sweep, run_here, states_of

    _check_where(where)
    sweep = Sweep.read(file)
    found = states_of(sweep)
    if other := [one for one in found if one.state == "other"]:
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        raise PlanetError(
            f"{sweep.out / other[0].name}{more}: {other[0].why}; change {file} back, or give "
            "another `out` in it"
        )
    states = [one.state for one in found]
    todo = [
        one
        for one, state in zip(sweep.runs, states, strict=True)
        if state in ("missing", "stopped")
    ]
    echo(f"{len(sweep.runs)} runs in {sweep.out}: {_counts(states)}", err=True)
    if "missing" in states and (odd := sweep.unnamed()):
        echo(
            f"{sweep.out} also holds {len(odd)} runs that {file} does not name, {odd[0]} first: "
            "what varies is in a run's name",
            err=True,
        )
    jobs: list[str] = []
    failed: list[str] = []
    if todo and where == "slurm":
        from planet_rssm.sweep.slurm import submit

        jobs = submit(sweep, todo)
        echo(f"submitted {len(jobs)} jobs: {jobs[0]} to {jobs[-1]}", err=True)
    elif todo and where != "local":
        from planet_rssm.sweep.on_ray import run_on

        count = at_once or len(todo)
        failed = run_on(where, sweep, todo, count, lambda line: echo(line, err=True))
    elif todo:
        count = min(at_once or os.cpu_count() or 1, len(todo))
        failed = run_here(todo, sweep.out, count, lambda line: echo(line, err=True))
    result: Json = {"begun": [one.name for one in todo], "failed": failed, "jobs": jobs}
    print_result(result, as_json, lambda *_: None)
    if failed:
        raise PlanetError(
            f"{len(failed)} of {len(todo)} runs failed, {failed[0]} first; their words are in "
            f"{sweep.out / 'logs'}; the same command begins them again"
        )


def _check_where(where: str) -> None:
    if where in ("local", "slurm"):
        return
    if where.partition(":")[0] != "ray":
        raise PlanetError(f"--on {where}: must be local, slurm, ray or ray:ADDRESS")
    from planet_rssm.base.cluster import check_cluster

    check_cluster("--on", where)


@verb.command("status")
@_file
@options.as_json()
def status(file: Path, as_json: bool) -> None:
    """Say where each run of SWEEP.yaml stands."""
    from planet_rssm.sweep import Sweep, states_of

    sweep = Sweep.read(file)
    states = states_of(sweep)
    counts = {name: sum(one.state == name for one in states) for name in _names()}
    result = {"out": str(sweep.out), **counts, "runs": [one.to_json() for one in states]}
    print_result(result, as_json, _print)


@verb.command("collect")
@_file
@click.option("--episodes", type=options.count(), help="Of each run, from fixed seeds [10].")
@options.as_json()
@click.pass_context
def collect(ctx: click.Context, file: Path, episodes: int | None, as_json: bool) -> None:
    """Measure the complete runs of SWEEP.yaml, as `planet eval` does."""
    from planet_rssm.cli.eval import verb as evaluate
    from planet_rssm.sweep import Sweep, state_of

    sweep = Sweep.read(file)
    found = [state_of(one) for one in sweep.runs]
    for one in found:
        if one.why:
            echo(f"{sweep.out / one.name}: left out, {one.why}", err=True)
    complete = [
        one for one, state in zip(sweep.runs, found, strict=True) if state.state == "complete"
    ]
    if not complete:
        raise PlanetError(f"{file}: none of its {len(sweep.runs)} runs is complete; run it first")
    if len(complete) < len(sweep.runs):
        echo(f"{len(complete)} of {len(sweep.runs)} runs are complete", err=True)
    runs = tuple(str(one.folder) for one in complete)
    ctx.invoke(evaluate, runs=runs, episodes=episodes, as_json=as_json)


def _names() -> tuple[str, ...]:
    from planet_rssm.sweep.state import STATES

    return STATES


def _counts(states: list[str]) -> str:
    return ", ".join(f"{states.count(name)} {name}" for name in _names() if name in states)


def _print(result: Json, console: Console) -> None:
    header = ("run", "state", "env_steps", "updates", "return")
    rows = [
        [
            one["run"],
            one["state"],
            f"{one['env_steps']}",
            f"{one['updates']}",
            _number(one["return"]),
        ]
        for one in result["runs"]
    ]
    counts = ", ".join(f"{result[name]} {name}" for name in _names() if result[name])
    print_table(console, f"{result['out']}: {counts}", header, rows)
    for one in result["runs"]:
        if one["why"]:
            print_text(console, f"{one['run']}: {one['why']}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
