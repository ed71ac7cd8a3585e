"""`planet envs`."""

import json

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import installed, options
from planet_rssm.cli.tables import output, print_table
from planet_rssm.envs.registry import action_repeat, task_ids

_OTHERS = (
    "Other packages: gym/MODULE:ID, see docs/environments.md. metaworld, gym-xarm, and Fetch, "
    "HandReach and FrankaKitchen of gymnasium-robotics cannot be made with this mujoco (their code "
    "is for an older one): record in another virtual environment and import the episodes, "
    "planet minari import"
)


@click.command("envs")
@options.as_json()
def verb(as_json: bool) -> None:
    """List the environments that can be run here, and why the others cannot.

    Of Gymnasium's, the latest version of each registered one is made and drawn once, which takes
    some seconds. Those that another package registers are gym/MODULE:ID, and a gymnasium.Env class
    of your own is MODULE:CLASS.

    Action repeat is the number of control steps that an agent step takes unless env.action_repeat
    is set.

    \b
    For example
      planet envs
      planet train quickstart -s env.id=dmc/cup-catch
      planet train quickstart -s env.id=gym/CartPole-v1 -s env.observe=vectors -s env.renderer=auto
    """  # noqa: D301 (click reads the backspace)
    with Console(stderr=True).status("trying Gymnasium's environments"):
        groups = {"dm_control": _suite(), "Gymnasium": _gymnasium()}
    if as_json:
        click.echo(json.dumps({"envs": [row for rows in groups.values() for row in rows]}))
        return
    for title, rows in groups.items():
        _print(title, rows)
    click.echo(_OTHERS)


def _suite() -> list[Json]:
    why = _why_no_suite()
    observe = [] if why else ["pixels", "vectors"]
    return [_row(name, observe, why) for name in task_ids()]


def _gymnasium() -> list[Json]:
    # imports gymnasium: not for `planet envs --help`
    from planet_rssm.envs.survey import registered, survey

    return [_row(finding.id, finding.observe, finding.why) for finding in survey(registered())]


def _row(name: str, observe: list[str], why: str) -> Json:
    return {
        "id": name,
        "action_repeat": action_repeat(name),
        "ok": bool(observe),
        "observe": observe,
        "why": why,
    }


def _print(title: str, rows: list[Json]) -> None:
    """Show a table, and below it each reason why something in it does not run."""
    body = [
        (row["id"], str(row["action_repeat"]), ", ".join(row["observe"]) or "-") for row in rows
    ]
    print_table(output(), title, ("environment", "action repeat", "env.observe"), body)
    running = sum(row["ok"] for row in rows)
    click.echo(
        f"{title}: {'all' if running == len(rows) else f'{running} of'} {len(rows)} run here"
    )
    for why in sorted({row["why"] for row in rows} - {""}):
        hit = [row["id"] for row in rows if row["why"] == why]
        click.echo(
            f"  {', '.join(hit) if len(hit) < len(rows) else 'none of these runs here'}: {why}"
        )


def _why_no_suite() -> str:
    """Return what keeps the suite from loading, and how to fix it; empty if nothing does."""
    faults = [
        check for check in (installed.package("mujoco"), installed.dm_control()) if not check.ok
    ]
    return "; ".join(
        f"{check.name} {check.value or 'is not installed'} ({check.mend})" for check in faults
    )
