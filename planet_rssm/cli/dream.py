"""`planet dream`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from planet_rssm.cli import complete
from planet_rssm.cli.options import allow_code
from planet_rssm.cli.progress import Shown
from planet_rssm.cli.tables import results, say, show

if TYPE_CHECKING:
    from planet_rssm.openloop.predictions import Film

NAMES = {
    "error": "the model",
    "copy_last": "the last frame seen",
    "mean_frame": "the mean frame",
    "mean": "the mean reward",
    "shuffled_actions": "the model, other actions",
}


@click.command("dream")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    default="last",
    show_default=True,
    help="last, best or a number of env_steps (offline: updates).",
)
@click.option(
    "--episodes", type=click.IntRange(min=2), help="[default: 10 played now, at most 100 of --data]"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Foretell the episodes in this folder; else they are played now.",
)
@click.option(
    "--context",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Frames that the model sees first.",
)
@click.option(
    "--horizon",
    "horizons",
    multiple=True,
    default=(1, 5, 15, 45),
    show_default=True,
    type=click.IntRange(min=1),
    help="Agent steps after the last frame seen; repeatable.",
)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(min=1),
              help="Imagined futures whose mean is what is foretold.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--video/--no-video", default=False, help="Film truth, prediction and error into RUN/videos."
)
@allow_code
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")  # fmt: skip
def verb(
    run: Path,
    checkpoint: str,
    episodes: int | None,
    data: Path | None,
    context: int,
    horizons: tuple[int, ...],
    samples: int,
    device: str,
    video: bool,
    as_json: bool,
) -> None:
    """Measure what RUN's model imagines, open loop, of episodes that it was not trained on.

    It sees a few frames and then only the actions. Errors are mean squared ones, of pixels from 0
    to 1, averaged over many starts. Without --data half of the episodes are played by the run's
    agent and half at random.

    \b
    For example
      planet dream runs/quickstart-cartpole-swingup-seed0 --video
      planet dream runs/offline --data sets/held-out --horizon 1 --horizon 30 --json
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.openloop.measure import dream_run  # torch: not for `planet dream --help`

    def film(dream: "Film", fps: float) -> Path:
        from planet_rssm.report.dream_film import panels
        from planet_rssm.report.video import write_video
        from planet_rssm.runs.checkpoint import outputs
        from planet_rssm.runs.run import VIDEOS

        (folder := outputs(run) / VIDEOS).mkdir(parents=True, exist_ok=True)
        return write_video(folder / "dream.mp4", panels(*dream), fps)

    with Shown("read episodes" if data else "play episodes", episodes or 10) as shown:
        result = dream_run(
            run,
            checkpoint=checkpoint,
            episodes=episodes,
            data=data,
            horizons=horizons,
            context=context,
            samples=samples,
            device=device,
            film=film if video else None,
            on_episode=shown.advance,
        )
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, results())


def _print(result: dict[str, Any], console: Console) -> None:
    title = f"{result['task']}: mean squared error, agent steps after {result['context']} frames"
    if result["checkpoint"] == "best":
        title += ", best checkpoint (selected on test episodes)"
    body: list[tuple[str, ...]] = []
    for of in ("image", "vector", "reward"):
        label = of
        for part, name in NAMES.items():
            if errors := result.get(f"{of}_{part}"):
                body.append((label, name, *(f"{error:.2g}" for error in errors)))
                label = ""
    show(console, title, ("of", "predicted by", *map(str, result["horizons"])), body)
    told = (
        f"{result['source']}; {result['starts'][0]} starts",
        "pixels from 0 to 1, vectors in symlog units; other actions are those of another episode",
    )
    say(console, "\n".join(told))
    if result["video"]:
        say(console, f"video: {result['video']}")
