"""`planet minari`."""

import json
from pathlib import Path
from typing import Any

import click

from planet_rssm.cli import options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import echo


@click.group("minari", context_settings={"help_option_names": ["-h", "--help"]})
def verb() -> None:
    """Import and export Minari datasets (extra `minari`).

    Minari keeps its datasets in ~/.minari/datasets, or where MINARI_DATASETS_PATH says.

    \b
    For example
      planet minari import D4RL/door/human-v2 --download --out sets/door
      planet train quickstart --offline --data sets/door --run-dir runs/door
      planet minari export runs/quickstart-cartpole-swingup-seed0/episodes cartpole/quickstart-v0
    """  # noqa: D301 (click reads the backspace)


@verb.command("import")
@click.argument("dataset")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Where the episodes are kept."
)
@options.observe_taken
@options.size_taken
@click.option("--drop", multiple=True, metavar="KEY", help="Leave an observation out; repeatable.")
@click.option(
    "--scale-actions",
    is_flag=True,
    help="Actions without bounds: take the least and greatest of the data.",
)
@click.option(
    "--skip", is_flag=True, help="Leave out the episodes that cannot be taken, as those with NaN."
)
@options.allow_code
@click.option("--download", is_flag=True, help="Fetch it if it is not on this machine.")
@options.as_json()
def import_(
    *,
    dataset: str,
    out: Path,
    observe: str | None,
    size: int,
    drop: tuple[str, ...],
    scale_actions: bool,
    skip: bool,
    download: bool,
    as_json: bool,
) -> None:
    """Write the episodes of DATASET, an ID or a folder, for `planet train --offline`.

    Actions become numbers in [-1, 1], by the bounds of the dataset's action space, or choices. An
    import that was killed is continued by the same command.

    For example: planet minari import mujoco/hopper/medium-v0 --download --out sets/hopper
    """
    import_dataset(
        dataset,
        out,
        as_json=as_json,
        download=download,
        skip=skip,
        observe=observe,
        size=size,
        drop=drop,
        scale_actions=scale_actions,
    )


def import_dataset(
    dataset: str,
    out: Path | None,
    *,
    as_json: bool,
    download: bool,
    skip: bool,
    **wish: Any,  # noqa: ANN401 (what both functions of datasets.minari take)
) -> None:
    """Import a Minari dataset and print what came of it; without `out` only look."""
    from planet_rssm.datasets import minari

    if out is None:
        episodes, steps, spec = minari.look_at_dataset(dataset, download=download, **wish)
        env, env_steps = spec.to_json(), steps * spec.action_repeat
    else:
        with StageProgress("import", 1) as progress:
            replay = minari.import_dataset(
                dataset, out, download=download, skip=skip, progress=progress.at, **wish
            )
        env, episodes = replay.env or {}, len(replay)
        env_steps = sum(entry.env_steps for entry in replay.episodes)
    result = {
        "dataset": dataset,
        "task": env["id"],
        "episodes": episodes,
        "env_steps": env_steps,
        "observation": {key: list(shape) for key, (shape, _) in env["observation"].items()},
    }
    result |= {"out": str(out)} if out else {}
    observed = ", ".join(f"{key} {shape}" for key, shape in result["observation"].items())
    line = (
        f"{result['episodes']} episodes, {result['env_steps']} env_steps of {result['task']}, "
        f"{observed}"
    )
    echo(json.dumps(result) if as_json else f"{line}, in {out}" if out else line)


@verb.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("dataset")
@options.as_json()
def export(folder: Path, dataset: str, as_json: bool) -> None:
    """Write the episodes in FOLDER as the Minari dataset of the ID DATASET, without loss.

    Observations and actions are in planet's units, and importing it gives the same episodes.

    For example: planet minari export sets/random walker/random-v0
    """
    from planet_rssm.datasets.minari import export_dataset

    written = export_dataset(folder, dataset)
    result = {"dataset": dataset, "folder": str(written)}
    click.echo(json.dumps(result) if as_json else f"{dataset} in {written}")
