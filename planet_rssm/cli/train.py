"""`planet train`."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planet_rssm import config
from planet_rssm.errors import PlanetError

if TYPE_CHECKING:
    from planet_rssm.run import Run

CURVE = "curve.png"


@click.command("train")
@click.argument("preset")
@click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the run is kept [runs/PRESET-seedN].")
@click.option("--seed", type=click.IntRange(min=0), help="Short for -s seed=N.")
@click.option("--device", help="Short for -s device=…: auto, cpu or cuda.")
@click.option("--resume", is_flag=True, help="Go on with the run where it was last committed.")
@click.option("--plan-episodes", default=20, show_default=True, type=click.IntRange(min=0),
              help="Episodes to plan with the trained model at the end; 0 for none.")  # fmt: skip
def verb(
    preset: str,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    seed: int | None,
    device: str | None,
    resume: bool,
    plan_episodes: int,
) -> None:
    """Train PRESET, a preset or a settings file, then plan with what was learned.

    Safe to interrupt: the same command with --resume goes on.

    \b
    For example
      planet train quickstart
      planet train planet -s env.id=dmc/walker-walk --seed 1 --run-dir runs/walker
    """  # noqa: D301 (click reads the backspace)
    wanted = list(overrides)
    wanted += [] if seed is None else [f"seed={seed}"]
    wanted += [] if device is None else [f"device={device}"]
    settings = config.load(preset, wanted)
    folder = run_dir or Path("runs") / f"{Path(preset).stem}-seed{settings.seed}"
    run = _open(folder, settings) if resume else _create(folder, settings)
    _train(run)
    if plan_episodes:
        _plan(run, plan_episodes)


def _create(folder: Path, settings: config.Settings) -> "Run":
    from planet_rssm.device import resolve_device  # torch: not for `planet train --help`
    from planet_rssm.envs.registry import resolve
    from planet_rssm.run import Run

    device = resolve_device(settings.device)  # before anything is written: no mistake may leave a half-made run
    settings = settings.model_copy(update={"env": resolve(settings.env)})
    _check_learnable(settings)
    return Run.create(folder, settings, str(device))


def _open(folder: Path, settings: config.Settings) -> "Run":
    from planet_rssm.device import resolve_device
    from planet_rssm.run import Run

    resolve_device(settings.device)
    return Run.open(folder, settings)


def _check_learnable(settings: config.Settings) -> None:
    from planet_rssm.envs.dmc import EPISODE_STEPS

    if settings.env.renderer == "none":
        raise PlanetError("env.renderer = 'none': there would be nothing to see; use auto or raycast")
    frames = math.ceil(EPISODE_STEPS / (settings.env.action_repeat or 1)) + 1
    if settings.train.batch_length > frames:
        raise PlanetError(
            f"train.batch_length = {settings.train.batch_length}: longer than every episode, which has {frames} frames "
            f"at env.action_repeat = {settings.env.action_repeat}; lower one of them"
        )


def _plan(run: "Run", episodes: int) -> None:
    """Show what was learned: a table, a video, and the learning curve with the baselines in it."""
    from planet_rssm.cli.plan import plan_and_print
    from planet_rssm.report.curves import plot_curves

    result = plan_and_print(run.folder, episodes, video=True, device=run.settings.device)
    if importlib.util.find_spec("matplotlib"):
        plot_curves([run.folder], run.folder / CURVE, result["baselines"])
        click.echo(f"learning curve: {run.folder / CURVE}")


def _train(run: "Run") -> None:
    from planet_rssm.training.display import Display
    from planet_rssm.training.interrupt import Interrupted
    from planet_rssm.training.trainer import Trainer

    click.echo(f"run folder {run.folder}", err=True)
    trainer = Trainer(run, Display())
    try:
        trainer.run()
    except Interrupted:
        click.echo(
            f"stopped at {trainer.progress.env_steps} env_steps, {trainer.progress.updates} updates; "
            f"the same command with --resume goes on",
            err=True,
        )
        sys.exit(130)
