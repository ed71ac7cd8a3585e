"""`planet envs`."""

import json

import click
from rich.console import Console
from rich.table import Table

from planet_rssm.cli import installed
from planet_rssm.envs.registry import action_repeat, task_ids


@click.command("envs")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def verb(as_json: bool) -> None:
    """List the environments that can be run here, and why the others cannot.

    Action repeat is the number of control steps that an agent step takes unless env.action_repeat is set.

    \b
    For example
      planet envs
      planet train quickstart -s env.id=dmc/cup-catch
    """  # noqa: D301 (click reads the backspace)
    why = _why_no_suite()
    rows = [{"id": name, "action_repeat": action_repeat(name), "ok": not why, "why": why} for name in task_ids()]
    if as_json:
        click.echo(json.dumps({"envs": rows}))
        return
    table = Table("environment", "action repeat", title="dm_control suite")
    for row in rows:
        table.add_row(str(row["id"]), str(row["action_repeat"]))
    Console().print(table)
    click.echo(f"none of these runs here: {why}" if why else f"all {len(rows)} run here")


def _why_no_suite() -> str:
    """Return what keeps the suite from loading, with the mend; empty if nothing does."""
    faults = [check for check in (installed.package("mujoco"), installed.dm_control()) if not check.ok]
    return "; ".join(f"{check.name} {check.value or 'is not installed'} ({check.mend})" for check in faults)
