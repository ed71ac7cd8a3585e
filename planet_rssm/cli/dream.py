"""`planet dream`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, films, options
from planet_rssm.cli.progress import StageProgress
from planet_rssm.cli.tables import print_result, print_table, print_text

if TYPE_CHECKING:
    from planet_rssm.openloop.dream_frames import DreamFrames

NAMES = {
    "error": "the model",
    "copy_last": "the last observed frame",
    "mean_frame": "the mean frame",
    "mean": "the mean reward",
    "shuffled_actions": "the model, other actions",
}


@click.command("dream")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@options.checkpoint()
@click.option(
    "--episodes", type=options.count(2), help="[default: 10 played now, at most 100 of --data]"
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Predict the episodes in this folder; without it episodes are played now.",
)
@click.option(
    "--context",
    default=5,
    show_default=True,
    type=options.count(),
    help="Frames that the model sees first.",
)
@click.option(
    "--horizon",
    "horizons",
    multiple=True,
    default=(1, 5, 15, 45),
    show_default=True,
    type=options.count(),
    help="Agent steps after the last observed frame; repeatable.",
)
@click.option(
    "--samples",
    default=1,
    show_default=True,
    type=options.count(),
    help="Imagined futures whose mean is the prediction.",
)
@options.device()
@click.option(
    "--video/--no-video", default=False, help="Film truth, prediction and error into RUN/videos."
)
@options.allow_code
@options.as_json()
def verb(
    *,
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
    from planet_rssm.openloop.dream_run import dream_run  # torch: not for `planet dream --help`
    from planet_rssm.runs.location import outputs

    def film(dream: "DreamFrames", fps: float) -> Path:
        from planet_rssm.report.dream_video import panels
        from planet_rssm.report.video import write_video

        return write_video(
            films.film_of(outputs(run), "dream"),
            panels(dream.truth, dream.prediction, dream.context),
            fps,
        )

    if video:
        films.check_film("--video", outputs(run), "dream")
    stage = "read episodes" if data else "play episodes"
    with StageProgress(stage, episodes or 10) as progress:
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
            on_episode=progress.advance,
        ).to_json()
    print_result(result, as_json, _print)


def _print(result: Json, console: Console) -> None:
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
    print_table(console, title, ("of", "predicted by", *map(str, result["horizons"])), body)
    print_text(console, f"{result['source']}; {result['starts'][0]} starts")
    print_text(
        console,
        "pixels from 0 to 1, vectors in symlog units; other actions are those of another episode",
    )
    if result["video"]:
        print_text(console, f"video: {result['video']}")
