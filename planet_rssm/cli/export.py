"""`planet export`."""

from pathlib import Path

import click
from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.cli import complete, options, tables

FORMATS = ("onnx", "pt2")


@click.command("export")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(FORMATS),
    help="onnx: for ONNX Runtime (extra `onnx`); pt2: PyTorch's exported program.",
)
@options.planner
@options.settings(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@options.checkpoint()
@options.allow_code
@options.as_json()
def verb(
    *,
    run: Path,
    out: Path,
    kind: str,
    planner: str | None,
    overrides: tuple[str, ...],
    checkpoint: str,
    as_json: bool,
) -> None:
    """Write RUN's decision, the filter and the search, as one file OUT that needs no planet.

    It takes frame, last action, carry and noise, and returns action and next carry. What was
    written is run beside the agent and timed.

    \b
    For example
      planet export runs/walker walker.onnx --to onnx
      planet export pretrained:cartpole-swingup actor.onnx --to onnx
    """  # noqa: D301 (click wants the character itself)
    from planet_rssm.agent import Agent
    from planet_rssm.deploy import export_agent
    from planet_rssm.deploy.checking import compare, latency

    wanted = [*options.with_planner(overrides, planner), "planner.precision=float32"]
    agent = Agent.load(run, checkpoint, "cpu", overrides=wanted)
    graph = export_agent(agent, out, kind)
    result: Json = {
        "file": str(out),
        "format": kind,
        "bytes": out.stat().st_size,
        "task": agent.spec.id,
        "planner": type(agent.planner).__name__,
        "inputs": graph.input_names,
        "outputs": graph.output_names,
        "noise": graph.noise_size,
        "difference": compare(out, kind, graph, agent),
        "latency_ms": latency(out, kind, graph, agent),
    }
    tables.print_result(result, as_json, _print)


def _print(result: Json, console: Console) -> None:
    apart, ms = result["difference"], result["latency_ms"]
    for line in (
        f"{result['file']}: {result['planner']} of {result['task']}, "
        f"{result['bytes'] / 1e6:.1f} MB",
        f"  in:  {', '.join(result['inputs'])}",
        f"  out: {', '.join(result['outputs'])}",
        f"  on the same noise: actions differ by at most {apart['action']:.1e}, beliefs by "
        f"{apart['belief']:.1e}",
        f"  a decision: {ms[result['format']]:.1f} ms, here in Python {ms['agent']:.1f} ms",
    ):
        tables.print_text(console, line)
