"""`planet data`."""

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import echo

if TYPE_CHECKING:
    from planet_rssm.data.replay import Replay
    from planet_rssm.datasets.foreign.wish import Wish

FORMATS = ("npz", "dreamerv3", "lerobot", "hdf5", "zarr", "minari")
ORDERS = ("arrived", "taken", "step")
_FOLDER = click.Path(path_type=Path)


@click.group("data", context_settings={"help_option_names": ["-h", "--help"]})
def verb() -> None:
    """Import sets of episodes of other programs.

    \b
    For example
      planet data import logdir/train_eps --out sets/walker --dry-run
      planet data import logdir/train_eps --out sets/walker
      planet train quickstart --offline --data sets/walker --run-dir runs/walker
    """  # noqa: D301 (click reads the backspace)


@verb.command("import")
@click.argument("source")
@click.option("--out", type=_FOLDER, help="Where the episodes are kept; not with --dry-run.")
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), help="What SOURCE is [known by looking]."
)
@click.option("--dry-run", is_flag=True, help="Print what would be written; write nothing.")
@options.observe_taken
@options.size_taken
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Observe only this; repeatable.")
@click.option("--drop", multiple=True, metavar="KEY", help="Leave an observation out; repeatable.")
@click.option("--action", metavar="KEY", help="Column of the actions.")
@click.option("--reward", metavar="KEY|none", help="Column of the rewards; none: all are 0.")
@click.option(
    "--terminal",
    metavar="KEY|none",
    help="Column that says that the task ended; none: it never did.",
)
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    help="In row t, the action: that led to frame t (arrived), chosen at it (taken), also with its "
    "own reward (step) [by the format].",
)
@click.option(
    "--end",
    type=click.Choice(["drop", "repeat"]),
    default="drop",
    show_default=True,
    help="Of a last action without a frame after it: drop it, or repeat the last frame.",
)
@click.option(
    "--scale-actions",
    is_flag=True,
    help="Actions beyond -1 to 1: take the least and greatest of the data.",
)
@click.option("--choices", type=options.count(), help="Of actions that are whole numbers.")
@click.option(
    "--action-repeat",
    default=1,
    show_default=True,
    type=options.count(),
    help="Control steps a row.",
)
@click.option(
    "--fps", type=options.Number(min=0.001, max=1e6), help="Rows a second [by the format]."
)
@click.option("--skip", is_flag=True, help="Leave out the episodes that cannot be taken.")
@options.allow_code
@click.option("--download", is_flag=True, help="Minari: fetch it if it is not on this machine.")
@options.as_json()
def import_(
    *,
    source: str,
    out: Path | None,
    kind: str | None,
    dry_run: bool,
    skip: bool,
    download: bool,
    as_json: bool,
    **wished: object,
) -> None:
    """Write the episodes in SOURCE, a folder or file of another program, as a set.

    What is there, what becomes of it and what was guessed is printed first. An import that was
    killed is continued by the same command. Formats: docs/data.md.

    For example: planet data import logdir/train_eps --out sets/walker
    """
    from planet_rssm.datasets.foreign.wish import Wish

    if out is None and not dry_run:
        raise click.UsageError("give --out DIR, or --dry-run to only look")
    wish = Wish(**wished)  # type: ignore[arg-type]  # click has checked each
    if _is_minari(source, kind):
        _import_minari(
            source, None if dry_run else out, wish, skip=skip, download=download, as_json=as_json
        )
        return
    result, lines = _import(source, kind, out, wish, skip=skip, dry_run=dry_run, quiet=as_json)
    if as_json:
        echo(json.dumps(result))
    for line in [] if as_json else lines:
        echo(line)


def _import(
    source: str,
    kind: str | None,
    out: Path | None,
    wish: "Wish",
    *,
    skip: bool,
    dry_run: bool,
    quiet: bool,
) -> tuple[Json, list[str]]:
    """Look, print, write; return the result and the lines that are left to print."""
    from planet_rssm.datasets.foreign.detect import open_source
    from planet_rssm.datasets.foreign.importing import survey, write

    if out and out.resolve() == Path(source).resolve():
        raise PlanetError(f"--out {out}: is SOURCE itself; give another folder")
    opened = open_source(source, kind)
    with StageProgress("look", len(opened.lengths)) as progress:
        looked = survey(opened, wish, skip=skip, progress=progress.at)
    result, lines = looked.facts, list(looked.lines)
    if dry_run or out is None:
        return result, lines
    for line in [] if quiet else lines:
        echo(line)
    with StageProgress("import", len(looked.wanted)) as progress:
        replay = write(looked, out, progress.at)
    opened.close()
    result |= {"out": str(out), "env_steps": _env_steps(replay), "task": (replay.env or {})["id"]}
    return result, [f"{len(replay)} episodes, {result['env_steps']} env_steps, in {out}"]


def _is_minari(source: str, kind: str | None) -> bool:
    """Return whether SOURCE is a Minari dataset: its folder, or an ID that is no path here."""
    if kind:
        return kind == "minari"
    path = Path(source)
    if not path.exists():
        return re.fullmatch(r"[\w/.-]+-v\d+", source) is not None
    return path.is_dir() and any(
        (folder / "metadata.json").is_file() for folder in (path, path / "data")
    )


def _import_minari(
    source: str, out: Path | None, wish: "Wish", *, skip: bool, download: bool, as_json: bool
) -> None:
    from planet_rssm.cli.minari import import_dataset

    taken = ("observe", "size", "drop", "scale_actions")
    if other := next((key for key in wish.asked() if key not in taken), None):
        name = {"keys": "key"}.get(other, other).replace("_", "-")
        raise PlanetError(f"--{name}: a Minari dataset says this itself; leave it out")
    import_dataset(
        source,
        out,
        as_json=as_json,
        download=download,
        skip=skip,
        **{key: getattr(wish, key) for key in taken},
    )


def _env_steps(replay: "Replay") -> int:
    return sum(entry.env_steps for entry in replay.episodes)


@verb.command("info")
@click.argument("folder", type=_FOLDER)
@click.option("--sheet", type=_FOLDER, metavar="PNG", help="Write frames of it as one picture.")
@click.option("--camera", metavar="KEY", help="Of the sheet [the first].")
@options.as_json()
def info(folder: Path, sheet: Path | None, camera: str | None, as_json: bool) -> None:
    """Print what the set in FOLDER holds; every byte is checked.

    For example: planet data info sets/walker --sheet walker.png
    """
    from planet_rssm.datasets.contents import contents, write_sheet

    if camera and not sheet:
        raise click.UsageError(f"--camera {camera}: says what a sheet shows; add --sheet PNG")
    if sheet:
        if sheet.suffix.lower() != ".png":
            raise PlanetError(
                f"--sheet {sheet}: must end in .png, so that nothing else is replaced"
            )
        if sheet.parent.is_dir():  # else it is made
            options.check_output("--sheet", sheet)
    with StageProgress("read", 1) as progress:
        result = contents(folder, progress.at)
    if sheet:
        result["sheet"] = str(write_sheet(folder, sheet, camera))
    if as_json:
        echo(json.dumps(result))
        return
    low, middle, high = result["frames_of_an_episode"]
    back = result["return"]
    observed = ", ".join(f"{key} {shape}" for key, shape in result["observation"].items())
    for line in (
        f"{folder}: {result['episodes']} episodes of {result['task']}, {result['frames']} frames, "
        f"{result['env_steps']} env_steps, {result['bytes'] / 1e6:.1f} MB",
        f"  frames of an episode: {low} to {high}, median {middle}",
        f"  return: mean {back['mean']:g}, {back['min']:g} to {back['max']:g}",
        f"  ends: {result['terminated']} by the task, {result['truncated']} by time",
        f"  observation: {observed}",
        *(f"  {key}: {words}" for key, words in result["ranges"].items()),
        f"  {1 / result['control_interval']:g} steps a second, action repeat "
        f"{result['action_repeat']}, renderer {result['renderer']}, {result['simulator']}",
        *([f"  {result['unfinished']}"] if result["unfinished"] else []),
        *([f"  frames: {sheet}"] if sheet else []),
    ):
        echo(line)


@verb.command("export")
@click.argument("folder", type=_FOLDER)
@click.argument("target")
@click.option(
    "--to", "kind", required=True, type=click.Choice(["npz", "lerobot", "minari"]), help="Format."
)
@click.option("--video", is_flag=True, help="LeRobot: images as films, which loses a little.")
@options.as_json()
def export(folder: Path, target: str, kind: str, video: bool, as_json: bool) -> None:
    """Write the episodes in FOLDER as TARGET, a new folder, or for Minari an ID; without loss.

    `planet data import` gives back the same episodes.

    For example: planet data export sets/walker walker-lerobot --to lerobot
    """
    if video and kind != "lerobot":
        raise click.UsageError(f"--video: {kind} has no films; leave it out, or --to lerobot")
    written = _export(folder, target, kind, video)
    result = {"format": kind, "target": target, "folder": str(written)}
    echo(json.dumps(result) if as_json else f"{kind} in {written}")


def _export(folder: Path, target: str, kind: str, video: bool) -> Path:
    if kind == "minari":
        from planet_rssm.datasets.minari import export_dataset

        return export_dataset(folder, target)
    from planet_rssm.datasets import exporting
    from planet_rssm.datasets.export_lerobot import write_lerobot

    as_lerobot = functools.partial(write_lerobot, video=video)
    write = as_lerobot if kind == "lerobot" else exporting.write_npz
    with StageProgress("export", 1) as progress:
        exporting.export(folder, Path(target), write, progress.at)
    return Path(target)
