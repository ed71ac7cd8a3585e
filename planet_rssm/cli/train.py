"""`planet train`."""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.stopwatch import by_length, shares
from planet_rssm.base.torchrun import check_batch, is_leader, team_size
from planet_rssm.base.trust import require
from planet_rssm.cli import complete, options, tables
from planet_rssm.cli.forecast import print_forecast
from planet_rssm.cli.train_checks import checked
from planet_rssm.training.trackers import require_trackers

if TYPE_CHECKING:
    from planet_rssm.runs.run import Run
    from planet_rssm.training.team import Team

CURVE = "curve.png"


@click.command("train")
@click.argument("preset", shell_complete=complete.preset)
@options.settings(complete.any_setting, "Change a setting; may be repeated.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Where the run is kept [runs/PRESET-TASK-seedN].",
)
@click.option("--seed", type=click.IntRange(min=0), help="Short for -s seed=N.")
@click.option("--device", help="Short for -s device=…: auto, cpu or cuda.")
@click.option("--resume", is_flag=True, help="Continue the run where it was last committed.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="With --offline: a folder of episodes."
)
@click.option(
    "--offline", is_flag=True, help="Learn from the episodes of --data alone; start no environment."
)
@click.option(
    "--updates", type=click.IntRange(min=1), help="Offline: short for -s train.offline_updates=N."
)
@click.option(
    "--dry-run",
    "dry",
    is_flag=True,
    help="Measure each part once, say how long the run takes, keep nothing.",
)
@click.option(
    "--collect-on",
    metavar="ray[:ADDRESS]",
    help="Collect by Ray, with train.collectors collectors; see docs/scale.md.",
)
@options.as_json("Print the dry run's result as one JSON object.")
@options.allow_code
@click.option(
    "--plan-episodes",
    type=options.count(0),
    help="Episodes to plan with the trained model at the end; 0 for none [20, offline 0].",
)
def verb(
    *,
    preset: str,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    seed: int | None,
    device: str | None,
    resume: bool,
    data: Path | None,
    offline: bool,
    updates: int | None,
    dry: bool,
    collect_on: str | None,
    as_json: bool,
    plan_episodes: int | None,
) -> None:
    """Train PRESET, a preset or a settings file, then plan with what was learned.

    A settings file names the preset that it changes in its first line, `preset: quickstart`, or
    states every setting, as `planet config quickstart` prints them.

    Safe to interrupt: the same command with --resume continues.

    \b
    For example
      planet train quickstart
      planet train planet -s env.id=dmc/walker-walk --seed 1 --run-dir runs/walker
      planet train planet --dry-run
      planet train quickstart --offline --data sets/random --run-dir runs/offline
      torchrun --nproc-per-node=2 -m planet_rssm train planet
      planet train planet --collect-on ray -s train.collectors=8
    """  # noqa: D301 (click reads the backspace)
    if not is_leader():
        _follow()
        return
    wanted = list(overrides)
    wanted += [] if seed is None else [f"seed={seed}"]
    wanted += [] if device is None else [f"device={device}"]
    settings = config.load(preset, wanted)
    settings = _with_data(settings, wanted, data, offline, updates)
    folder = run_dir or default_folder(preset, settings)
    episodes = (0 if settings.data.folder else 20) if plan_episodes is None else plan_episodes
    if collect_on is not None:
        _check_collect_on(collect_on, dry, settings.data.folder is not None)
    if dry or as_json:
        _check_dry(dry, resume, settings.data.folder is not None)
        if team_size() > 1:
            raise PlanetError("--dry-run: measures one process; run it without torchrun")
        _dry_run(folder, settings, as_json, episodes)
        return
    if settings.data.folder and plan_episodes:
        # now, not when all has been learned
        require(config.flatten(settings), f"--data {settings.data.folder}")
    check_batch(settings.train.batch_size, team_size())
    require_trackers(settings.train.trackers)
    elsewhere = collect_on is not None
    run = _open(folder, settings, elsewhere) if resume else _create(folder, settings, elsewhere)
    learned = _train(run, episodes, collect_on)
    if not learned and plan_episodes is None:
        click.echo(
            "this run has ended before, nothing was left to learn; "
            f"to plan with it: planet plan {run.folder}",
            err=True,
        )
    elif episodes:
        _plan(run, episodes)


def default_folder(preset: str, settings: config.Settings) -> Path:
    """Return where a run is kept unless --run-dir says so: runs/PRESET-TASK-seedN.

    TASK is the environment's id without `dmc/` or `gym/`; what is no letter, digit, dot, _ or - in
    it becomes a -.
    """
    from planet_rssm.envs.registry import canonical_id

    task = re.sub(
        r"[^\w.-]", "-", canonical_id(settings.env.id).removeprefix("dmc/").removeprefix("gym/")
    )
    return Path("runs") / f"{Path(preset).stem}-{task}-seed{settings.seed}"


def _with_data(
    settings: config.Settings,
    overrides: Sequence[str],
    data: Path | None,
    offline: bool,
    updates: int | None,
) -> config.Settings:
    """Return the settings with the episodes to learn from offline, and their environment."""
    changed: dict[str, object] = {}
    if data is not None:
        if not offline:
            raise PlanetError(
                f"--data {data}: only with --offline; a run that collects begins without episodes"
            )
        changed["data.folder"] = str(data.resolve())  # a resumed run may be started from elsewhere
    elif offline and settings.data.folder is None:
        raise PlanetError(
            "--offline: nothing to learn from; add --data DIR, a folder that `planet collect` wrote"
        )
    if updates is not None:
        changed["train.offline_updates"] = updates
    settings = config.resolve(config.flatten(settings) | changed)
    if settings.data.folder is None:
        if updates is not None:
            raise PlanetError(
                f"--updates {updates}: only with --offline; else train.env_steps is the budget"
            )
        return settings
    from planet_rssm.training.offline import adopt_environment

    settings, adopted = adopt_environment(settings, overrides)
    tables.echo(adopted, err=True)
    return settings


def _check_dry(dry: bool, resume: bool, offline: bool) -> None:
    if not dry:
        raise PlanetError(
            "--json: only with --dry-run; what a run measures is in its metrics.jsonl"
        )
    if resume or offline:
        other = "--resume" if resume else "--offline"
        raise PlanetError(f"--dry-run: predicts a complete run that collects; leave {other} out")


def _check_collect_on(where: str, dry: bool, offline: bool) -> None:
    from planet_rssm.base.cluster import check_cluster

    if dry or offline:
        why = "--dry-run measures this machine alone" if dry else "--offline collects nothing"
        raise PlanetError(f"--collect-on {where}: {why}; leave one out")
    check_cluster("--collect-on", where)


def _dry_run(folder: Path, settings: config.Settings, as_json: bool, plan_episodes: int) -> None:
    """Measure, then print."""
    from planet_rssm.runs.run import Run
    from planet_rssm.training.dry_run import dry_run, place_of

    place_of(folder)
    Run(folder, settings).check_new()  # as the run itself would be refused
    settings, device = checked(settings)
    result = dry_run(
        settings, device, folder, lambda line: click.echo(line, err=True), plan_episodes
    )
    tables.print_result(result.to_json(), as_json, print_forecast)


def _create(
    folder: Path, settings: config.Settings, elsewhere: bool = False, *, resume: bool = False
) -> "Run":
    from planet_rssm.precision import AUTO, EXACT
    from planet_rssm.runs.run import Run

    asked = settings.train.precision
    # now: no mistake may leave a half-made run
    resolved, device = checked(settings, collects_elsewhere=elsewhere)
    run = Run(folder, resolved)
    if resume and not run.is_uncommitted():  # another process has committed meanwhile
        return Run.open(folder, settings)
    run = Run.create(folder, resolved, str(device))
    if asked == AUTO:
        chosen = resolved.train.precision
        why = (
            "bfloat16 products are not faster"
            if chosen == EXACT
            else "its products are faster than float32's"
        )
        click.echo(f"precision {chosen}: {why} on this machine", err=True)
    return run


def _open(folder: Path, settings: config.Settings, elsewhere: bool = False) -> "Run":
    from planet_rssm.runs.run import Run

    Run(folder, settings).check_files()  # before torch is imported, which takes seconds
    from planet_rssm.base.device import resolve_device

    resolve_device(settings.device)
    run = Run(folder, settings)
    if not run.is_uncommitted():
        return Run.open(folder, settings)
    with run.lock():  # else another process makes the first round now
        click.echo(f"run folder {folder}: nothing was committed in it; it is begun anew", err=True)
    # no setting has decided anything yet
    return _create(folder, settings, elsewhere, resume=True)


def _plan(run: "Run", episodes: int) -> None:
    """Show what was learned: a table, a video, and the learning curve with the baselines in it."""
    from planet_rssm.cli.plan import plan_and_print
    from planet_rssm.report.curves import plot_curves

    click.echo(
        f"the training is complete; now {episodes} episodes are planned with it, "
        "and as many of each baseline (--plan-episodes 0 leaves this out)",
        err=True,
    )
    try:
        result = plan_and_print(run.folder, episodes, video=True, device=run.settings.device)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        click.echo(
            f"stopped while planning: the training is complete and kept in {run.folder}; "
            f"to plan with it: planet plan {run.folder} --video",
            err=True,
        )
        raise
    if importlib.util.find_spec("matplotlib"):
        plot_curves([run.folder], run.folder / CURVE, result["baselines"])
        click.echo(f"learning curve: {run.folder / CURVE}")


def _say_what_an_extra_adds() -> None:
    adds = {
        "tensorboard": "TensorBoard events",
        "matplotlib": "the learning curve",
        "av": "MP4 films in place of GIF",
    }
    if missing := [what for name, what in adds.items() if importlib.util.find_spec(name) is None]:
        click.echo(
            f"pip install 'planet-rssm[report]' adds {', '.join(missing)}; "
            "metrics.jsonl is there without it",
            err=True,
        )


@contextlib.contextmanager
def _joined() -> Iterator["Team | None"]:
    """Join the other processes that learn, if torchrun has started any."""
    if team_size() == 1:
        yield None
        return
    from planet_rssm.training.team import Team

    with Team.joined() as team:
        click.echo(f"{team.count} processes learn together", err=True)
        yield team


def _follow() -> None:
    """Learn together with the process that is the run; that one says what is wrong."""
    from planet_rssm.training.follow import follow

    try:
        follow()
    except PlanetError:
        sys.exit(1)


def _train(run: "Run", plan_episodes: int, collect_on: str | None) -> bool:
    """Train, and return whether anything was left to learn."""
    from planet_rssm.base.interrupt import Interrupted
    from planet_rssm.training.display import Display
    from planet_rssm.training.start import open_trainer

    click.echo(f"run folder {run.folder}", err=True)
    _say_what_an_extra_adds()
    try:
        with (
            _joined() as team,
            open_trainer(run, Display(plan_episodes), team, collect_on) as trainer,
        ):
            trainer.run()
    except Interrupted:
        click.echo(
            f"stopped at {trainer.progress.env_steps} env_steps, "
            f"{trainer.progress.updates} updates; the same command with --resume continues",
            err=True,
        )
        sys.exit(130)
    if trainer.progress.rounds == trainer.learning.rounds_before:
        return False
    spent = by_length(trainer.progress.stage_seconds) | {"total": trainer.progress.seconds}
    click.echo(f"time: {shares(spent)}", err=True)
    return True
