"""`planet push`."""

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options, tables


@click.command("push")
@click.argument("run", shell_complete=complete.run)
@click.argument("repo", metavar="OWNER/NAME")
@options.checkpoint()
@click.option("--float16", is_flag=True, help="Send the weights in half the bytes, rounded.")
@click.option("--private", is_flag=True, help="Make it private, if it is not there yet.")
@click.option("--dry-run", is_flag=True, help="List what would be sent; send nothing.")
@options.allow_code
@options.as_json()
def verb(
    *,
    run: str,
    repo: str,
    checkpoint: str,
    float16: bool,
    private: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send RUN to the Hugging Face Hub as the model OWNER/NAME (extra `hub`).

    That is its settings, a checkpoint without the optimiser's state, what planet eval, plan --video
    and the baselines have left in its folder, and a model card. Code that it names is not sent. A
    run may be under way. hf:OWNER/NAME is then a RUN everywhere.

    \b
    For example
      planet push runs/walker me/planet-walker --dry-run
      planet push runs/walker me/planet-walker --float16
      planet plan hf:me/planet-walker --episodes 4
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.hub.parcel import packed  # torch: not for `planet push --help`
    from planet_rssm.hub.push import contents, push
    from planet_rssm.runs.hub import check_repo

    check_repo(repo, f"OWNER/NAME = {repo}")
    parcel = packed(run, repo, checkpoint, float16=float16)
    files = {name: len(data) for name, data in contents(parcel).items()}
    result: Json = {
        "run": run,
        "repo": repo,
        "files": files,
        "missing": parcel.run.missing,
        "code": parcel.code,
        "url": None if dry_run else push(parcel, private=private),
    }
    tables.print_result(result, as_json, _print)


def _print(result: Json, console: Console) -> None:
    verb = "sent to" if result["url"] else "would be sent to"
    tables.print_text(console, f"{result['run']}: {verb} hf:{result['repo']}")
    for name, size in result["files"].items():
        tables.print_text(console, f"  {name:40} {size / 1000:10.1f} kB")
    for line in result["missing"]:
        tables.print_text(console, f"  {line}")
    for key, name in result["code"].items():
        tables.print_text(console, f"  {key} = {name}: code is not sent, whoever uses it brings it")
    if result["url"]:
        tables.print_text(console, result["url"])
