"""`planet plan`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.console import Console

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, films, options, tables
from planet_rssm.cli.progress import StageProgress

if TYPE_CHECKING:
    from planet_rssm.evaluation.xray import Explained, WriteExplained


@click.command("plan")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@options.planner
@options.settings(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@click.option("--episodes", default=20, show_default=True, type=options.count())
@options.checkpoint()
@options.device()
@click.option("--video/--no-video", default=False, help="Film the first episode into RUN/videos.")
@click.option(
    "--xray/--no-xray",
    default=False,
    help="Film why it chose what it chose in the first episode, into RUN/videos.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the arrays of that episode's decisions there, as .npz.",
)
@click.option(
    "--goal",
    type=click.Path(path_type=Path),
    metavar="IMAGE",
    help="Plan to what this picture shows; predicted rewards do not count.",
)
@options.allow_code
@options.as_json()
def verb(
    *,
    run: Path,
    planner: str | None,
    overrides: tuple[str, ...],
    episodes: int,
    checkpoint: str,
    device: str,
    video: bool,
    xray: bool,
    trace: Path | None,
    goal: Path | None,
    as_json: bool,
) -> None:
    """Act in RUN's environment by planning in what it learned.

    Reset seeds are fixed, and there is no exploration noise. RUN is a folder; or pretrained:NAME, a
    model of the package, by its task; or simulator:TASK: dm_control's own
    physics are the model, and nothing is learned. There the planner is icem unless another is
    named, and -s changes env.action_repeat and env.time_limit too. The video of a pretrained model
    or of a simulator goes into runs/pretrained-NAME or runs/simulator-TASK. The x-ray shows each
    decision beside the real frame: the futures that the model imagined, the returns of what was
    tried, and the plan; docs/planners.md reads it.

    \b
    For example
      planet plan runs/quickstart-cartpole-swingup-seed0 --episodes 20 --video
      planet plan runs/quickstart-cartpole-swingup-seed0 --planner icem -s planner.candidates=50
      planet plan pretrained:cartpole-swingup --episodes 4 --video --json
      planet plan pretrained:cartpole-swingup --planner cem --episodes 1 --xray --trace out.npz
      planet plan simulator:cartpole-swingup --episodes 3
    """  # noqa: D301 (click wants the character itself)
    wanted = options.with_planner(overrides, planner)
    plan_and_print(
        run,
        episodes,
        video=video,
        checkpoint=checkpoint,
        device=device,
        overrides=wanted,
        as_json=as_json,
        xray=xray,
        trace=trace,
        goal=goal,
    )


def plan_and_print(
    run: Path,
    episodes: int,
    *,
    video: bool,
    checkpoint: str = "last",
    device: str = "auto",
    overrides: list[str] | None = None,
    as_json: bool = False,
    xray: bool = False,
    trace: Path | None = None,
    goal: Path | None = None,
) -> Json:
    """Play the episodes, measure the baselines, print the result and return it; see `verb`."""
    from planet_rssm.evaluation.plan_run import plan_run  # torch: not for `planet plan --help`
    from planet_rssm.evaluation.plan_simulator import plan_simulator
    from planet_rssm.evaluation.simulator_settings import PREFIX
    from planet_rssm.report.video import write_video
    from planet_rssm.runs.location import outputs

    simulated = str(run).startswith(PREFIX)
    folder = (
        Path("runs") / str(run).replace(":", "-").replace("/", "-") if simulated else outputs(run)
    )
    if simulated and (xray or trace):
        raise PlanetError(
            f"--{'xray' if xray else 'trace'}: {run} has no learned model to look into; leave it "
            "out, or give a trained run"
        )

    def film(frames: Sequence[np.ndarray], fps: float) -> Path:
        return write_video(films.film_of(folder, "plan"), frames, fps)

    for option, name, asked in (("--video", "plan", video), ("--xray", "xray", xray)):
        if asked:
            films.check_film(option, folder, name)
    with StageProgress("plan", episodes, "decisions") as progress:
        common: Json = {
            "overrides": overrides or [],
            "film": film if video else None,
            "on_stage": lambda name: progress.begin(f"baseline {name}"),
            "on_progress": progress.at,
        }
        if simulated:
            _refuse(checkpoint, device, goal)
            result = plan_simulator(str(run), episodes, **common).to_json()
        else:
            explained = _explained(folder, xray, trace)
            common |= {"checkpoint": checkpoint, "device": device, "xray": explained, "goal": goal}
            result = plan_run(run, episodes, **common).to_json()
    tables.print_result(result, as_json, _print)
    return result


def _explained(folder: Path, xray: bool, trace: Path | None) -> "dict[str, WriteExplained]":
    """Return what writes the explained episode, by its name in the result."""
    from planet_rssm.report.trace import write_trace
    from planet_rssm.report.video import write_video
    from planet_rssm.report.xray import xray_frames

    if trace and (trace.suffix != ".npz" or not trace.parent.is_dir()):
        raise PlanetError(f"--trace {trace}: must be a file .npz in a folder that exists")
    if trace:
        options.check_output("--trace", trace)

    def draw(episode: "Explained") -> Path:
        frames = xray_frames(*episode)
        return write_video(films.film_of(folder, "xray"), frames, 1 / episode.interval)

    writers: dict[str, WriteExplained] = {"xray": draw} if xray else {}
    if trace:
        writers["trace"] = lambda episode: write_trace(trace, *episode)
    return writers


def _refuse(checkpoint: str, device: str, goal: Path | None) -> None:
    """Refuse what a simulator does not have."""
    if goal is not None:
        raise PlanetError(f"--goal {goal}: a simulator has no latent space; leave it out")
    if checkpoint != "last":
        raise PlanetError(
            f"--checkpoint {checkpoint}: a simulator has none, nothing is learned; leave it out"
        )
    if device not in ("auto", "cpu"):
        raise PlanetError(f"--device {device}: simulators run on the CPU; leave it out")


def _print(result: Json, console: Console) -> None:
    from planet_rssm.base.stopwatch import shares
    from planet_rssm.evaluation.results import describe_observation
    from planet_rssm.report.tables import number

    observation = describe_observation(result["observation"])
    title = f"{result['task']}, {observation}, {len(result['episodes'])} episodes"
    if result.get("goal"):
        title += f", planned to {result['goal']} in place of rewards"
    if result["checkpoint"] == "best":
        title += ", best checkpoint (selected on test episodes)"
    rows = {result["planner"]: (result["return"]["mean"], result["return"]["episode_ci95"])}
    rows |= {
        name: (mean, result["baselines_ci95"][name])
        for name, mean in result["baselines"].items()
        if mean is not None
    }
    body = [
        (name, number(mean), f"{number(low)} to {number(high)}")
        for name, (mean, (low, high)) in rows.items()
    ]
    tables.print_table(console, title, ("policy", "mean return", "episode 95 % interval"), body)
    ms = result["latency_ms"]
    batch = "1 environment" if result["batch"] == 1 else f"{result['batch']} environments"
    spread = f"p50 {ms['p50']:.1f} ms, p95 {ms['p95']:.1f}, p99 {ms['p99']:.1f}"
    tables.print_text(console, f"a decision for {batch}: {spread}")
    tables.print_text(console, f"time: {shares(result['seconds'])}")
    for kind in ("video", "xray", "trace"):
        if result.get(kind):
            tables.print_text(console, f"{kind}: {result[kind]}")
