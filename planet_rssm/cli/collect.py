"""`planet collect`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli import complete, options
from planet_rssm.cli.progress import StageProgress

if TYPE_CHECKING:
    from planet_rssm.training.player import Player
    from planet_rssm.training.record import Collected


@click.command("collect")
@click.argument("task", shell_complete=complete.task)
@click.option(
    "--policy", required=True, metavar="random|constant:VALUE|RUN|module:Policy", help="Who acts."
)
@click.option("--episodes", required=True, type=options.count())
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Where the episodes are kept."
)
@click.option(
    "--add", is_flag=True, help="Add to the episodes that --out holds, of whatever policy."
)
@click.option(
    "--noise",
    default=0.0,
    show_default=True,
    type=options.Number(min=0),
    help="With a RUN: std of the Gaussian on its action, or chance of a random choice.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of resets and actions.",
)
@click.option(
    "--envs",
    default=4,
    show_default=True,
    type=options.count(),
    help="Episodes side by side.",
)
@click.option("--size", type=int, help="Short for -s env.size=…: pixels a side.")
@click.option("--renderer", help="Short for -s env.renderer=…")
@options.settings(complete.env_setting, "Change an env.… setting; repeatable.")
@options.checkpoint("Of a RUN: last, best or a number.")
@options.device("Of a RUN: ")
@options.on
@options.allow_code
@options.as_json()
def verb(
    *,
    task: str,
    policy: str,
    episodes: int,
    out: Path,
    add: bool,
    noise: float,
    seed: int,
    envs: int,
    size: int | None,
    renderer: str | None,
    overrides: tuple[str, ...],
    checkpoint: str,
    device: str,
    on: str | None,
    as_json: bool,
) -> None:
    """Write a set of episodes of TASK, for `planet train --offline` and for your own use.

    Reset seeds follow from --seed and are not those of training or tests. With a RUN as policy the
    environment is the run's own.

    \b
    For example
      planet collect cartpole-swingup --policy random --episodes 100 --out sets/random --size 32
      planet collect cartpole-swingup --policy runs/mine --episodes 50 --out sets/mine --add
    """  # noqa: D301 (click wants the character itself)
    wanted = list(overrides)
    wanted += [] if size is None else [f"env.size={size}"]
    wanted += [] if renderer is None else [f"env.renderer={renderer}"]
    player = _player(task, wanted, policy, checkpoint, noise, seed, device)
    collected = _play(player, out, episodes, seed, envs, add, on)
    result = collected.to_json() | {"policy": policy, "noise": noise, "seed": seed, "out": str(out)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(
            f"{len(result['episodes'])} episodes, {result['env_steps']} env_steps, "
            f"mean return {result['return']['mean']:.1f}, in {out}"
        )


def _player(
    task: str,
    overrides: list[str],
    policy: str,
    checkpoint: str,
    noise: float,
    seed: int,
    device: str,
) -> "Player":
    from planet_rssm.runs.location import is_named
    from planet_rssm.training.player import simple_player

    named = policy == "random" or policy.startswith("constant:")  # whatever folders are called here
    if named or not (is_named(policy) or Path(policy).is_dir()):
        player = simple_player(task, overrides, policy, seed)
        if noise:
            raise PlanetError(
                f"--noise {noise:g}: only with a run folder as --policy; leave it out"
            )
        return player
    from planet_rssm.base.device import resolve_device  # torch: not for simple policies
    from planet_rssm.training.agent_player import planning_player

    return planning_player(
        task, overrides, Path(policy), checkpoint, noise, seed, resolve_device(device)
    )


def _play(
    player: "Player",
    out: Path,
    episodes: int,
    seed: int,
    envs: int,
    add: bool,
    on: str | None,
) -> "Collected":
    """Write the episodes with a bar on a terminal."""
    from planet_rssm.base.interrupt import Interrupted
    from planet_rssm.training.record import write_episodes

    with StageProgress("collect", episodes) as progress:
        try:
            return write_episodes(
                out, player, episodes, seed, envs, progress.advance, add=add, on=on
            )
        except Interrupted:
            progress.stop()
            kept = f"{progress.done} of {episodes} episodes are kept in {out}"
            click.echo(f"stopped: {kept}", err=True)
            sys.exit(130)
