"""What `planet train --dry-run` prints."""

from rich.console import Console

from planet_rssm.base.json_types import Json
from planet_rssm.base.stopwatch import duration
from planet_rssm.cli import tables


def print_forecast(result: Json, console: Console) -> None:
    """Print what a run would take: time by part, disk and memory."""
    from planet_rssm.evaluation.results import describe_observation
    from planet_rssm.training.learning_run import padding_line

    run = result["run"]
    one = result["measured"]
    parts = {
        "collect": f"{run['episodes']} episodes, step {_ms(one['env_step'])}, "
        f"decision {_ms(one['decision'])}",
        "learn": f"{run['updates']} updates, {_ms(one['update'])} each",
        "test": f"{run['test_episodes']} episodes",
        "commit": f"checkpoint {_ms(one['checkpoint'])}, fsync {_ms(one['fsync'])}",
        "plan": f"{run['plan_episodes']} episodes when trained, as many of each baseline "
        "(--plan-episodes)",
        "total": f"{run['env_steps']} env_steps; "
        f"start of the environments {one['env_start']:.1f} s",
    }
    where = f"{result['device']} in {result['precision']}"
    observation = describe_observation(result["observation"])
    title = f"{result['task']}, {observation}, {where}: the complete run"
    body = [(name, duration(result["seconds"][name]), what) for name, what in parts.items()]
    tables.print_table(console, title, ("part", "time", "of"), body)
    _print_space(result, console)
    if short := result["short_episodes"]:
        time = f"{duration(short['seconds']['total'])}, {short['run']['updates']} updates"
        steps = f"{short['steps']:.0f} env_steps"
        tables.print_text(
            console,
            f"episodes may end early: all as short as random ones, {steps}, it takes {time}",
        )
    longest, shortest = result["padding"], (short or result)["padding"]
    if line := padding_line(shortest, result["batch_length"]):
        console.print(line if longest == shortest else f"at first: {line}", soft_wrap=True)
    if result["bytes"]["total"] > result["free"]["disk"]:
        console.print("the disk is too small for this run: free it, or lower data.capacity")


def _print_space(result: Json, console: Console) -> None:
    """Print what the run takes of disk and memory, beside what is free."""
    size = result["bytes"]
    free = result["free"]
    parts = f"episodes {_gib(size['episodes'])}, checkpoints {_gib(size['checkpoints'])}"
    tables.print_text(console, f"disk: {_gib(size['total'])} ({parts}), {_gib(free['disk'])} free")
    known = {"": free["memory"], " on the device": free["device_memory"]}
    left = ", ".join(
        f"{_gib(value)} free{where}" for where, value in known.items() if value is not None
    )
    console.print(
        f"memory: {_gib(result['peak_memory'])} at most in this process, {left or 'free: unknown'}"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
