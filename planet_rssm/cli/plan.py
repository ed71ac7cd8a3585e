"""`planet plan`."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from planet_rssm import checkpoint as checkpoints
from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.checkpoint import Checkpoint
from planet_rssm.config import Settings
from planet_rssm.device import resolve_device
from planet_rssm.envs.pool import EnvPool
from planet_rssm.errors import PlanetError
from planet_rssm.evaluation.baselines import baselines
from planet_rssm.evaluation.protocol import PARALLEL, EpisodeResult, TimedPolicy, episode_seeds, play
from planet_rssm.evaluation.statistics import summary
from planet_rssm.report.video import write_video
from planet_rssm.run import VIDEOS
from planet_rssm.world_model import WorldModel

VIDEO_SIZE = 256  # pixels a side; what is filmed is drawn again, larger than what the agent sees


@click.command("plan")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--planner", type=click.Choice(["cem", "icem"]), help="Short for -s planner.name=…")
@click.option("-s", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a planner.… setting; repeatable.")
@click.option("--episodes", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--checkpoint", default="last", show_default=True, help="last, best or a number of env_steps.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--video/--no-video", default=False, help="Film the first episode into RUN/videos.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def verb(
    run: Path,
    planner: str | None,
    overrides: tuple[str, ...],
    episodes: int,
    checkpoint: str,
    device: str,
    video: bool,
    as_json: bool,
) -> None:
    r"""Act in RUN's environment by planning in what it learned; no exploration noise, fixed reset seeds.

    \b
    For example
      planet plan runs/quickstart-seed0 --episodes 20 --video
      planet plan runs/quickstart-seed0 --planner icem -s planner.candidates=50 --json
    """
    wanted = list(overrides) + ([] if planner is None else [f"planner.name={planner}"])
    plan_and_print(run, episodes, video, checkpoint, device, wanted, as_json)


def plan_and_print(
    run: Path,
    episodes: int,
    video: bool,
    checkpoint: str = "last",
    device: str = "auto",
    overrides: list[str] | None = None,
    as_json: bool = False,
) -> None:
    """Play the episodes, measure the baselines, print the result; see `verb`."""
    held = checkpoints.load(checkpoints.find(run, checkpoint))
    settings = _with_planner(held.settings, overrides or [])
    result = plan_run(run, held, settings, episodes, video, device)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result, Console())


def plan_run(
    run: Path, held: Checkpoint, settings: Settings, episodes: int, video: bool, device: str
) -> dict[str, Any]:
    """Return the object that --json prints."""
    where = resolve_device(device)
    model = WorldModel(settings, held.spec.action_size)
    model.load_state_dict(held.model)
    agent = Agent.build(settings, held.spec, model.to(where), device=where)
    rows = min(episodes, PARALLEL)
    policy = TimedPolicy(AgentPolicy(agent, rows))
    with Progress(console=Console(stderr=True), transient=True) as bar, EnvPool(settings.env, rows) as pool:
        task = bar.add_task("plan", total=episodes)
        camera = Camera(pool) if video else None
        results = play(pool, policy, episode_seeds(episodes), camera, lambda result: bar.advance(task))
        bar.update(task, description="baselines")
        compared = baselines(run, settings, held.spec, episodes, where, lambda name: bar.update(task, description=name))
    film = None if camera is None else camera.save(run / VIDEOS / f"plan-{settings.planner.name}.mp4")
    return {
        "task": held.spec.id,
        "planner": settings.planner.name,
        "episodes": [_episode(result) for result in results],
        "return": summary([result.episode_return for result in results]),
        "baselines": {name: summary(returns)["mean"] for name, returns in compared.items()},
        "baselines_ci95": {name: summary(returns)["episode_ci95"] for name, returns in compared.items()},
        "latency_ms": policy.latency_ms(),
        "batch": rows,
        "video": None if film is None else str(film),
        "observation": {"renderer": held.spec.renderer, "size": settings.env.size, "mujoco": held.spec.mujoco},
        "checkpoint": held.progress["env_steps"],
    }


class Camera:
    """Films row 0 of a pool until its first episode ends."""

    def __init__(self, pool: EnvPool) -> None:
        self._pool = pool
        self._frames: list[Any] = []
        self._done = False

    def __call__(self, steps: dict[int, Any]) -> None:
        """Take a frame after a step of the pool."""
        if not self._done and 0 in steps:
            self._frames.append(self._pool.render(0, VIDEO_SIZE))
            self._done = steps[0].terminated or steps[0].truncated

    def save(self, path: Path) -> Path:
        """Write the film in simulated real time and return where it is."""
        path.parent.mkdir(exist_ok=True)
        return write_video(path, self._frames, fps=1 / self._pool.spec.control_interval)


def _with_planner(settings: Settings, overrides: list[str]) -> Settings:
    changed = config.override(settings, overrides)
    for key, value in config.flatten(changed).items():
        if value != config.flatten(settings)[key] and not key.startswith("planner."):
            raise PlanetError(f"-s {key}={value}: `planet plan` changes only planner.… settings; train another run")
    return changed


def _episode(result: EpisodeResult) -> dict[str, Any]:
    return {"seed": result.seed, "return": result.episode_return, "env_steps": result.env_steps}


def _print(result: dict[str, Any], console: Console) -> None:
    seen = result["observation"]
    pixels = f"{seen['renderer']} {seen['size']}x{seen['size']} pixels"
    title = f"{result['task']}, {pixels}, {len(result['episodes'])} episodes"
    table = Table("policy", "mean return", "episode 95 % interval", title=title)
    rows = {result["planner"]: (result["return"]["mean"], result["return"]["episode_ci95"])}
    rows |= {name: (mean, result["baselines_ci95"][name]) for name, mean in result["baselines"].items()}
    for name, (mean, (low, high)) in rows.items():
        table.add_row(name, f"{mean:.1f}", f"{low:.1f} to {high:.1f}")
    console.print(table)
    latency = result["latency_ms"]
    console.print(
        f"a decision for {result['batch']} environments: p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f}, "
        f"p99 {latency['p99']:.1f}"
    )
    if result["video"]:
        console.print(f"video: {result['video']}", soft_wrap=True)
